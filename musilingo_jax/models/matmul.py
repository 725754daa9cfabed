"""Products of activations and kernels.

A kernel is floating point, or int8 with a scale for each output (`int8.py`). Both
operands of a product have one narrow type and the sums a wide one, in the backward pass
too: that is the fast path of TPUs, of tensor cores, and of CPUs with bfloat16 units.

    kernel      operands                sums
    float32     float32                 float32
    bfloat16    bfloat16                float32
    int8        bfloat16                float32    exact for integers up to 256
    int8        int8 (two digits)       int32      decoding on CPUs, `int8_by_digits`

The path depends on types, the platform and the rank of the arrays, never on the number
of rows: a row's result does not change with the batch that it is in.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8
from numpy import ndarray

from musilingo_jax.models import cpu


def product(
    x: Float[Array | ndarray, "*batch fan_in"],
    kernel: Float[Array | ndarray, "fan_in fan_out"],
) -> Float[Array, "*batch fan_out"]:
    """x · kernel in the kernel's type, accumulated and returned in float32.

    The gradient multiplies in the kernel's type, too. JAX's own rule would multiply
    float32 by bfloat16, for which no backend has a fast path. The gradient of a frozen
    kernel is never computed, because nothing uses it.

    Differentiable once, and in reverse mode only: `jax.jvp` and second derivatives
    raise a TypeError.
    """
    return _product(jnp.asarray(x, jnp.float32), jnp.asarray(kernel))


@jax.custom_vjp
def _product(x: Array, kernel: Array) -> Array:
    """`product` of a float32 x."""
    return jnp.matmul(
        x.astype(kernel.dtype), kernel, preferred_element_type=jnp.float32
    )


def _product_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _product(x, kernel), (x.astype(kernel.dtype), kernel)


def _product_backward(
    saved: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, kernel = saved
    gradient = gradient.astype(kernel.dtype)
    rows = x.reshape(-1, x.shape[-1])
    columns = gradient.reshape(-1, gradient.shape[-1])
    to_x = jnp.matmul(gradient, kernel.T, preferred_element_type=jnp.float32)
    to_kernel = jnp.matmul(rows.T, columns, preferred_element_type=jnp.float32)
    return to_x, to_kernel.astype(kernel.dtype)


_product.defvjp(_product_forward, _product_backward)


def in_two_rows(
    x: Float[Array | ndarray, "*batch fan_in"],
    kernel: Float[Array | ndarray, "fan_in fan_out"],
) -> Float[Array, "*batch fan_out"]:
    """`product` where a device has a single row, which it multiplies twice.

    From two rows on, compilers use their units for products of bfloat16. With one row,
    XLA:CPU first copies the whole kernel to float32: nine times as slow at 4096 × 4096.
    XLA:TPU multiplies and sums in float32, copying some kernels, too.
    """
    row = jnp.asarray(x)[..., None, :]
    return product(jnp.concatenate([row, row], axis=-2), kernel)[..., 0, :]


def int8_product(
    x: Float[Array | ndarray, "*batch fan_in"],
    kernel: Int8[Array | ndarray, "fan_out fan_in"],
    scale: Float[Array | ndarray, " fan_out"],
) -> Float[Array, "*batch fan_out"]:
    """x · (kernel · scale)ᵀ without ever storing the kernel in a wider type.

    A scale belongs to an output channel, so it can be applied after the sum. Before the
    product the kernel's integers need only be converted to bfloat16, which accelerators
    do on the way into the matrix unit.

    Differentiable with respect to x, once and in reverse mode; kernel and scale count
    as constants, whose gradient is zero.
    """
    return _int8_product(
        jnp.asarray(x, jnp.float32), jnp.asarray(kernel), jnp.asarray(scale)
    )


@jax.custom_vjp
def _int8_product(x: Array, kernel: Array, scale: Array) -> Array:
    """`int8_product` of a float32 x."""
    if math.prod(x.shape[1:-1]) == 1:
        # One vector per row of the batch: a step of decoding, or the first token after
        # a prompt. Its time is that of reading the kernel.
        sums = jax.lax.platform_dependent(
            x, kernel, cpu=cpu.int8_by_digits, default=_int8_as_bfloat16
        )
    else:
        sums = _int8_as_bfloat16(x, kernel)
    return sums * scale


def _int8_as_bfloat16(x: Array, kernel: Array) -> Array:
    """x · kernelᵀ with both in bfloat16; only x loses precision."""
    return jax.lax.dot_general(
        x.astype(jnp.bfloat16),
        kernel.astype(jnp.bfloat16),
        (((x.ndim - 1,), (1,)), ((), ())),
        preferred_element_type=jnp.float32,
    )


def _int8_forward(
    x: Array, kernel: Array, scale: Array
) -> tuple[Array, tuple[Array, Array]]:
    return _int8_product(x, kernel, scale), (kernel, scale)


def _int8_backward(
    saved: tuple[Array, Array], gradient: Array
) -> tuple[Array, None, None]:
    kernel, scale = saved
    to_x = jnp.matmul(
        (gradient * scale).astype(jnp.bfloat16),
        kernel.astype(jnp.bfloat16),
        preferred_element_type=jnp.float32,
    )
    return to_x, None, None


_int8_product.defvjp(_int8_forward, _int8_backward)

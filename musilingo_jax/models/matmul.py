"""Products of activations and kernels: the same sum, as each machine adds it fastest.

Kernels come in floating point or in int8 (`quantization.py`). Every product takes both
operands in one narrow type and accumulates in a wide one, in the backward pass too:

    kernel      operands                sums
    float32     float32                 float32
    bfloat16    bfloat16                float32
    int8        bfloat16                float32    whole numbers up to 127 are exact
    int8        int8 (two of them)      int32      when decoding on CPUs: see `_digits`

The rules look at the type, the platform and the shape of the program, never at the
number of rows, so that what a row becomes does not depend on its neighbours.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8

_LARGEST = 127.0


@jax.custom_vjp
def product(
    x: Float[Array, "*batch fan_in"], kernel: Float[Array, "fan_in fan_out"]
) -> Float[Array, "*batch fan_out"]:
    """x · kernel, whose gradient, too, multiplies in the kernel's type.

    Left alone, the gradient would be a product of float32 and bfloat16, for which no
    backend has a fast path: it is computed as one of float32. The gradient of a frozen
    kernel is asked for by nobody, and then it is not computed.
    """
    return jnp.matmul(
        x.astype(kernel.dtype), kernel, preferred_element_type=jnp.float32
    )


def _product_forward(x, kernel):
    # The empty array only carries the type that the gradient of x must have.
    kept = x.astype(kernel.dtype), kernel, jnp.zeros(0, x.dtype)
    return product(x, kernel), kept


def _product_backward(kept, gradient):
    x, kernel, like = kept
    gradient = gradient.astype(kernel.dtype)
    rows = x.reshape(-1, x.shape[-1])
    columns = gradient.reshape(-1, gradient.shape[-1])
    to_x = jnp.matmul(gradient, kernel.T, preferred_element_type=jnp.float32)
    to_kernel = jnp.matmul(rows.T, columns, preferred_element_type=jnp.float32)
    return to_x.astype(like.dtype), to_kernel.astype(kernel.dtype)


product.defvjp(_product_forward, _product_backward)


@jax.custom_vjp
def int8_product(
    x: Float[Array, "*batch fan_in"],
    kernel: Int8[Array, "fan_out fan_in"],
    scale: Float[Array, " fan_out"],
) -> Float[Array, "*batch fan_out"]:
    """x · (kernel · scale)ᵀ; int8 is what is read, and nothing wider is ever stored.

    A scale belongs to an output channel, so it can wait until after the sum. What
    remains to be done to the kernel is to call its whole numbers bfloat16, which
    accelerators do on the way into the matrix unit. Values and scales are constants:
    their gradient is zero.

    A program that has one vector for each row of the batch is a step of decoding, or
    the first word after a prompt: it waits for the kernel, not for the arithmetic.
    """
    if math.prod(x.shape[1:-1]) == 1:
        sums = jax.lax.platform_dependent(x, kernel, cpu=_digits, default=_rounded)
    else:
        sums = _rounded(x, kernel)
    return sums * scale


def _int8_forward(x, kernel, scale):
    return int8_product(x, kernel, scale), (kernel, scale, jnp.zeros(0, x.dtype))


def _int8_backward(kept, gradient):
    kernel, scale, like = kept
    to_x = jnp.matmul(
        (gradient * scale).astype(jnp.bfloat16),
        kernel.astype(jnp.bfloat16),
        preferred_element_type=jnp.float32,
    )
    return to_x.astype(like.dtype), None, None


int8_product.defvjp(_int8_forward, _int8_backward)


def _rounded(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The product in bfloat16; only x loses digits."""
    return _rows_by_rows(
        x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), jnp.float32
    )


def _digits(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The product in whole numbers, each of x being written with two digits.

    XLA's CPU compiler multiplies int8 by int8 without writing the kernel out in a wider
    type, which with bfloat16 takes ten times as long as the product. One vector in int8
    would lose too much, and products of a single row are slow; so there are two:

        x           0.8000   -0.3000    0.0011       unit = max|x| / 127 = 0.0063
        high           127       -48         0
        low              0        95        44       in 254ths of a unit

    The rest is below unit / 508, a hundred times less than bfloat16 drops from the
    largest numbers. Sums of whole numbers are exact, whatever their order: 2¹⁷ products
    of 127 · 127 fit into an int32.
    """
    rows = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    unit = jnp.max(jnp.abs(rows), axis=-1, keepdims=True) / _LARGEST
    unit = jnp.where(unit == 0, 1.0, unit)
    high = jnp.rint(rows / unit)
    low = jnp.rint((rows / unit - high) * (2 * _LARGEST))
    digits = jnp.concatenate([high, low]).astype(jnp.int8)
    sums = _rows_by_rows(digits, kernel, jnp.int32).astype(jnp.float32)
    high, low = jnp.split(sums, 2)
    y = (high + low / (2 * _LARGEST)) * unit
    return y.reshape(*x.shape[:-1], kernel.shape[0])


def _rows_by_rows(x: jax.Array, kernel: jax.Array, sums: jnp.dtype) -> jax.Array:
    """x · kernelᵀ; a dot product of rows that lie in one piece each."""
    last = (x.ndim - 1,), (1,)
    return jax.lax.dot_general(x, kernel, (last, ((), ())), preferred_element_type=sums)

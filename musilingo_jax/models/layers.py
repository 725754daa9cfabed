"""The layers that both transformers are made of: linear maps and norms.

Weights may be stored in bfloat16, or in int8 with scales; every product takes both
operands in one type and accumulates in float32 (`matmul.py`). The residual stream,
norms, softmax, rotary angles and logits are float32. What goes from one product
straight to another (queries, keys, values, gate, up) is in the type of the products,
which would round it anyway.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int8
from numpy import ndarray

from musilingo_jax.models import cpu
from musilingo_jax.models.matmul import in_two_rows, int8_product, product
from musilingo_jax.runtime.sharding import rows_per_device


def parameter(array: jax.Array, axes: tuple[str | None, ...]) -> nnx.Param:
    """A parameter whose axes have names, by which `runtime/sharding.py` places it.

    The names are inert metadata. NNX's own `out_sharding` needs a mesh where a module
    is built, and knows neither stacked layers nor sizes that do not divide.
    """
    return nnx.Param(array, axes=axes)


class Linear(nnx.Module):
    """Container of `kernel` [fan_in, fan_out] and, if asked for, `bias` [fan_out].

    A quantised kernel is int8 [fan_out, fan_in] and has a `scale` [fan_out]; `int8.py`
    makes it.
    """

    def __init__(
        self,
        fan_in: int,
        fan_out: int,
        *,
        axes: tuple[str | None, str | None],
        bias: bool,
        rngs: nnx.Rngs,
    ):
        scale = fan_in**-0.5
        kernel = scale * jax.random.normal(rngs.params(), (fan_in, fan_out))
        self.kernel = parameter(kernel, axes)
        self.scale = None
        self.bias = parameter(jnp.zeros(fan_out), (axes[1],)) if bias else None

    @property
    def dtype(self) -> jnp.dtype:
        """The type in which it multiplies, and in which activations may be kept."""
        return jnp.dtype(jnp.bfloat16) if self.scale is not None else self.kernel.dtype

    def __call__(
        self, x: Float[Array | ndarray, "*batch fan_in"]
    ) -> Float[Array, "*batch fan_out"]:
        """x · kernel + bias, in float32; see `linear`."""
        bias = None if self.bias is None else self.bias[...]
        scale = None if self.scale is None else self.scale[...]
        return linear(x, self.kernel[...], bias, scale)


class Norm(nnx.Module):
    """Container of `scale` [width] and, for layer norms, `bias` [width]."""

    def __init__(self, width: int, *, bias: bool, eps: float):
        self.scale = parameter(jnp.ones(width), (None,))
        self.bias = parameter(jnp.zeros(width), (None,)) if bias else None
        self.eps = eps

    def __call__(
        self, x: Float[Array | ndarray, "*batch width"]
    ) -> Float[Array, "*batch width"]:
        """The layer norm of x if there is a bias, else its RMS norm."""
        if self.bias is None:
            return rms_norm(x, self.scale[...], eps=self.eps)
        return layer_norm(x, self.scale[...], self.bias[...], eps=self.eps)


def linear(
    x: Float[Array | ndarray, "*batch fan_in"],
    kernel: Float[Array | ndarray, "fan_in fan_out"]
    | Int8[Array | ndarray, "fan_out fan_in"],
    bias: Float[Array | ndarray, " fan_out"] | None,
    scale: Float[Array | ndarray, " fan_out"] | None,
) -> Float[Array, "*batch fan_out"]:
    """x · kernel + bias in the kernel's type, accumulated and returned in float32.

    With a `scale` the kernel is int8, and the product is `int8_product`.
    """
    if scale is not None:
        y = int8_product(x, kernel, scale)
    elif kernel.dtype == jnp.bfloat16 and rows_per_device(jnp.asarray(x)) <= 1:
        y = in_two_rows(x, kernel)
    else:
        y = product(x, kernel)
    return y if bias is None else y + bias.astype(jnp.float32)


def layer_norm(
    x: Float[Array | ndarray, "*batch width"],
    scale: Float[Array, " width"],
    bias: Float[Array, " width"],
    *,
    eps: float,
) -> Float[Array, "*batch width"]:
    """(x − mean) / √(variance + eps) · scale + bias, over the last axis, in float32."""
    x = jnp.asarray(x, jnp.float32)
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + eps) * scale + bias


def rms_norm(
    x: Float[Array | ndarray, "*batch width"],
    scale: Float[Array, " width"],
    *,
    eps: float,
) -> Float[Array, "*batch width"]:
    """x / √(mean(x²) + eps) · scale, over the last axis, in float32.

    Zhang & Sennrich 2019, "Root Mean Square Layer Normalization".
    """
    x = jnp.asarray(x, jnp.float32)
    mean_square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(mean_square + eps) * scale


def scan_layers(step: Callable, carry: Any, layers: Any) -> tuple[Any, Any]:
    """`jax.lax.scan` over stacked layers.

    Args:
      step: (carry, one layer) → (carry, output).
      carry: of the first step.
      layers: a pytree of arrays [depth, …].

    Returns:
      The last carry, and the outputs, stacked.
    """
    if all(leaf.dtype != jnp.bfloat16 for leaf in jax.tree.leaves(layers)):
        return jax.lax.scan(step, carry, layers)
    return jax.lax.platform_dependent(
        carry,
        layers,
        cpu=partial(cpu.scan_in_place, step),
        default=partial(jax.lax.scan, step),
    )

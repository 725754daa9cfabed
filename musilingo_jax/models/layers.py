"""The few operations that both transformers are made of, with their shapes.

Numbers: weights may be stored in bfloat16, or in int8 with scales; every product takes
both operands in one type and accumulates in float32 (`products.py`), which is the fast
path of TPUs, of tensor cores and of XLA on CPUs with bfloat16 units alike. Everything
between two products (the residual stream, norms, softmax, rotary angles) is float32.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Int8

from musilingo_jax.models.matmul import int8_product, product


def parameter(array: jax.Array, axes: tuple[str | None, ...]) -> nnx.Param:
    """A parameter whose axes are named; `sharding.py` decides what the names mean."""
    return nnx.Param(array, axes=axes)


class Linear(nnx.Module):
    """Container of `kernel` [fan_in, fan_out] and, if asked for, `bias` [fan_out].

    A quantised kernel is int8 [fan_out, fan_in] and has a `scale` [fan_out]; see
    `quantization.py`, which makes it.
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
        """In which products with it are made, and activations may be kept."""
        return jnp.dtype(jnp.bfloat16) if self.scale is not None else self.kernel.dtype

    def __call__(
        self, x: Float[Array, "*batch fan_in"]
    ) -> Float[Array, "*batch fan_out"]:
        bias = None if self.bias is None else self.bias[...]
        scale = None if self.scale is None else self.scale[...]
        return linear(x, self.kernel[...], bias, scale)


class Norm(nnx.Module):
    """Container of `scale` [width] and, for layer norms, `bias` [width]."""

    def __init__(self, width: int, *, bias: bool, eps: float):
        self.scale = parameter(jnp.ones(width), (None,))
        self.bias = parameter(jnp.zeros(width), (None,)) if bias else None
        self.eps = eps

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        if self.bias is None:
            return rms_norm(x, self.scale[...], eps=self.eps)
        return layer_norm(x, self.scale[...], self.bias[...], eps=self.eps)


def linear(
    x: Float[Array, "*batch fan_in"],
    kernel: Float[Array, "fan_in fan_out"] | Int8[Array, "fan_out fan_in"],
    bias: Float[Array, " fan_out"] | None,
    scale: Float[Array, " fan_out"] | None,
) -> Float[Array, "*batch fan_out"]:
    """x · kernel + bias in the kernel's type, accumulated and returned in float32.

    With a `scale` the kernel is int8, and the product is that of `int8_product`.
    """
    rows = x.reshape(-1, x.shape[-1])
    if scale is not None:
        y = int8_product(x, kernel, scale)
    elif rows.shape[0] == 1 and kernel.dtype == jnp.bfloat16:
        # XLA's CPU compiler has a fast product of bfloat16 from two rows on only; with
        # one, it first writes the whole kernel out in float32.
        y = product(jnp.concatenate([rows, rows]), kernel)[:1]
        y = y.reshape(*x.shape[:-1], kernel.shape[1])
    else:
        y = product(x, kernel)
    return y if bias is None else y + bias.astype(jnp.float32)


def layer_norm(
    x: Float[Array, "*batch width"],
    scale: Float[Array, " width"],
    bias: Float[Array, " width"],
    *,
    eps: float,
) -> Float[Array, "*batch width"]:
    """(x − mean) / √(variance + eps) · scale + bias, over the last axis, in float32."""
    x = x.astype(jnp.float32)
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + eps) * scale + bias


def rms_norm(
    x: Float[Array, "*batch width"], scale: Float[Array, " width"], *, eps: float
) -> Float[Array, "*batch width"]:
    """x / √(mean(x²) + eps) · scale, over the last axis, in float32.

    Zhang & Sennrich 2019, "Root Mean Square Layer Normalization".
    """
    x = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(mean_square + eps) * scale


def rotary(
    x: Float[Array, "batch time heads head_dim"],
    positions: Int[Array, "batch time"],
    frequencies: Float[Array, " half"],
) -> Float[Array, "batch time heads head_dim"]:
    """Turns each pair (x[i], x[i + head_dim/2]) by the angle position · frequency[i].

    Su et al. 2021, "RoFormer", in the half-split pairing of the released LLaMA files
    (not the interleaved pairing of the paper).
    """
    angles = positions[:, :, None, None].astype(jnp.float32) * frequencies
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate(
        [first * cos - second * sin, second * cos + first * sin], axis=-1
    )


def attention(
    query: Float[Array, "batch time heads head_dim"],
    key: Float[Array, "batch slots key_heads head_dim"],
    value: Float[Array, "batch slots key_heads head_dim"],
    attend: Bool[Array, " batch #time slots"],
) -> Float[Array, "batch time heads head_dim"]:
    """Softmax attention; `attend[b, t, s]` says whether query t may look at slot s.

    With fewer key heads than query heads, consecutive query heads share one key head
    (Ainslie et al. 2023, "GQA"). A query that may look nowhere (padding) gets the mean
    of all values: finite, and nobody's business. Products run in the type of `key`.
    """
    batch, time, heads, head_dim = query.shape
    groups = heads // key.shape[2]
    # Head-major operands let every backend use one batched matrix product.
    query = query.reshape(batch, time, key.shape[2], groups, head_dim)
    query = (query * head_dim**-0.5).astype(key.dtype).transpose(0, 2, 3, 1, 4)
    scores = jnp.einsum(
        "bkgtd,bskd->bkgts", query, key, preferred_element_type=jnp.float32
    )
    scores = jnp.where(attend[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    mixed = jnp.einsum(
        "bkgts,bskd->bkgtd", weights, value, preferred_element_type=jnp.float32
    )
    return mixed.transpose(0, 3, 1, 2, 4).reshape(batch, time, heads, head_dim)


def attention_in_turn(
    query: Float[Array, "batch time heads head_dim"],
    key: Float[Array, "batch slots heads head_dim"],
    value: Float[Array, "batch slots heads head_dim"],
    attend: Bool[Array, " batch #time slots"],
) -> Float[Array, "batch time heads head_dim"]:
    """`attention`, one head after another, for long texts or sounds on CPUs.

    The scores of one head stay in the processor's cache from the first product to the
    second; those of all heads would go through memory at each step between. At 16 heads
    and 749 frames this takes 0.7 of the time. There must be a key head for each head.
    """

    def one_head(operands: tuple[Array, Array, Array]) -> Array:
        query, key, value = (x[:, :, None] for x in operands)
        return attention(query, key.swapaxes(1, 3), value, attend)[:, :, 0]

    # Keys wait with their slots last, which is how the product of scores reads them.
    heads = query.transpose(2, 0, 1, 3), key.transpose(2, 0, 3, 1)
    mixed = jax.lax.map(one_head, (*heads, value.transpose(2, 0, 1, 3)))
    return mixed.transpose(1, 2, 0, 3)


def scan_layers(step: Callable, carry: Any, layers: Any) -> tuple[Any, Any]:
    """`jax.lax.scan` over stacked layers, which CPUs read in bfloat16 where they lie.

    XLA's CPU compiler slices bfloat16 as float32. In a plain scan it therefore writes
    the whole stack out in float32 before the loop: for the 330M encoder 1.2 GB of
    memory, and a tenth of the time. The barrier ties the stack to the index, so that
    nothing can be done to it ahead of the loop. Gradients of the layers are right but
    slow this way: it is for frozen ones, as those in bfloat16 are here.

    Args:
      step: (carry, one layer) → (carry, what to stack).
      carry: what the first step gets.
      layers: a pytree of arrays [depth, …].
    """
    leaves = jax.tree.leaves(layers)

    def in_place(carry: Any, layers: Any) -> tuple[Any, Any]:
        def step_at(carry: Any, index: Int[Array, ""]) -> tuple[Any, Any]:
            stack, index = jax.lax.optimization_barrier((layers, index))
            return step(carry, jax.tree.map(lambda array: array[index], stack))

        return jax.lax.scan(step_at, carry, jnp.arange(len(leaves[0])))

    scan = partial(jax.lax.scan, step)
    if all(leaf.dtype != jnp.bfloat16 for leaf in leaves):
        return scan(carry, layers)
    return jax.lax.platform_dependent(carry, layers, cpu=in_place, default=scan)

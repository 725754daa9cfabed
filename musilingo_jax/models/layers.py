"""The few operations that both transformers are made of, with their shapes.

Numbers: weights may be stored in bfloat16; every product takes both operands in the
weight's type and accumulates in float32, which is the fast path of TPUs, of tensor
cores and of XLA on CPUs with bfloat16 units alike. Everything between two products
(the residual stream, norms, softmax, rotary angles) is float32.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int


def parameter(array: jax.Array, axes: tuple[str | None, ...]) -> nnx.Param:
    """A parameter whose axes are named; `sharding.py` decides what the names mean."""
    return nnx.Param(array, axes=axes)


class Linear(nnx.Module):
    """Container of `kernel` [fan_in, fan_out] and, if asked for, `bias` [fan_out]."""

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
        self.bias = parameter(jnp.zeros(fan_out), (axes[1],)) if bias else None

    def __call__(
        self, x: Float[Array, "*batch fan_in"]
    ) -> Float[Array, "*batch fan_out"]:
        bias = None if self.bias is None else self.bias[...]
        return linear(x, self.kernel[...], bias)


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
    kernel: Float[Array, "fan_in fan_out"],
    bias: Float[Array, " fan_out"] | None,
) -> Float[Array, "*batch fan_out"]:
    """x · kernel + bias in the kernel's type, accumulated and returned in float32."""
    rows = x.reshape(-1, x.shape[-1])
    if rows.shape[0] == 1 and kernel.dtype == jnp.bfloat16:
        # XLA's CPU compiler has a fast product of bfloat16 from two rows on only; with
        # one, it first writes the whole kernel out in float32.
        y = _product(jnp.concatenate([rows, rows]), kernel)[:1]
        y = y.reshape(*x.shape[:-1], kernel.shape[1])
    else:
        y = _product(x, kernel)
    return y if bias is None else y + bias.astype(jnp.float32)


@jax.custom_vjp
def _product(
    x: Float[Array, "*batch fan_in"], kernel: Float[Array, "fan_in fan_out"]
) -> Float[Array, "*batch fan_out"]:
    """x · kernel, whose gradient, too, multiplies in the kernel's type.

    Left alone, the gradient would be a product of float32 and bfloat16, for which no
    backend has a fast path: it is computed as one of float32.
    """
    return jnp.matmul(
        x.astype(kernel.dtype), kernel, preferred_element_type=jnp.float32
    )


def _product_forward(x, kernel):
    # The empty array only carries the type that the gradient of x must have.
    kept = x.astype(kernel.dtype), kernel, jnp.zeros(0, x.dtype)
    return _product(x, kernel), kept


def _product_backward(kept, gradient):
    x, kernel, like = kept
    gradient = gradient.astype(kernel.dtype)
    rows = x.reshape(-1, x.shape[-1])
    columns = gradient.reshape(-1, gradient.shape[-1])
    to_x = jnp.matmul(gradient, kernel.T, preferred_element_type=jnp.float32)
    to_kernel = jnp.matmul(rows.T, columns, preferred_element_type=jnp.float32)
    return to_x.astype(like.dtype), to_kernel.astype(kernel.dtype)


_product.defvjp(_product_forward, _product_backward)


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
    attend: Bool[Array, "batch #time slots"],
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

"""Softmax attention, and the rotary angles that tell its positions apart."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from numpy import ndarray


def rotary(
    x: Float[Array, "batch time heads head_dim"],
    positions: Int[Array | ndarray, "batch time"],
    frequencies: Float[Array | ndarray, " half"],
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
    attend: Bool[Array | ndarray, " batch #time slots"],
) -> Float[Array, "batch time heads head_dim"]:
    """Softmax attention; `attend[b, t, s]` allows query t to attend to slot s.

    With fewer key heads than query heads, consecutive query heads share one key head
    (Ainslie et al. 2023, "GQA"). A query that may attend to nothing (padding) gets the
    mean of all values: finite, and never used. Products run in the type of `key`, sums
    and softmax in float32.
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

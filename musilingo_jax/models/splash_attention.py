"""Attention on TPUs: JAX's "splash attention" kernel, row by row and head by head.

A block of scores lives in the core's own memory for as long as it takes to add its
values up; neither scores nor mask ever reach HBM (Dao et al. 2022, "FlashAttention"),
and blocks above the diagonal are skipped. The kernel computes one row, so it is mapped
over rows.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jaxtyping import Array, Float, Int

from musilingo_jax.models.attention_blocks import MULTIPLE, Blocks


def fits(
    query: Float[Array, "batch time heads head_dim"],
    key: Float[Array, "batch time key_heads head_dim"],
    *,
    window: int,
) -> bool:
    """Whether the kernel computes this: heads as wide as half a vector, or wider."""
    return query.shape[-1] % (MULTIPLE // 2) == 0 and key.dtype in (
        jnp.bfloat16,
        jnp.float32,
    )


def attention(
    query: Float[Array, "batch time heads head_dim"],
    key: Float[Array, "batch time key_heads head_dim"],
    value: Float[Array, "batch time key_heads head_dim"],
    segments: Int[Array, "batch time"],
    *,
    causal: bool,
    window: int,
    blocks: Blocks,
    interpret: bool,
) -> Float[Array, "batch time heads head_dim"]:
    """`attention.by_kernel` on one chip, with rows of a multiple of `MULTIPLE`."""
    heads, time = query.shape[2], query.shape[1]
    kernel = _kernel(
        heads,
        time,
        causal=causal,
        window=window,
        blocks=blocks.of(time),
        interpret=interpret,
    )

    def row(query: Array, key: Array, value: Array, segments: Array) -> Array:
        return kernel(query, key, value, splash.SegmentIds(segments, segments))

    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))
    return jax.vmap(row)(query, key, value, segments).swapaxes(1, 2)


def _kernel(
    heads: int,
    time: int,
    *,
    causal: bool,
    window: int,
    blocks: Blocks,
    interpret: bool,
) -> Any:
    """The kernel for a row of `time` positions, which the blocks divide."""
    shape = time, time
    if window and causal:
        mask = splash.LocalMask(shape, (window - 1, 0), offset=0)
    else:
        mask = splash.CausalMask(shape) if causal else splash.FullMask(shape)
    sizes = splash.BlockSizes(
        block_q=blocks.queries,
        block_kv=blocks.keys,
        block_kv_compute=blocks.keys,
        block_q_dkv=blocks.queries,
        block_kv_dkv=blocks.keys,
        block_kv_dkv_compute=blocks.keys,
        block_q_dq=blocks.queries,
        block_kv_dq=blocks.keys,
    )
    return splash.make_splash_mha(
        splash.MultiHeadMask([mask] * heads),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name="mixed",
        interpret=interpret,
    )

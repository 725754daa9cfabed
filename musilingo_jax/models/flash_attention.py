"""Attention on GPUs: JAX's Pallas kernel of flash attention, compiled by Triton.

As on TPUs (`splash_attention.py`), a block of scores lives in the core's own memory
only (Dao et al. 2022, "FlashAttention"). cuDNN's kernel, which
`jax.nn.dot_product_attention` would call, takes packed rows only with a mask of
[time, time] written out.
"""

import jax.numpy as jnp
from jax.experimental.pallas.ops.gpu import attention as kernels
from jaxtyping import Array, Float, Int

from musilingo_jax.models.attention_blocks import Blocks

MULTIPLE = 64
"""Positions of a block: lengths of rows are multiples."""


def fits(
    query: Float[Array, "batch time heads head_dim"],
    key: Float[Array, "batch time key_heads head_dim"],
    *,
    window: int,
) -> bool:
    """Whether the kernel computes this: 16-bit types, for which Triton has products."""
    head_dim = query.shape[-1]
    return not window and key.dtype == jnp.bfloat16 and 32 <= head_dim <= 128


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
    """`attention.by_kernel` on one GPU, with rows of a multiple of `MULTIPLE`.

    The kernel has no grouped keys: those that query heads share are repeated. Its
    blocks are small on every GPU; those of TPUs would not fit, so `blocks` is not used.
    """
    shared = query.shape[2] // key.shape[2]
    sizes = kernels.BlockSizes(
        block_q=MULTIPLE,
        block_k=MULTIPLE,
        block_q_dkv=MULTIPLE,
        block_kv_dkv=MULTIPLE,
        block_q_dq=MULTIPLE,
        block_kv_dq=MULTIPLE,
    )
    return kernels.mha(
        query,
        jnp.repeat(key, shared, axis=2),
        jnp.repeat(value, shared, axis=2),
        segments,
        causal=causal,
        block_sizes=sizes,
        interpret=interpret,
    )

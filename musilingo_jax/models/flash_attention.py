"""Attention on GPUs: JAX's Pallas kernel of flash attention, compiled by Triton.

As on TPUs (`splash_attention.py`), a block of scores lives in the core's own memory
only (Dao et al. 2022, "FlashAttention"). cuDNN's kernel, which
`jax.nn.dot_product_attention` would call, takes packed rows only with a mask of
[time, time] written out.
"""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.gpu import attention as kernels
from jaxtyping import Array, Float, Int
from numpy import ndarray

from musilingo_jax.runtime.sharding import spec_of

BLOCK = 64
"""Positions of a block, of which rows are padded to a multiple."""


def fits(
    query: Float[Array, "batch time heads head_dim"],
    key: Float[Array, "batch time key_heads head_dim"],
) -> bool:
    """Whether the kernel computes this: 16-bit types, for which Triton has products."""
    head_dim = query.shape[-1]
    return key.dtype == jnp.bfloat16 and 32 <= head_dim <= 128


def attention(
    query: Float[Array, "batch time heads head_dim"],
    key: Float[Array, "batch time key_heads head_dim"],
    value: Float[Array, "batch time key_heads head_dim"],
    segments: Int[Array | ndarray, "batch time"],
    *,
    causal: bool,
    interpret: bool = False,
) -> Float[Array, "batch time heads head_dim"]:
    """`segment_attention` by the kernel; the result has the type of `key`.

    The kernel has no grouped keys: those that query heads share are repeated.

    Args:
      query: of each position, scaled.
      key: of each position.
      value: of each position.
      segments: 0 = padding, 1… = text or clip in the row.
      causal: whether positions attend only to those before them, and to themselves.
      interpret: run the kernel on a CPU, slowly, for tests.
    """
    time, heads = query.shape[1:3]
    padded = -(-time // BLOCK) * BLOCK
    sizes = kernels.BlockSizes(
        block_q=BLOCK,
        block_k=BLOCK,
        block_q_dkv=BLOCK,
        block_kv_dkv=BLOCK,
        block_q_dq=BLOCK,
        block_kv_dq=BLOCK,
    )

    def rows(x: Array) -> Array:
        x = jnp.pad(x, ((0, 0), (0, padded - time)) + ((0, 0),) * (x.ndim - 2))
        return jnp.repeat(x, heads // x.shape[2], axis=2) if x.ndim == 4 else x

    def local(query: Array, key: Array, value: Array, segments: Array) -> Array:
        return kernels.mha(
            query,
            key,
            value,
            segments,
            causal=causal,
            block_sizes=sizes,
            interpret=interpret,
        )

    mesh = jax.typeof(query).sharding.mesh
    if not mesh.empty:
        whole = spec_of(query.shape, ("batch", None, "heads", None), mesh)
        local = jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(whole, whole, whole, jax.sharding.PartitionSpec(whole[0])),
            out_specs=whole,
            # The kernel does not say over which axes its output varies.
            check_vma=False,
        )
    operands = (rows(x) for x in (query, key, value, jnp.asarray(segments)))
    return local(*operands)[:, :time]

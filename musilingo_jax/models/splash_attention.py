"""Attention on TPUs: JAX's "splash attention" kernel, row by row and head by head.

A block of scores lives in the core's own memory for as long as it takes to add its
values up; neither scores nor mask ever reach HBM (Dao et al. 2022, "FlashAttention"),
and blocks above the diagonal are skipped. The kernel computes one row on one chip, so
it is mapped over rows, inside a `shard_map` over the chips that share rows and heads.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jaxtyping import Array, Float, Int
from numpy import ndarray

from musilingo_jax.runtime.sharding import spec_of

LANES = 128
"""Width of a TPU's vectors: sizes of blocks are multiples of it."""

BLOCKS = (512, 384, 256, 128)
"""Sizes of blocks, the best first; the first that divides the padded row is taken."""


def fits(
    query: Float[Array, "batch time heads head_dim"],
    key: Float[Array, "batch time key_heads head_dim"],
) -> bool:
    """Whether the kernel computes this: heads as wide as half a vector, or wider."""
    return query.shape[-1] % (LANES // 2) == 0 and key.dtype in (
        jnp.bfloat16,
        jnp.float32,
    )


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

    Rows are padded to whole blocks. On a mesh whose `tensor` axis does not divide the
    key heads, every chip computes all heads.

    Args:
      query: of each position, scaled.
      key: of each position.
      value: of each position.
      segments: 0 = padding, 1… = text or clip in the row.
      causal: whether positions attend only to those before them, and to themselves.
      interpret: run the kernel on a CPU, slowly, for tests.
    """
    time = query.shape[1]
    padded = -(-time // LANES) * LANES

    def rows(x: Array) -> Array:
        """[batch, time, …] → [batch, heads, time, head_dim], padded."""
        x = jnp.pad(x, ((0, 0), (0, padded - time)) + ((0, 0),) * (x.ndim - 2))
        return x.swapaxes(1, 2) if x.ndim == 4 else x

    operands = rows(query), rows(key), rows(value), rows(jnp.asarray(segments))

    def local(query: Array, key: Array, value: Array, segments: Array) -> Array:
        kernel = _kernel(query.shape[1], padded, causal=causal, interpret=interpret)

        def row(query: Array, key: Array, value: Array, segments: Array) -> Array:
            return kernel(query, key, value, splash.SegmentIds(segments, segments))

        return jax.vmap(row)(query, key, value, segments)

    mesh = jax.typeof(query).sharding.mesh
    if not mesh.empty:
        axes = ("batch", "heads", None, None)
        # Heads that share a key head must be where it is.
        of_keys = spec_of(key.shape[:1] + (key.shape[2],), axes[:2], mesh)
        whole = jax.sharding.PartitionSpec(*of_keys, None, None)
        local = jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(whole, whole, whole, jax.sharding.PartitionSpec(of_keys[0])),
            out_specs=whole,
            # The kernel does not say over which axes its output varies.
            check_vma=False,
        )
    return local(*operands).swapaxes(1, 2)[:, :time]


def _kernel(heads: int, time: int, *, causal: bool, interpret: bool) -> Any:
    """The kernel for a row of `time` positions, a multiple of `LANES`."""
    block = next(size for size in BLOCKS if time % size == 0)
    mask = splash.CausalMask if causal else splash.FullMask
    sizes = splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    return splash.make_splash_mha(
        splash.MultiHeadMask([mask((time, time)) for _ in range(heads)]),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name="mixed",
        interpret=interpret,
    )

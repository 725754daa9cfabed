"""Softmax attention, and the rotary angles that tell its positions apart.

    attention            any mask, written out       CPUs
    segment_attention    whole texts or clips        training, evaluation, encoding
    cache_attention      the next part of texts      decoding

The mask of whole texts follows from a number for each position, its segment, and that
of the next part from the ends of the cache's rows. So the kernels of accelerators,
which are chosen by the mesh, never write a mask or a score to memory.
"""

from functools import partial
from types import ModuleType

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int
from numpy import ndarray

from musilingo_jax.models import attention_blocks, cpu
from musilingo_jax.models.attention_blocks import Blocks
from musilingo_jax.models.kv_cache import KVCache
from musilingo_jax.runtime.sharding import spec_of


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
    query = scaled(query, key.dtype).transpose(0, 2, 3, 1, 4)
    scores = jnp.einsum(
        "bkgtd,bskd->bkgts", query, key, preferred_element_type=jnp.float32
    )
    scores = jnp.where(attend[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    mixed = jnp.einsum(
        "bkgts,bskd->bkgtd", weights, value, preferred_element_type=jnp.float32
    )
    return mixed.transpose(0, 3, 1, 2, 4).reshape(batch, time, heads, head_dim)


def scaled(
    query: Float[Array, "*batch head_dim"], dtype: DTypeLike
) -> Float[Array, "*batch head_dim"]:
    """Queries as the products take them; the backward pass may keep them."""
    scale = query.shape[-1] ** -0.5
    return checkpoint_name((query * scale).astype(dtype), "query")


def segment_attention(
    query: Float[Array, "batch time heads head_dim"],
    key: Float[Array, "batch time key_heads head_dim"],
    value: Float[Array, "batch time key_heads head_dim"],
    segments: Int[Array | ndarray, "batch time"],
    *,
    causal: bool,
    window: int | Int[Array, ""] = 0,
    blocks: Blocks = attention_blocks.DEFAULT,
) -> Float[Array, "batch time heads head_dim"]:
    """Softmax attention within each segment of each row.

    If causal, positions attend to those before them in their segment, and to themselves
    (`attend_mask`). If not, rows hold one clip each, in segment 1, and positions attend
    to all of it. What padding gets is finite, and depends on the platform.

    Args:
      query: of each position.
      key: of each position; the types of key and value are those of the products.
      value: of each position.
      segments: 0 = padding, 1… = text or clip in the row.
      causal: whether later positions are hidden.
      window: if causal, how far positions attend back, themselves included; 0 = to the
        beginning. Kernels need a number that is known when they are compiled.
      blocks: of the kernel on TPUs.
    """
    platform = _platform(query)
    # Imported where they are used, because Pallas takes a second to import.
    if platform == "tpu":
        from musilingo_jax.models import splash_attention as kernel
    elif platform == "gpu":
        from musilingo_jax.models import flash_attention as kernel
    else:
        kernel = None
    if kernel and isinstance(window, int) and kernel.fits(query, key, window=window):
        return by_kernel(
            kernel,
            query,
            key,
            value,
            segments,
            causal=causal,
            window=window,
            blocks=blocks,
            interpret=False,
        )
    if causal:
        return attention(query, key, value, attend_mask(segments, window))
    # A row is a single clip, so that the mask is the same for all its queries.
    return jax.lax.platform_dependent(
        query,
        key,
        value,
        segments[:, None] > 0,
        cpu=cpu.one_head_at_a_time(attention),
        default=attention,
    )


def by_kernel(
    kernel: ModuleType,
    query: Float[Array, "batch time heads head_dim"],
    key: Float[Array, "batch time key_heads head_dim"],
    value: Float[Array, "batch time key_heads head_dim"],
    segments: Int[Array | ndarray, "batch time"],
    *,
    causal: bool,
    interpret: bool,
    window: int = 0,
    blocks: Blocks = attention_blocks.DEFAULT,
) -> Float[Array, "batch time heads head_dim"]:
    """`segment_attention` by a kernel; the result has the type of `key`.

    A kernel computes whole blocks on one device. So rows are padded, and each device
    computes its rows and heads. Where the mesh does not divide the key heads, every
    device computes all heads.

    Args:
      kernel: `splash_attention` or `flash_attention`.
      query: as in `segment_attention`, and so the next four.
      key: of each position.
      value: of each position.
      segments: of each position.
      causal: whether later positions are hidden.
      interpret: run the kernel on a CPU, slowly, for tests.
      window: how far positions attend back; 0 = to the beginning.
      blocks: of the kernel on TPUs.
    """
    time = query.shape[1]
    missing = -time % kernel.MULTIPLE

    def padded(x: Array) -> Array:
        return jnp.pad(x, ((0, 0), (0, missing)) + ((0, 0),) * (x.ndim - 2))

    local = partial(
        kernel.attention,
        causal=causal,
        window=window,
        blocks=blocks,
        interpret=interpret,
    )
    mesh = jax.typeof(query).sharding.mesh
    if not mesh.empty:
        # Query heads are where the key head is that they share.
        split = spec_of(key.shape, ("batch", None, "heads", None), mesh)
        local = jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(split, split, split, PartitionSpec(split[0])),
            out_specs=split,
            # Kernels do not say over which axes their output varies.
            check_vma=False,
        )
    operands = scaled(query, key.dtype), key, value, jnp.asarray(segments)
    return local(*map(padded, operands))[:, :time]


def cache_attention(
    query: Float[Array, "batch time heads head_dim"],
    cache: KVCache,
    layer: int,
    *,
    window: int = 0,
) -> Float[Array, "batch time heads head_dim"]:
    """Softmax attention of each row's next tokens to the row's text, and to themselves.

    Args:
      query: of the next tokens, whose keys and values are written.
      cache: whose ends are still before them.
      layer: the number of the layer.
      window: how far they attend back, themselves included; 0 = to the beginning.
    """
    if _platform(query) == "tpu":
        # Imported here, because Pallas takes a second to import.
        from musilingo_jax.models import cached_attention as kernel

        if kernel.fits(query.shape[-1]):
            return by_cache_kernel(query, cache, layer, window=window, interpret=False)
    attend = cache.attend(query.shape[1], window)
    return attention(query, *cache.read(layer), attend)


def by_cache_kernel(
    query: Float[Array, "batch time heads head_dim"],
    cache: KVCache,
    layer: int,
    *,
    interpret: bool,
    window: int = 0,
) -> Float[Array, "batch time heads head_dim"]:
    """`cache_attention` by a kernel; the result has the type of the cache.

    Each device computes its rows and heads, or all heads, as in `by_kernel`.

    Args:
      query: as in `cache_attention`, and so the next two.
      cache: of all layers.
      layer: the number of the layer.
      interpret: run the kernel on a CPU, slowly, for tests.
      window: how far they attend back, themselves included; 0 = to the beginning.
    """
    from musilingo_jax.models import cached_attention as kernel

    key, value = cache.key[layer], cache.value[layer]
    local = partial(kernel.attention, window=window, interpret=interpret)
    mesh = jax.typeof(query).sharding.mesh
    if not mesh.empty:
        key_heads = key.shape[-1] // cache.head_dim
        axes = "batch", "heads"
        rows, heads = spec_of((key.shape[0], key_heads), axes, mesh)
        flat = PartitionSpec(rows, None, heads)
        local = jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(flat, flat, flat, PartitionSpec(rows)),
            out_specs=flat,
            # Kernels do not say over which axes their output varies.
            check_vma=False,
        )
    return local(scaled(query, key.dtype), key, value, cache.ends)


def _platform(array: Array) -> str:
    """Where a traced array will be, "tpu" for example; "" if it has no mesh."""
    mesh = jax.typeof(array).sharding.mesh
    return "" if mesh.empty else mesh.abstract_device.platform


def attend_mask(
    segments: Int[Array | ndarray, "batch time"],
    window: int | Int[Array, ""] = 0,
) -> Bool[Array, "batch time time"]:
    """Which positions each may attend to: earlier ones of its own example, and itself.

    segments           1 1 1 2 2 0

    query 0   1        x . . . . .
          1   1        x x . . . .
          2   1        x x x . . .
          3   2        . . . x . .
          4   2        . . . x x .
          5   0        . . . . . .

    Args:
      segments: as in `segment_attention`.
      window: how far back, themselves included; 0 = to the beginning.
    """
    time = jnp.arange(segments.shape[1])
    same = segments[:, :, None] == segments[:, None, :]
    text = segments[:, :, None] > 0
    back = time[:, None] - time[None, :]
    near = back < jnp.where(window == 0, len(time), window)
    return same & text & (back >= 0) & near

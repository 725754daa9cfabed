"""Attention to a KV cache on TPUs, by a kernel that reads each row's own text only.

A step of decoding is as fast as the cache is read, and the rows of a batch are of
different lengths. The plain form reads all slots of all rows and masks what is not
text. Here a row of `end` tokens reads its first ⌈end / block⌉ blocks of slots:

    slots    |   block 0   |   block 1   |   block 2   |
    row 0    a b c d e f g h i j . . . . . . . . . . . .     2 blocks are read
    row 1    a b c . . . . . . . . . . . . . . . . . . .     1
    row 2    a b c d e f g h i j k l m n o p q r s t . .     3

The grid has a step for each block of each row, since its size is fixed when the program
is compiled. A step behind a row's text asks for the block that is there already, so
that nothing is copied, and computes nothing.

Scores stay on the chip, as in Dao et al. 2022, "FlashAttention": the softmax of a query
is kept as its greatest score so far, the sum of its weights and the weighted sum of its
values, and rescaled when a greater score is met (Milakov and Gimelshein 2018).
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int
from numpy import ndarray

NAME = "cached_attention"

LANES = 128
"""Width of a TPU's vectors."""

BLOCK = 128
"""Slots that are read at once: on average, half a block of a row is read in vain."""

# Rows of queries in a step, heads times positions: with their sums and scores, and two
# blocks of keys and values, they take less than the 16 MiB that a kernel has.
_MOST_ROWS = 2048
_MOST_POSITIONS = 256

# Rows of a vector register in any type: a part of the queries is a multiple, or whole.
_ROWS = 32


def fits(head_dim: int) -> bool:
    """Whether the kernel computes heads of this width: whole vectors."""
    return head_dim % LANES == 0


def attention(
    query: Float[Array, "batch time heads head_dim"],
    key: Float[Array, "batch slots keys"],
    value: Float[Array, "batch slots keys"],
    ends: Int[Array, " batch"],
    *,
    window: int,
    interpret: bool,
) -> Float[Array, "batch time heads head_dim"]:
    """Softmax attention of each row's next tokens, on one chip.

    Query t of row b attends to slots 0 … ends[b] + t, or to the last `window` of these.
    The result has the type of `key`.

    Args:
      query: of the next tokens, scaled, in the type of the cache.
      key: of all slots, head after head; those of the next tokens are written.
      value: likewise.
      ends: the slot of each row's first query.
      window: how far queries attend back, themselves included; 0 = to the beginning.
      interpret: run the kernel on a CPU, slowly, for tests.
    """
    batch, time, heads, head_dim = query.shape
    slots, width = key.shape[1:]
    key_heads = width // head_dim
    groups = heads // key_heads
    # Queries that share a key head become rows of one matrix, heads its columns.
    query = query.reshape(batch, time, key_heads, groups, head_dim)
    query = query.swapaxes(2, 3).reshape(batch, time * groups, width)
    positions = time
    if time % _ROWS == 0:
        positions = _ROWS * _divisor(time // _ROWS, _MOST_POSITIONS // _ROWS)
    together = _divisor(key_heads, max(1, _MOST_ROWS // (positions * groups)))
    block = min(BLOCK, slots)
    rows, columns = positions * groups, together * head_dim

    def queries(row: Array, head: Array, part: Array, _: Array, ends: Array):
        return row, part, head

    def cached(row: Array, head: Array, part: Array, step: Array, ends: Array):
        first = ends[row] + part * positions
        seen = jnp.minimum(step, _last(first, positions, slots, block))
        return row, jnp.maximum(seen, _first(first, window, block)), head

    if not interpret:
        # Otherwise XLA brings whole caches on the chip ahead of time, all slots.
        key, value = (
            pltpu.with_memory_space_constraint(x, pltpu.HBM) for x in (key, value)
        )
    pair = 2 * batch * heads * time * slots * head_dim
    mixed = pl.pallas_call(
        functools.partial(
            _kernel, slots=slots, groups=groups, head_dim=head_dim, window=window
        ),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(
                batch,
                key_heads // together,
                time // positions,
                pl.cdiv(slots, block),
            ),
            in_specs=[
                pl.BlockSpec((1, rows, columns), queries),
                pl.BlockSpec((1, block, columns), cached),
                pl.BlockSpec((1, block, columns), cached),
            ],
            out_specs=pl.BlockSpec((1, rows, columns), queries),
            scratch_shapes=[
                pltpu.VMEM((together, rows, LANES), jnp.float32),
                pltpu.VMEM((together, rows, LANES), jnp.float32),
                pltpu.VMEM((rows, columns), jnp.float32),
            ],
        ),
        out_shape=jax.ShapeDtypeStruct(query.shape, key.dtype),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "parallel", "arbitrary")
        ),
        # Of rows that are full.
        cost_estimate=pl.CostEstimate(
            flops=2 * pair,
            transcendentals=batch * heads * time * slots,
            bytes_accessed=(2 * query.size + key.size + value.size)
            * key.dtype.itemsize,
        ),
        interpret=interpret,
        name=NAME,
    )(ends, query, key, value)
    mixed = mixed.reshape(batch, time, groups, key_heads, head_dim)
    return mixed.swapaxes(2, 3).reshape(batch, time, heads, head_dim)


def _kernel(
    ends,
    query,
    key,
    value,
    mixed,
    greatest,
    total,
    summed,
    *,
    slots: int,
    groups: int,
    head_dim: int,
    window: int,
) -> None:
    """A block of slots for the queries of a few heads; see `attention`."""
    row, part, step = pl.program_id(0), pl.program_id(2), pl.program_id(3)
    rows, block = query.shape[1], key.shape[1]
    positions = rows // groups
    first = ends[row] + part * positions

    @pl.when(step == 0)
    def _() -> None:
        greatest[...] = jnp.full(greatest.shape, jnp.finfo(jnp.float32).min)
        total[...] = jnp.zeros_like(total)
        summed[...] = jnp.zeros_like(summed)

    unread = step > _last(first, positions, slots, block)

    @pl.when(~unread & (step >= _first(first, window, block)))
    def _() -> None:
        def along(axis: int) -> Array:
            return jax.lax.broadcasted_iota(jnp.int32, (rows, block), axis)

        slot, position = step * block + along(1), first + along(0) // groups
        seen = slot <= position
        if window:
            seen &= slot > position - window
        for head in range(query.shape[2] // head_dim):
            columns = slice(head * head_dim, (head + 1) * head_dim)
            scores = jax.lax.dot_general(
                query[0, :, columns],
                key[0, :, columns],
                (((1,), (1,)), ((), ())),
                preferred_element_type=jnp.float32,
            )
            scores = jnp.where(seen, scores, jnp.finfo(jnp.float32).min)
            before = greatest[head]
            now = jnp.maximum(before, jnp.max(scores, axis=1, keepdims=True))
            weights = jnp.exp(scores - now[:, :1])
            kept = jnp.exp(before - now)
            greatest[head] = now
            total[head] = kept * total[head] + jnp.sum(weights, axis=1, keepdims=True)
            values = value[0, :, columns]
            if slots % block:
                # What is behind the last slot is not a number.
                known = slots - step * block
                along_values = jax.lax.broadcasted_iota(jnp.int32, values.shape, 0)
                values = jnp.where(along_values < known, values, jnp.zeros_like(values))
            summed[:, columns] = kept[:, :1] * summed[:, columns] + jax.lax.dot_general(
                weights.astype(values.dtype),
                values,
                (((1,), (0,)), ((), ())),
                preferred_element_type=jnp.float32,
            )

    @pl.when(step == pl.num_programs(3) - 1)
    def _() -> None:
        for head in range(query.shape[2] // head_dim):
            columns = slice(head * head_dim, (head + 1) * head_dim)
            mixed[0, :, columns] = (summed[:, columns] / total[head, :, :1]).astype(
                mixed.dtype
            )


def _last(first, positions: int, slots: int, block: int):
    """The last block that is seen by `positions` queries, from slot `first` on."""
    return jnp.minimum(first + positions - 1, slots - 1) // block


def _first(first, window: int, block: int):
    """The first block that is seen by queries from slot `first` on."""
    return jnp.maximum(first - window + 1, 0) // block if window else 0


def slots_read(ends: Int[Array | ndarray, " batch"], *, slots: int) -> int:
    """Slots that the kernel reads in a step of decoding, by its own grid.

    Args:
      ends: the slot of the token that each row reads.
      slots: of a row of the cache.
    """
    block = min(BLOCK, slots)
    blocks = 1 + _last(ends, 1, slots, block)
    return int(jnp.sum(jnp.minimum(blocks * block, slots)))


def _divisor(number: int, most: int) -> int:
    """The greatest divisor of a number that is at most `most`."""
    return max(size for size in range(1, min(number, most) + 1) if number % size == 0)

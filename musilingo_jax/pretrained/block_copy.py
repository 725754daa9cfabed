"""Large matrices, moved block by block at the speed of memory.

A released weight is [out, in] and our kernel [in, out], in another type and, on a mesh,
in parts. Done in one numpy expression, that needs copies of all of it and is ten times
slower than copying. Here a few hundred rows are read at once, cast in one go, and then
turned in tiles that stay in the processor's cache.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from musilingo_jax.models.int8 import quantize
from musilingo_jax.pretrained.lazy_tensors import LazyTensor

Box = tuple[tuple[int, int], ...]  # for each axis, where a part starts and stops

_TILE = 256  # rows and columns; a tile and its copy fit the cache of one core
_PADDING = 8  # columns: rows a power of two apart would push each other out of it
_BLOCK_BYTES = 2**21
_CHANNELS = 64  # rows quantised at once: in float32, some megabytes
_ALIGNMENT = 64  # bytes: XLA uses memory that begins at multiples without copying it


def empty(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """Memory for an array, which `jax.device_put` on CPUs uses as it is."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def transpose(into: np.ndarray, rows: np.ndarray) -> None:
    """`into[...] = rows.T`; quick for matrices whose rows lie in one piece each."""
    into, rows = _bits(into), _bits(rows)
    if rows.ndim != 2:
        into[...] = rows.T
        return
    tile = np.empty((_TILE, _TILE + _PADDING), rows.dtype)
    for i in range(0, rows.shape[0], _TILE):
        for j in range(0, rows.shape[1], _TILE):
            corner = rows[i : i + _TILE, j : j + _TILE]
            packed = tile[: corner.shape[0], : corner.shape[1]]
            packed[...] = corner
            into[j : j + _TILE, i : i + _TILE] = packed.T


def read(
    tensor: LazyTensor,
    parts: Mapping[Box, np.ndarray],
    pool: ThreadPoolExecutor,
    *,
    turned: bool,
) -> list[Future]:
    """Begins to read parts of a tensor, in the type of the arrays that they go to.

    Args:
      tensor: has one axis or more.
      parts: bounds in the tensor → an array of that shape, whose axes are in reversed
        order if `turned`.
      pool: the threads that read, cast and copy.
      turned: whether they are.

    Returns:
      What to wait for; until then the arrays must not be looked at.
    """
    futures = []
    for group in _groups(parts):
        (first, last), *columns = _around(group)
        # Full tiles where there are tiles.
        row_bytes = max(1, tensor.nbytes // max(1, tensor.shape[0]))
        step = _TILE if turned else max(1, _BLOCK_BYTES // row_bytes)
        for start in range(first, last, step):
            block = (start, min(start + step, last)), *columns
            inside = {box: parts[box] for box in group}
            futures.append(pool.submit(_copy, tensor, block, inside, turned))
    return futures


def read_quantized(
    tensor: LazyTensor,
    values: Mapping[Box, np.ndarray],
    scales: Mapping[Box, np.ndarray],
    pool: ThreadPoolExecutor,
) -> list[Future]:
    """Begins to read parts of a released matrix [out, in] as an int8 kernel.

    A row of the matrix is an output channel, whose scale needs all of the row: of the
    rows that any part wants, all columns are read, a few rows at a time, once.

    Args:
      tensor: the matrix.
      values: bounds in it → int8 array of that shape.
      scales: bounds along its rows → float32 array of that length.
      pool: the threads that read, quantise and copy.

    Returns:
      What to wait for; until then the arrays must not be looked at.
    """
    return [
        pool.submit(
            _quantize, tensor, (start, min(start + _CHANNELS, last)), values, scales
        )
        for first, last in sorted({box[0] for box in (*values, *scales)})
        for start in range(first, last, _CHANNELS)
    ]


def _quantize(
    tensor: LazyTensor,
    channels: tuple[int, int],
    values: Mapping[Box, np.ndarray],
    scales: Mapping[Box, np.ndarray],
) -> None:
    """Reads some rows of a matrix and puts them into the parts that they overlap."""
    first, last = channels
    # Numbers that are none end in the scale; numpy need not warn of them on the way.
    with np.errstate(invalid="ignore", over="ignore"):
        rows, scale = quantize(tensor[first:last])
    for ((start, stop),), part in scales.items():
        low, high = max(first, start), min(last, stop)
        if low < high:
            part[low - start : high - start] = scale[low - first : high - first]
    for ((start, stop), inputs), part in values.items():
        low, high = max(first, start), min(last, stop)
        if low < high:
            mine = rows[low - first : high - first, slice(*inputs)]
            part[low - start : high - start] = mine


def _copy(
    tensor: LazyTensor, block: Box, parts: Mapping[Box, np.ndarray], turned: bool
) -> None:
    """Reads a block of a tensor and puts it into the parts that it overlaps."""
    content = tensor[tuple(slice(*pair) for pair in block)]
    (first, last), *columns = block
    for box, part in parts.items():
        (start, stop), *inner = box
        low, high = max(first, start), min(last, stop)
        if low >= high:
            continue
        mine = tuple(
            slice(start - around, stop - around)
            for (start, stop), (around, _) in zip(inner, columns, strict=True)
        )
        rows = content[(slice(low - first, high - first), *mine)]
        rows = rows.astype(part.dtype, copy=False)
        here = slice(low - start, high - start)
        if turned:
            transpose(part[..., here], rows)
        else:
            _bits(part[here])[...] = _bits(rows)


def _groups(parts: Collection[Box]) -> list[list[Box]]:
    """Parts that are read together: all of them, if that reads nothing in vain."""
    together = sum(map(_volume, parts)) == _volume(_around(parts))
    return [list(parts)] if together else [[box] for box in parts]


def _around(boxes: Collection[Box]) -> Box:
    """The smallest box that they are in."""
    return tuple(
        (min(start for start, _ in pairs), max(stop for _, stop in pairs))
        for pairs in zip(*boxes, strict=True)
    )


def _volume(box: Box) -> int:
    return math.prod(stop - start for start, stop in box)


def _bits(array: np.ndarray) -> np.ndarray:
    """The same numbers as unsigned integers: numpy copies bfloat16 one at a time."""
    return array.view(f"u{array.dtype.itemsize}")

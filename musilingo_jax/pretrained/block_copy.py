"""Copies and transposes large matrices block by block, at the speed of memory.

A released weight is [out, in] and our kernel [in, out], in another type and, on a mesh,
in parts. As one numpy expression, that makes copies of the whole matrix and takes ten
times as long as copying it. Here a few hundred rows are read and cast at a time, and
then transposed in tiles that stay in the processor's cache.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from jaxtyping import Shaped

from musilingo_jax.models.int8 import quantize
from musilingo_jax.pretrained.lazy_tensors import LazyTensor

Box = tuple[tuple[int, int], ...]  # for each axis, where a part starts and stops

_TILE = 256  # rows and columns: a tile and its copy fit in the cache of one core
_PADDING = 8  # columns: rows a power of two apart would evict each other from the cache
_BLOCK_BYTES = 2**21
_CHANNELS = 64  # rows quantised at once: some megabytes in float32
_ALIGNMENT = 64  # bytes: XLA uses memory at such addresses without copying it


def empty(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array that `jax.device_put` on CPUs uses without copying it."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def transpose(into: Shaped[np.ndarray, "..."], rows: Shaped[np.ndarray, "..."]) -> None:
    """`into[...] = rows.T`; fast for matrices each of whose rows is contiguous."""
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
    transposed: bool,
) -> list[Future]:
    """Starts to read parts of a tensor into arrays, and to cast them to their types.

    Args:
      tensor: has one axis or more.
      parts: bounds in the tensor → an array of that shape, with its axes in reversed
        order if `transposed`.
      pool: the threads that read, cast and copy.
      transposed: whether the arrays have reversed axes.

    Returns:
      Futures; the arrays must not be used until all of them are done.
    """
    futures = []
    for group in _groups(parts):
        (first, last), *columns = _bounding_box(group)
        row_bytes = max(1, tensor.nbytes // max(1, tensor.shape[0]))
        # Blocks of whole tiles, if the rows are cut into tiles.
        step = _TILE if transposed else max(1, _BLOCK_BYTES // row_bytes)
        for start in range(first, last, step):
            block = (start, min(start + step, last)), *columns
            inside = {box: parts[box] for box in group}
            futures.append(pool.submit(_copy, tensor, block, inside, transposed))
    return futures


def read_quantized(
    tensor: LazyTensor,
    values: Mapping[Box, np.ndarray],
    scales: Mapping[Box, np.ndarray],
    pool: ThreadPoolExecutor,
) -> list[Future]:
    """Starts to read parts of a released matrix [out, in] as an int8 kernel.

    A row of the matrix is an output channel, and its scale depends on the whole row. So
    each row that any part needs is read once, with all of its columns, a few rows at a
    time.

    Args:
      tensor: the matrix.
      values: bounds in it → int8 array of that shape.
      scales: bounds along its rows → float32 array of that length.
      pool: the threads that read, quantise and copy.

    Returns:
      Futures; the arrays must not be used until all of them are done.
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
    """Quantises some rows of a matrix, and copies them to the parts they overlap."""
    first, last = channels
    # NaN and infinity end up in the scale, so numpy need not warn about them.
    with np.errstate(invalid="ignore", over="ignore"):
        rows, scale = quantize(tensor[first:last])
    for ((start, stop),), part in scales.items():
        low, high = max(first, start), min(last, stop)
        if low < high:
            part[low - start : high - start] = scale[low - first : high - first]
    for ((start, stop), inputs), part in values.items():
        low, high = max(first, start), min(last, stop)
        if low < high:
            overlap = rows[low - first : high - first, slice(*inputs)]
            part[low - start : high - start] = overlap


def _copy(
    tensor: LazyTensor, block: Box, parts: Mapping[Box, np.ndarray], transposed: bool
) -> None:
    """Reads a block of a tensor, and copies it to the parts it overlaps."""
    content = tensor[tuple(slice(*pair) for pair in block)]
    (first, last), *columns = block
    for box, part in parts.items():
        (start, stop), *inner = box
        low, high = max(first, start), min(last, stop)
        if low >= high:
            continue
        overlap = tuple(
            slice(start - around, stop - around)
            for (start, stop), (around, _) in zip(inner, columns, strict=True)
        )
        rows = content[(slice(low - first, high - first), *overlap)]
        rows = rows.astype(part.dtype, copy=False)
        here = slice(low - start, high - start)
        if transposed:
            transpose(part[..., here], rows)
        else:
            _bits(part[here])[...] = _bits(rows)


def _groups(parts: Collection[Box]) -> list[list[Box]]:
    """The parts that are read together: all, if together they fill their bounding box.

    Otherwise, reading the bounding box would read values that no part needs.
    """
    together = sum(map(_volume, parts)) == _volume(_bounding_box(parts))
    return [list(parts)] if together else [[box] for box in parts]


def _bounding_box(boxes: Collection[Box]) -> Box:
    """The smallest box that contains all of them."""
    return tuple(
        (min(start for start, _ in pairs), max(stop for _, stop in pairs))
        for pairs in zip(*boxes, strict=True)
    )


def _volume(box: Box) -> int:
    return math.prod(stop - start for start, stop in box)


def _bits(array: np.ndarray) -> np.ndarray:
    """The array viewed as unsigned integers: numpy copies bfloat16 one by one."""
    return array.view(f"u{array.dtype.itemsize}")

"""Tensors that are put together from others, some rows at a time, when they are read.

    joined by rows        joined by columns        interleaved pairs → halves, per head

    a a a                 a a b b                  x0 y0 x1 y1   →   x0 x1 y0 y1
    a a a                 a a b b
    b b b                 a a b b
    b b b

Only what an index needs of the others is read, in whole rows.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from musilingo_jax.pretrained.lazy_tensors import LazyTensor, leading_rows
from musilingo_jax.pretrained.safetensors_file import TYPES


@dataclass(frozen=True)
class RowTensor:
    """A tensor whose rows a function makes; `tensor[index]` makes those it needs.

    Attributes:
      shape: its sizes.
      dtype: its type as safetensors spells it.
      rows: makes consecutive rows.
    """

    shape: tuple[int, ...]
    dtype: str
    rows: Callable[[range], np.ndarray]

    @property
    def nbytes(self) -> int:
        """The size of all of its values."""
        return math.prod(self.shape) * TYPES[self.dtype].itemsize

    def __getitem__(self, index: Any) -> np.ndarray:
        rows, index = leading_rows(self.shape, index)
        return np.asarray(self.rows(rows)[index])


def joined(parts: Sequence[LazyTensor], axis: int) -> RowTensor:
    """Matrices of one type, one below the other (axis 0) or side by side (axis 1)."""
    sizes = list(parts[0].shape)
    sizes[axis] = sum(part.shape[axis] for part in parts)
    read = partial((_below, _beside)[axis], parts)
    return RowTensor(tuple(sizes), parts[0].dtype, read)


def halved(tensor: LazyTensor, head_dim: int) -> RowTensor:
    """A projection to heads whose rotary pairs are neighbours, with them as halves.

    Args:
      tensor: [heads * head_dim, width], rows x0 y0 x1 y1 … of each head.
      head_dim: rows of a head.

    Returns:
      The same with rows x0 x1 … y0 y1 … of each head, as `attention.rotary` takes them.
    """
    read = partial(_turned, tensor, head_dim, (-1, head_dim // 2, 2))
    return RowTensor(tuple(tensor.shape), tensor.dtype, read)


def interleaved(tensor: LazyTensor, head_dim: int) -> RowTensor:
    """The inverse of `halved`: rows x0 x1 … y0 y1 … of each head become x0 y0 x1 y1."""
    read = partial(_turned, tensor, head_dim, (-1, 2, head_dim // 2))
    return RowTensor(tuple(tensor.shape), tensor.dtype, read)


def transposed(tensor: LazyTensor) -> RowTensor:
    """A matrix whose rows are the columns of another."""
    fan_out, fan_in = tensor.shape
    return RowTensor((fan_in, fan_out), tensor.dtype, partial(_columns, tensor))


def reshaped(tensor: LazyTensor, shape: tuple[int, ...]) -> RowTensor:
    """A small tensor in another shape."""

    def rows(wanted: range) -> np.ndarray:
        return tensor[...].reshape(shape)[wanted.start : wanted.stop]

    return RowTensor(shape, tensor.dtype, rows)


def stacked(tensors: Sequence[LazyTensor], width: int) -> RowTensor:
    """A row of each of several small tensors."""

    def rows(wanted: range) -> np.ndarray:
        return np.stack([tensors[row][...].reshape(width) for row in wanted])

    return RowTensor((len(tensors), width), tensors[0].dtype, rows)


def row(tensor: LazyTensor, index: int, shape: tuple[int, ...]) -> RowTensor:
    """One row of a small matrix, in a shape of its own."""

    def rows(wanted: range) -> np.ndarray:
        return tensor[index].reshape(shape)[wanted.start : wanted.stop]

    return RowTensor(shape, tensor.dtype, rows)


def scaled(tensor: LazyTensor, scale: float) -> RowTensor:
    """The product of a tensor and a number, in float32."""

    def rows(wanted: range) -> np.ndarray:
        values = tensor[wanted.start : wanted.stop].astype(np.float32)
        return values * np.float32(scale)

    return RowTensor(tuple(tensor.shape), "F32", rows)


def plus(first: LazyTensor, second: LazyTensor) -> RowTensor:
    """The sum of two tensors of one shape, in float32."""

    def rows(wanted: range) -> np.ndarray:
        block = slice(wanted.start, wanted.stop)
        return first[block].astype(np.float32) + second[block].astype(np.float32)

    return RowTensor(tuple(first.shape), "F32", rows)


def zeros(shape: tuple[int, ...]) -> RowTensor:
    """Zeros in float32."""

    def rows(wanted: range) -> np.ndarray:
        return np.zeros((len(wanted), *shape[1:]), np.float32)

    return RowTensor(shape, "F32", rows)


def _columns(tensor: LazyTensor, rows: range) -> np.ndarray:
    return np.ascontiguousarray(tensor[:, rows.start : rows.stop].T)


def _below(parts: Sequence[LazyTensor], rows: range) -> np.ndarray:
    found, first = [], 0
    for part in parts:
        low, high = max(rows.start - first, 0), min(rows.stop - first, part.shape[0])
        if low < high:
            found.append(part[low:high])
        first += part.shape[0]
    return _concatenated(found or [parts[0][0:0]], 0)


def _beside(parts: Sequence[LazyTensor], rows: range) -> np.ndarray:
    return _concatenated([part[rows.start : rows.stop] for part in parts], 1)


def _turned(
    tensor: LazyTensor, head_dim: int, pairs: tuple[int, ...], rows: range
) -> np.ndarray:
    """Reads the heads that the rows are in, and swaps the two axes of their pairs."""
    first = rows.start - rows.start % head_dim
    last = rows.stop + -rows.stop % head_dim
    heads = _bits(tensor[first:last])
    split = heads.reshape(*pairs, *heads.shape[1:])
    turned = split.swapaxes(1, 2).reshape(heads.shape)
    chosen = turned[rows.start - first : rows.stop - first]
    return chosen.view(TYPES[tensor.dtype])


def _concatenated(arrays: Sequence[np.ndarray], axis: int) -> np.ndarray:
    if len(arrays) == 1:
        return arrays[0]
    dtype = arrays[0].dtype
    return np.concatenate([_bits(array) for array in arrays], axis).view(dtype)


def _bits(array: np.ndarray) -> np.ndarray:
    """The array viewed as unsigned integers: numpy copies bfloat16 one by one."""
    return array.view(f"u{array.dtype.itemsize}")

"""Tensors of PyTorch's zips: views of storages, whose values are in the file."""

import math
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from musilingo_jax.pretrained.safetensors_file import TYPES, LocalFile, Tensor
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import one_line

SPELLINGS = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
"""PyTorch's name of a type → safetensors' name."""

STORAGES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
    "QInt8": "qint8",
    "QInt32": "qint32",
    "QUInt8": "quint8",
}
"""torch.FloatStorage → the type of its values."""

_BLOCK = 2**22


class Dtype(NamedTuple):
    """A type of values, as PyTorch calls it: "float32"."""

    name: str


class Special(NamedTuple):
    """A tensor that cannot be read, and why: "is a torch.sparse_coo tensor …"."""

    reason: str


@dataclass(frozen=True)
class StorageType:
    """torch.FloatStorage and its like; the dtype is None for untyped bytes."""

    dtype: str | None


class Storage:
    """The values that some tensors view, and their checksum.

    Attributes:
      file: the zip.
      key: its name in the zip: "archive/data/0".
      dtype: the type of its values; None for bytes.
      start: the byte of the zip at which they begin.
      size: the number of bytes.
    """

    def __init__(
        self,
        file: LocalFile,
        key: str,
        dtype: str | None,
        start: int,
        size: int,
        crc: int | None,
    ):
        """Keeps where the values are, and their checksum; None if it is not needed."""
        self.file, self.key, self.dtype = file, key, dtype
        self.start, self.size = start, size
        self._crc, self._checked = crc, crc is None
        self._lock = threading.Lock()

    def check(self) -> None:
        """Compares the checksum, the first time that it is called.

        Raises:
          UserError: the values are not those that were saved, or cannot be read.
        """
        with self._lock:
            if self._checked:
                return
            whole = Tensor(self.file, self.start, (self.size,), "U8", self.size)
            crc = 0
            for first in range(0, self.size, _BLOCK):
                crc = zlib.crc32(whole[first : first + _BLOCK].data, crc)
            if crc != self._crc:
                raise UserError(
                    f"{self.file.path}: the values of {one_line(self.key)} in this "
                    "zip do not match their checksum, so they are damaged; get the "
                    "file from its source again"
                )
            self._checked = True


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a zip; `tensor[index]` reads that part of it.

    Attributes:
      storage: where its values are.
      dtype: its type as safetensors spells it.
      offset: its first value, counted in values.
      shape: its sizes.
      strides: how many values apart neighbours along each axis are.
    """

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """The size of all of its values."""
        return math.prod(self.shape) * TYPES[self.dtype].itemsize

    def __getitem__(self, index: Any) -> np.ndarray:
        """A part of the tensor, in memory of its own.

        Raises:
          UserError: the file is damaged or cannot be read.
        """
        self.storage.check()
        width = TYPES[self.dtype].itemsize
        start = self.storage.start + self.offset * width
        if self._is_contiguous():
            stored = Tensor(
                self.storage.file, start, self.shape, self.dtype, self.nbytes
            )
            return stored[index]
        # A transposed or expanded tensor: its values are somewhere in a stretch.
        count = extent(self.shape, self.strides)
        stretch = Tensor(self.storage.file, start, (count,), self.dtype, count * width)
        strides = tuple(stride * width for stride in self.strides)
        view = np.lib.stride_tricks.as_strided(stretch[...], self.shape, strides)
        return np.array(view[index])

    def unchecked(self) -> "StoredTensor":
        """The same without comparing the checksum, for which all values are read."""
        own = self.storage
        storage = Storage(own.file, own.key, own.dtype, own.start, own.size, None)
        return replace(self, storage=storage)

    def _is_contiguous(self) -> bool:
        expected = 1
        for size, stride in zip(self.shape[::-1], self.strides[::-1], strict=True):
            if size != 1 and stride != expected:
                return False
            expected *= size
        return True


def extent(shape: Sequence[int], strides: Sequence[int]) -> int:
    """How many values apart the first and the last value of a tensor are, plus one."""
    if 0 in shape:
        return 0
    pairs = zip(shape, strides, strict=True)
    return 1 + sum((size - 1) * stride for size, stride in pairs)


def width(dtype: str | None) -> int:
    """Bytes of a value of a type; 1 for bytes, and for types that cannot be read."""
    return TYPES[SPELLINGS[dtype]].itemsize if dtype in SPELLINGS else 1


META = Special(
    "has a shape but no values (it is on PyTorch's device meta); save the model after "
    "its weights were loaded"
)

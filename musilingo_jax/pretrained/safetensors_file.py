"""The safetensors format: a header, and tensors' numbers one after the other.

    8 bytes      n
    n bytes      {"norm": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]},
                  "up": {"dtype": "F16", "shape": [8, 4], "data_offsets": [8, 72]}}
    72 bytes     numbers

https://huggingface.co/docs/safetensors describes it. The `safetensors` library reads a
file through a memory map, which keeps in memory what was read; with files as large as
memory, and read once, plain reads are better.
"""

import json
import math
import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import ml_dtypes
import numpy as np

from musilingo_jax.runtime.errors import UserError

TYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
"""How the format spells the types of numbers."""

_SPELLINGS = {dtype: spelling for spelling, dtype in TYPES.items()}
_HEADER_BYTES = 100_000_000  # The library's own limit.

Layout = Mapping[str, tuple[tuple[int, ...], np.dtype]]  # name → shape and type


@runtime_checkable
class SafetensorsFile(Protocol):
    """What tensors are read from: a file on a disk, or one that lies elsewhere.

    Attributes:
      path: what it is called in messages.
      size: in bytes.
    """

    path: Path | str
    size: int

    def read(self, into: memoryview, start: int) -> int:
        """Fills `into` from byte `start` on; returns how much it could.

        Raises:
          OSError: the file cannot be read.
        """


class LocalFile:
    """An open file, closed when no tensor of it is left.

    What was opened stays what it was, even if another file takes its place.
    """

    def __init__(self, path: Path):
        self.path = path
        self._number = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._number)
        self.size = os.fstat(self._number).st_size
        if hasattr(os, "posix_fadvise"):  # Not on macOS.
            # Several threads read pieces in turn: to be read further ahead.
            os.posix_fadvise(self._number, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def read(self, into: memoryview, start: int) -> int:
        """As in `SafetensorsFile`."""
        return os.preadv(self._number, [into], start)


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file, not read yet.

    `tensor[index]` reads a part of it, for slices, numbers and `...` as numpy takes
    them, into memory of its own. Whole rows are read, those of the first axis that the
    index asks for: a disk is read ahead by more than a row in any case. Nothing else of
    the file is in this process's memory, then or later. Threads may read at once.

    Attributes:
      file: the file.
      start: where the numbers begin in it, in bytes.
      shape: its sizes.
      dtype: its type as the format spells it.
      nbytes: of all of its numbers.
    """

    file: SafetensorsFile
    start: int
    shape: tuple[int, ...]
    dtype: str
    nbytes: int

    def __getitem__(self, index: Any) -> np.ndarray:
        """A part of the tensor.

        Raises:
          UserError: the file is shorter than it was, or cannot be read, or its numbers
            are of a type that numpy does not have.
        """
        if self.dtype not in TYPES:
            raise UserError(
                f"{self.file.path}: has numbers of the type {self.dtype}, which is not "
                "known here; use another version of the model"
            )
        index = index if isinstance(index, tuple) else (index,)
        if not self.shape or not index or index[0] is ...:
            return self._part(range(self.shape[0] if self.shape else 1), index)
        rows = range(self.shape[0])[index[0]]
        if isinstance(rows, int):
            return self._part(range(rows, rows + 1), (0, *index[1:]))
        if rows.step == 1:
            return self._part(rows, (slice(None), *index[1:]))
        return self._part(range(self.shape[0]), index)

    def _part(self, rows: range, index: tuple[Any, ...]) -> np.ndarray:
        """Reads some rows; `index` says what is taken of them."""
        dtype = TYPES[self.dtype]
        shape = (len(rows), *self.shape[1:]) if self.shape else ()
        content = np.empty(byte_count(shape, dtype), np.uint8)
        start = self.start + rows.start * byte_count(self.shape[1:], dtype)
        left = memoryview(content)
        while left:
            try:
                count = self.file.read(left, start)
            except OSError as error:
                raise UserError(
                    f"{self.file.path}: cannot be read ({error.strerror})"
                ) from error
            if not count:
                raise UserError(
                    f"{self.file.path}: was cut off while it was read; download or "
                    "save it again"
                )
            start, left = start + count, left[count:]
        # As unsigned integers, because numpy copies types that are not its own slowly.
        whole = content.view(f"u{dtype.itemsize}").reshape(shape)
        part = np.asarray(whole[index])
        return (part if part.size == whole.size else part.copy()).view(dtype)


def byte_count(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Bytes that an array takes."""
    return math.prod(shape) * np.dtype(dtype).itemsize


def open_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one file by name; only its header is read.

    Raises:
      UserError: the file cannot be read, or its header does not fit its size.
    """
    try:
        return read_header(LocalFile(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: broken or cut off ({error}); download or save it again"
        ) from error


def read_header(file: SafetensorsFile) -> dict[str, Tensor]:
    """The tensors of an open file by name.

    Raises:
      OSError: the file cannot be read.
      ValueError, RecursionError: its header is none, or does not fit its size.
    """
    first = _read_all(file, 8, 0)
    length = int.from_bytes(first, "little")
    if first == b"version ":
        raise ValueError("it is only git's note about the file: `git lfs pull`")
    if len(first) < 8 or length > min(file.size - 8, _HEADER_BYTES):
        raise ValueError("it ends before its header does")
    said = json.loads(_read_all(file, length, 8))
    return _parse(file, said, 8 + length, file.size - 8 - length)


def _read_all(file: SafetensorsFile, count: int, start: int) -> bytes:
    content = bytearray(count)
    return bytes(content[: file.read(memoryview(content), start)])


def make_header(
    layout: Layout, metadata: Mapping[str, str]
) -> tuple[bytes, dict[str, int]]:
    """The first bytes of a file, and where each tensor begins after them.

    Wide types stand first: then all numbers lie at multiples of their own width, as
    readers that map the file want it.
    """
    said, offsets, end = {"__metadata__": dict(metadata)}, {}, 0
    for name in sorted(layout, key=lambda name: -np.dtype(layout[name][1]).itemsize):
        shape, dtype = layout[name]
        offsets[name], end = end, end + byte_count(shape, dtype)
        said[name] = {
            "dtype": _SPELLINGS[np.dtype(dtype)],
            "shape": list(shape),
            "data_offsets": [offsets[name], end],
        }
    text = json.dumps(said, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, offsets


def _parse(
    file: SafetensorsFile, said: Any, start: int, size: int
) -> dict[str, Tensor]:
    """A header's tensors; ValueError if they are not exactly what the file holds."""
    if not isinstance(said, dict):
        raise ValueError("its header is no JSON object")
    said.pop("__metadata__", None)
    tensors, spans = {}, []
    for name, kind in said.items():
        try:
            dtype, shape = str(kind["dtype"]), tuple(map(int, kind["shape"]))
            begin, end = map(int, kind["data_offsets"])
        # Infinite sizes are numbers to JSON, and an ArithmeticError to `int`.
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise ValueError(f"its header does not describe {name}") from error
        fits = min(shape, default=0) >= 0 and 0 <= begin <= end
        if dtype in TYPES:
            fits = fits and end - begin == byte_count(shape, TYPES[dtype])
        if not fits:
            raise ValueError(f"the size of {name} is impossible")
        tensors[name] = Tensor(file, start + begin, shape, dtype, end - begin)
        spans.append((begin, end))
    reached = 0
    for begin, end in sorted(spans):
        if begin != reached:
            raise ValueError("its tensors overlap or leave gaps")
        reached = end
    if reached != size:
        raise ValueError(f"it has {size} bytes of numbers instead of {reached}")
    return tensors

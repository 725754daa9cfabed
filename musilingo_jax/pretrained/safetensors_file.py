"""The safetensors format: a header, and the values of one tensor after the other.

    8 bytes      n
    n bytes      {"norm": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]},
                  "up": {"dtype": "F16", "shape": [8, 4], "data_offsets": [8, 72]}}
    72 bytes     values

https://huggingface.co/docs/safetensors describes it. The `safetensors` library reads a
file through a memory map, whose pages stay in memory once they were read: reading a
file of 1 GiB in parts of 4 MiB adds 1,028 MB to the process (version 0.8.0), and plain
reads add 4 MB. Model files are as large as memory and are read once.
"""

import json
import math
import os
import weakref
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

import ml_dtypes
import numpy as np

from musilingo_jax.pretrained.lazy_tensors import leading_rows
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import open_regular_file
from musilingo_jax.runtime.printable import one_line

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
"""How the format spells the types of values."""

CHECKSUMS = "crc32"
"""The metadata in which our own files state the checksum of each tensor, as JSON."""

CHECKED_BYTES = 2**27
"""Files up to this size have checksums: adapters do; for a model they take too long."""

_SPELLINGS = {dtype: spelling for spelling, dtype in TYPES.items()}
_HEADER_BYTES = 100_000_000  # The library's own limit.

Layout = Mapping[str, tuple[tuple[int, ...], np.dtype]]  # name → shape and type


@runtime_checkable
class SafetensorsFile(Protocol):
    """What tensors are read from: a file on a disk, or one on the hub."""

    @property
    def path(self) -> Path | str:
        """Its name in messages."""
        ...

    @property
    def size(self) -> int:
        """The number of its bytes."""
        ...

    def read(self, into: memoryview, start: int) -> int:
        """Fills `into` with the bytes from `start` on; returns how many were read.

        Raises:
          OSError: the file cannot be read.
        """
        ...


class LocalFile:
    """An open file, closed when none of its tensors is left.

    It stays the file that was opened, even if another takes its place in the folder.
    """

    def __init__(self, path: Path):
        """Opens it; OSError if it cannot be read or is not a regular file."""
        self.path = path
        with open_regular_file(path) as file:
            self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)
        self.size = os.fstat(self._descriptor).st_size
        if hasattr(os, "posix_fadvise"):  # Not on macOS.
            # Several threads read blocks in turn, which the kernel takes for random
            # access; this advice makes it read ahead.
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def handle(self) -> BinaryIO:
        """The same file as libraries read it; to be closed."""
        return os.fdopen(os.dup(self._descriptor), "rb")

    def read(self, into: memoryview, start: int) -> int:
        """As in `SafetensorsFile`."""
        return os.preadv(self._descriptor, [into], start)


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file, not read yet.

    `tensor[index]` reads a part of it into memory of its own, for slices, integers and
    `...` as numpy accepts them. It reads whole rows, those of the first axis that the
    index selects: a disk reads ahead by more than a row in any case. Nothing else of
    the file is in this process's memory, then or later. Threads may read at once.

    Attributes:
      file: the file.
      start: the byte at which the values begin.
      shape: its sizes.
      dtype: its type as the format spells it.
      nbytes: the size of all of its values.
    """

    file: SafetensorsFile
    start: int
    shape: tuple[int, ...]
    dtype: str
    nbytes: int

    def __getitem__(self, index: Any) -> np.ndarray:
        """A part of the tensor.

        Raises:
          UserError: the file is shorter than it was, or cannot be read, or its values
            have a type that numpy lacks.
        """
        if self.dtype not in TYPES:
            named = one_line(self.dtype[:80])
            raise UserError(
                f"{self.file.path}: has values of type {named}, which is not "
                "supported; use another version of the model"
            )
        return self._part(*leading_rows(self.shape, index))

    def _part(self, rows: range, index: tuple[Any, ...]) -> np.ndarray:
        """Reads consecutive rows; `index` selects the part of them to return."""
        dtype = TYPES[self.dtype]
        shape = (len(rows), *self.shape[1:]) if self.shape else ()
        content = np.empty(byte_count(shape, dtype), np.uint8)
        start = self.start + rows.start * byte_count(self.shape[1:], dtype)
        left = content.data
        while left:
            try:
                count = self.file.read(left, start)
            except OSError as error:
                raise UserError(
                    f"{self.file.path}: cannot be read ({error.strerror})"
                ) from error
            if not count:
                raise UserError(
                    f"{self.file.path}: was cut off while it was read; let the program "
                    "that writes it finish, or get it from its source again"
                )
            start, left = start + count, left[count:]
        # Viewed as unsigned integers: numpy copies ml_dtypes' types slowly.
        whole = content.view(f"u{dtype.itemsize}").reshape(shape)
        part = np.asarray(whole[index])
        return (part if part.size == whole.size else part.copy()).view(dtype)


def byte_count(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """The number of bytes that an array takes."""
    return math.prod(shape) * np.dtype(dtype).itemsize


def open_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one file by name; only its header is read.

    A small file that states checksums is read as a whole, to compare them.

    Raises:
      UserError: the file cannot be read, its header does not fit its size, or a
        checksum is another one.
    """
    try:
        file = LocalFile(path)
        header, start = _header(file)
        tensors = _parse(file, header, start)
        _check(header, tensors)
        return tensors
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: broken or cut off ({one_line(str(error))}); get it from its "
            "source again"
        ) from error


def read_header(file: SafetensorsFile) -> dict[str, Tensor]:
    """The tensors of an open file by name.

    Raises:
      OSError: the file cannot be read.
      ValueError, RecursionError: it has no valid header, or one that does not fit its
        size.
    """
    header, start = _header(file)
    return _parse(file, header, start)


def _header(file: SafetensorsFile) -> tuple[dict[str, Any], int]:
    """The JSON object of the header, and the byte at which the values begin."""
    first = _read_all(file, 8, 0)
    length = int.from_bytes(first, "little")
    if first == b"version ":
        raise ValueError("it is a git-lfs pointer to the file: run `git lfs pull`")
    if len(first) < 8 or length > min(file.size - 8, _HEADER_BYTES):
        raise ValueError("it ends before its header does")
    header = json.loads(_read_all(file, length, 8))
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    return header, 8 + length


def _check(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Compares the checksums that a header states; ValueError if one differs."""
    metadata = header.get("__metadata__")
    stated = metadata.get(CHECKSUMS) if isinstance(metadata, dict) else None
    if stated is None or sum(t.nbytes for t in tensors.values()) > CHECKED_BYTES:
        return
    expected = json.loads(stated)
    for name, tensor in tensors.items():
        content = tensor[...].reshape(-1).view(np.uint8).data
        if f"{zlib.crc32(content):08x}" != expected.get(name):
            raise ValueError(f"{name} does not match its checksum")


def make_header(
    layout: Layout, metadata: Mapping[str, str]
) -> tuple[bytes, dict[str, int]]:
    """The first bytes of a file, and the offset of each tensor after them.

    Wide types come first, so that all values are aligned to their own width, which
    readers that map the file need.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    offsets, end = {}, 0
    for name in sorted(layout, key=lambda name: -np.dtype(layout[name][1]).itemsize):
        shape, dtype = layout[name]
        offsets[name], end = end, end + byte_count(shape, dtype)
        header[name] = {
            "dtype": _SPELLINGS[np.dtype(dtype)],
            "shape": list(shape),
            "data_offsets": [offsets[name], end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, offsets


def _read_all(file: SafetensorsFile, count: int, start: int) -> bytes:
    content = bytearray(count)
    return bytes(content[: file.read(memoryview(content), start)])


def _parse(
    file: SafetensorsFile, header: Mapping[str, Any], start: int
) -> dict[str, Tensor]:
    """A header's tensors; ValueError if they are not exactly what the file holds."""
    tensors, spans, size = {}, [], file.size - start
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape = entry["dtype"], tuple(entry["shape"])
            begin, end = entry["data_offsets"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"its header does not describe {name}") from error
        numbers = (*shape, begin, end)
        if type(dtype) is not str or any(type(number) is not int for number in numbers):
            raise ValueError(f"its header does not describe {name}")
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
        raise ValueError(f"it has {size} bytes of values instead of {reached}")
    return tensors

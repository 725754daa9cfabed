"""Reads the weights of a TensorFlow checkpoint, without TensorFlow.

A checkpoint (of the second version, "tensor bundle") is two files. The data are bytes
of arrays, one after the other; the index is a table of names, in the format of LevelDB:

    MODEL.index                      name → type, shape, where it is, how long it is
    MODEL.data-00000-of-00001        the bytes

The table is in blocks, and a block of blocks at its end, whose place the last 48 bytes
tell. In a block, a name is what it shares with the name before it, and the rest. Values
are protocol buffers. Formats: `tensorflow/core/protobuf/tensor_bundle.proto`, and
"Leveldb file layout" in LevelDB's documentation.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from musilingo_jax.runtime.errors import UserError

_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER = 48
_TYPES = {1: np.float32, 2: np.float64, 3: np.int32, 9: np.int64}


def read(folder: Path, name: str = "") -> dict[str, np.ndarray]:
    """All arrays of a checkpoint by name.

    Args:
      folder: where its two files are.
      name: what their names begin with; some have nothing before `.index`.

    Raises:
      UserError: a file is missing or damaged.
    """
    index, data = folder / f"{name}.index", folder / f"{name}.data-00000-of-00001"
    try:
        table, content = index.read_bytes(), data.read_bytes()
    except OSError as error:
        raise UserError(
            f"{error.filename}: cannot be read ({error.strerror})"
        ) from error
    try:
        return dict(_arrays(table, content))
    except (ValueError, IndexError, OverflowError) as error:
        raise UserError(
            f"{index}: is damaged, or not a checkpoint of TensorFlow ({error}); get "
            "both files from their source again"
        ) from error


def _arrays(table: bytes, content: bytes) -> Iterator[tuple[str, np.ndarray]]:
    footer = _Bytes(table[-_FOOTER:])
    if len(table) < _FOOTER or not table.endswith(_MAGIC):
        raise ValueError("its end is missing")
    for _ in range(2):  # Where a block is that nobody reads.
        footer.number()
    for _, place in _block(table, footer.number(), footer.number()):
        handle = _Bytes(place)
        for name, value in _block(table, handle.number(), handle.number()):
            if name:  # The first entry is about the checkpoint as a whole.
                array = _array(value, content)
                if array is not None:
                    yield name.decode(), array


def _array(value: bytes, content: bytes) -> np.ndarray | None:
    """An array of numbers; fields 1 type, 2 shape, 4 offset, 5 size."""
    entry = dict(_fields(value))
    kind = _TYPES.get(_whole(entry, 1))
    if kind is None:
        return None
    shape = entry.get(2, b"")
    if not isinstance(shape, bytes):
        raise ValueError("an array has no shape")
    sizes = [
        _whole(dict(_fields(size)), 1)
        for number, size in _fields(shape)
        if number == 2 and isinstance(size, bytes)
    ]
    count, start = math.prod(sizes), _whole(entry, 4)
    length = count * np.dtype(kind).itemsize
    if length != _whole(entry, 5) or start + length > len(content):
        raise ValueError("an array is not in its place")
    return np.frombuffer(content, kind, count, start).reshape(sizes)


def _whole(entry: Mapping[int, int | bytes], number: int) -> int:
    """A field that is a number; 0 if it is not there."""
    value = entry.get(number, 0)
    if not isinstance(value, int):
        raise ValueError("a number is not one")
    return value


def _block(table: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The names and values of a block."""
    if table[start + size] != 0:
        raise ValueError("a block is compressed")
    block = _Bytes(table[start : start + size])
    restarts = int.from_bytes(block.content[-4:], "little")
    end = len(block.content) - 4 - 4 * restarts
    name = b""
    while block.place < end:
        shared, rest, length = block.number(), block.number(), block.number()
        name = name[:shared] + block.take(rest)
        yield name, block.take(length)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protocol buffer: number and value."""
    buffer = _Bytes(message)
    while buffer.place < len(message):
        number, kind = divmod(buffer.number(), 8)
        match kind:
            case 0:
                yield number, buffer.number()
            case 1:
                yield number, buffer.take(8)
            case 2:
                yield number, buffer.take(buffer.number())
            case 5:
                yield number, buffer.take(4)
            case _:
                raise ValueError("a field is of an unknown kind")


class _Bytes:
    """Bytes, and how far they have been read."""

    def __init__(self, content: bytes):
        self.content = content
        self.place = 0

    def number(self) -> int:
        """A number in groups of seven bits, the lowest first."""
        value, shift = 0, 0
        while True:
            byte = self.content[self.place]
            self.place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise ValueError("a number is too long")

    def take(self, size: int) -> bytes:
        """The next bytes."""
        self.place += size
        if self.place > len(self.content):
            raise ValueError("it ends too early")
        return self.content[self.place - size : self.place]

"""A piece of a file as a file of its own, for decoders that read whole files."""

import io
import os
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple


class Piece(NamedTuple):
    """A stretch of a file.

    Attributes:
      start, stop: its bytes.
      repair: place, counted from `start` → bytes that are read there instead.
      before: what is read before its first byte.
    """

    start: int
    stop: int
    repair: Mapping[int, bytes]
    before: bytes = b""


class Window(io.RawIOBase):
    """Reads a piece; its first byte is at place 0, and its end is the end."""

    def __init__(self, file: BinaryIO, piece: Piece):
        """Reads `piece` of `file`, which must stay open."""
        super().__init__()
        self._file, self._piece, self._place = file, piece, 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Goes to a place of the piece, which may be after its end."""
        size = self._piece.stop - self._piece.start + len(self._piece.before)
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def tell(self) -> int:
        """The place in the piece."""
        return self._place

    def readinto(self, buffer: Any, /) -> int:
        """Fills a buffer with the next bytes; returns how many there were."""
        view = memoryview(buffer).cast("B")
        start, stop, _, before = self._piece
        content = bytearray(before[self._place :][: len(view)])
        if not content:
            place = self._place - len(before)
            self._file.seek(start + place)
            content += self._file.read(max(0, min(len(view), stop - start - place)))
            self._mend(content, place)
        view[: len(content)] = content
        self._place += len(content)
        return len(content)

    def _mend(self, content: bytearray, place: int) -> None:
        """Puts into the bytes from `place` on what is read there instead."""
        for at, new in self._piece.repair.items():
            for shift, byte in enumerate(new, at - place):
                if 0 <= shift < len(content):
                    content[shift] = byte

"""Files that consist of chunks with a name and a size: WAV, RF64, W64, AIFF and CAF.

    RIFF 96036 WAVE │ fmt  16 … │ data 96000 ▁▂▃… │ LIST 26 …

A program that is killed, or that writes into a pipe, cannot go back to write the sizes.
Then the header says 0, or the largest number, and all samples are there nevertheless.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Literal, NamedTuple

# Larger sizes are placeholders of programs that wrote into a pipe.
UNKNOWN = 0x7F00_0000
_UNKNOWN_64 = 1 << 62
_MOST_CHUNKS = 10_000  # A damaged size may lead to a place with endless zeros.
_W64 = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"


@dataclass(frozen=True)
class Kind:
    """How a kind of file writes its chunks.

    Attributes:
      first: where the first chunk begins.
      name, size: bytes of a chunk's name, and of its size.
      order: byte order of the size.
      samples: the name of the chunk with the samples.
      inclusive: whether the size counts the chunk's header.
      align: chunks begin at multiples of this.
    """

    first: int
    name: int
    size: int
    order: Literal["little", "big"]
    samples: bytes
    inclusive: bool = False
    align: int = 2


KINDS = {
    b"RIFF": Kind(12, 4, 4, "little", b"data"),
    b"RF64": Kind(12, 4, 4, "little", b"data"),
    b"RIFX": Kind(12, 4, 4, "big", b"data"),
    b"FORM": Kind(12, 4, 4, "big", b"SSND"),
    b"caff": Kind(8, 4, 8, "big", b"data", align=1),
    b"riff": Kind(40, 16, 8, "little", b"data" + _W64, inclusive=True, align=8),
}
"""The first four bytes of a file → its kind."""


class Chunks(NamedTuple):
    """Where the samples of a file should end.

    Attributes:
      samples: where they begin.
      end: where they end, by their size; None if that is a placeholder.
      after: where the last chunk ends; the size of the file if `end` is None.
      unfinished: whether their size is 0, or missing, though more follows.
      repair: place → bytes of a header that says where the samples end.
    """

    samples: int
    end: int | None
    after: int
    unfinished: bool
    repair: Mapping[int, bytes]


def read(file: BinaryIO, start: int, size: int) -> Chunks | None:
    """Looks at the chunks of the file that begins at `start`; None without samples.

    Args:
      file: opened to be read.
      start: where the file begins, which may follow another one.
      size: of the whole.

    Raises:
      OSError: the file cannot be read.
    """
    file.seek(start)
    magic = file.read(4)
    kind = KINDS[magic]
    place = start + kind.first
    header = kind.name + kind.size
    sizes = (place - start, kind.size)
    for _ in range(_MOST_CHUNKS):
        if place >= size:
            return None
        name, length = _chunk(file, place, kind)
        if name is None or length is None:
            return None
        if magic == b"RF64" and name == b"ds64":
            sizes = (place + header + 8 - start, 8)
        if name == kind.samples:
            break
        place = _next(place, header, length, kind)
    else:
        return None
    samples = place + header
    limit = UNKNOWN if kind.size == 4 else _UNKNOWN_64
    if magic == b"RF64" and length >= UNKNOWN and sizes[1] == 8:
        file.seek(start + sizes[0])  # It does not fit here; `ds64` has it.
        length, limit = int.from_bytes(file.read(8), kind.order), _UNKNOWN_64
    else:
        sizes = (place + kind.name - start, kind.size)
    rest = size - samples
    if not 0 < length < limit:
        empty = not length and (rest <= 0 or _is_chunk(file, samples, size, kind))
        if empty:
            return Chunks(samples, samples, size, False, {})
        whole = min(rest + header * kind.inclusive, (1 << 8 * sizes[1]) - 1)
        repair = {sizes[0]: whole.to_bytes(sizes[1], kind.order)}
        return Chunks(samples, None, size, not length, repair)
    end = samples + length
    place = _next(samples - header, header, length, kind)
    while place < size and _is_chunk(file, place, size, kind):
        _, length = _chunk(file, place, kind)
        place = _next(place, header, length or 0, kind)
    return Chunks(samples, end, max(min(place, size), min(end, size)), False, {})


def _chunk(
    file: BinaryIO, place: int, kind: Kind
) -> tuple[bytes, int] | tuple[None, None]:
    """The name of a chunk, and how many bytes follow its header."""
    file.seek(place)
    header = file.read(kind.name + kind.size)
    if len(header) < kind.name + kind.size:
        return None, None
    length = int.from_bytes(header[kind.name :], kind.order)
    if kind.inclusive:
        length = max(length - len(header), 0)
    return header[: kind.name], length


def _is_chunk(file: BinaryIO, place: int, size: int, kind: Kind) -> bool:
    """Whether a chunk begins here, and not samples or another file."""
    name, length = _chunk(file, place, kind)
    if name is None or length is None or name[:4] in KINDS:
        return False
    printable = all(32 <= letter < 127 for letter in name[:4]) and name[:1] != b" "
    return printable and place + kind.name + kind.size + length <= size + 1


def _next(place: int, header: int, length: int, kind: Kind) -> int:
    return place + -(-(header + length) // kind.align) * kind.align

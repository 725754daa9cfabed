"""The pages of an Ogg file (RFC 3533): its streams, and whether all of it is there.

A stream begins with a page that is marked as its first and ends with one that is marked
as its last. Streams that sound at once have their first pages together, and their other
pages take turns. Streams that follow each other make a chained file, as recorders of
radio stations write it, and as `cat` does:

    first A | A A A | last A | first B | B B | last B        two links of one stream
    first A  first V | A V V A V | last A  last V            one link of two streams
"""

import os
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

_HEADER = 27
_CONTINUED, _FIRST, _LAST = 1, 2, 4
# The first bytes of a stream that is sound → its name.
_SOUND = {
    b"\x01vorbis": "Vorbis",
    b"OpusHead": "Opus",
    b"\x7fFLAC": "FLAC",
    b"Speex   ": "Speex",
    b"PCM     ": "PCM",
}
_READ_AHEAD = 1 << 18


class _Page(NamedTuple):
    """A page: where it begins and ends, its marks, stream, number and first bytes."""

    start: int
    stop: int
    marks: int
    serial: int
    number: int
    beginning: bytes


@dataclass
class Link:
    """Streams that begin together.

    Attributes:
      start, stop: where their pages are in the file.
      sounds: serial number → kind, of those that are sound.
      ended: serial numbers of streams whose last page was seen.
      next_number: serial number → number of its next page.
      missing: how many pages are missing between others.
    """

    start: int
    stop: int
    sounds: dict[int, str] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    next_number: dict[int, int] = field(default_factory=dict)
    missing: int = 0

    def add(self, page: _Page) -> None:
        """Enters a page that belongs to this link."""
        self.stop = page.stop
        if page.marks & _FIRST:
            kinds = (k for b, k in _SOUND.items() if page.beginning.startswith(b))
            if kind := next(kinds, None):
                self.sounds[page.serial] = kind
        expected = self.next_number.get(page.serial, page.number)
        if page.serial in self.sounds and page.number > expected:
            self.missing += page.number - expected
        self.next_number[page.serial] = page.number + 1
        if page.marks & _LAST:
            self.ended.add(page.serial)


class Pages(NamedTuple):
    """What the pages of a file say.

    Attributes:
      links: in the order of the file.
      whole: whether the last page is complete.
      other: bytes between and after the pages.
    """

    links: list[Link]
    whole: bool
    other: int


def scan(file: BinaryIO, start: int) -> Pages:
    """Looks at the headers of all pages from byte `start` on.

    Raises:
      OSError: the file cannot be read.
    """
    links: list[Link] = []
    size = os.fstat(file.fileno()).st_size
    place, other, whole, opening = start, 0, True, False
    buffer, base = b"", start
    while place < size:
        if not base <= place <= base + len(buffer) - _HEADER - 255 - 16:
            file.seek(place)
            buffer, base = file.read(_READ_AHEAD), place
        page = _page(buffer, place - base, place)
        if page is None:
            found = buffer.find(b"OggS\0", place - base + 1)
            after = base + (found if found > 0 else max(len(buffer) - 4, 1))
            after = size if found < 0 and base + len(buffer) >= size else after
            after = max(after, place + 1)
            other += after - place
            place = after
            continue
        if page.stop > size:
            whole = False
            break
        if page.marks & _FIRST and not opening:
            links.append(Link(page.start, page.stop))
        opening = bool(page.marks & _FIRST)
        if not links:  # A recording that began in the middle.
            links.append(Link(page.start, page.stop))
        links[-1].add(page)
        place = page.stop
    return Pages(links, whole, other)


def _page(buffer: bytes, at: int, place: int) -> _Page | None:
    """The page at `at` of the buffer, which is byte `place` of the file."""
    header = buffer[at : at + _HEADER]
    if header[:5] != b"OggS\0":
        return None
    if len(header) < _HEADER:
        return _Page(place, 1 << 62, 0, 0, 0, b"")  # Its header is cut off.
    body = at + _HEADER + header[26]
    length = sum(buffer[at + _HEADER : body])
    return _Page(
        start=place,
        stop=place + body - at + length,
        marks=header[5],
        serial=int.from_bytes(header[14:18], "little"),
        number=int.from_bytes(header[18:22], "little"),
        beginning=buffer[body : body + 16],
    )

"""The frames of an MP3, and the index that its first frame may hold.

The index (`Xing` or `Info`) says how many frames and bytes the song has. Decoders stop
there. What follows was appended later: another song by `cat`, or an advertisement by
the host of a podcast.
"""

import itertools
import os
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

# kbit/s by index, for version 1 layers 1, 2, 3 and version 2 layers 1, 2 and 3.
_RATES = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SAMPLE_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000)}
_SAMPLE_RATES[0] = (11_025, 12_000, 8_000)
# Where the index may begin in a frame: after the header, an optional checksum, and side
# information of 9, 17 or 32 bytes, by MPEG version and number of channels.
_XING = (13, 15, 21, 23, 36, 38)
_BUFFER = 1 << 20
_MOST_JUNK = 1 << 20  # Bytes between frames; with more of them it is no MP3.


class Index(NamedTuple):
    """What the first frame says of the song; None if it does not say it.

    Attributes:
      frames: how many there are, without the one of the index.
      bytes: how many there are, with the frame of the index.
    """

    frames: int | None
    bytes: int | None


def frame_length(header: bytes) -> int | None:
    """Bytes of the frame that begins with these four bytes; None if none does.

    Frames of a free bit rate, which hardly any program writes, are not recognised.
    """
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    rate, sampling, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or rate in (0, 15) or sampling == 3:
        return None
    first = version == 3
    bits = _RATES[1 if first else 2, layer][rate - 1] * 1000
    sample_rate = _SAMPLE_RATES[version][sampling]
    if layer == 1:
        return (12 * bits // sample_rate + padding) * 4
    return (144 if first or layer == 2 else 72) * bits // sample_rate + padding


def index(frame: bytes) -> Index | None:
    """The index in a frame; None if it has none."""
    places = (p for p in _XING if frame[p : p + 4] in (b"Xing", b"Info"))
    place = next(places, None)
    if frame[:1] != b"\xff" or place is None:
        return None
    flags = int.from_bytes(frame[place + 4 : place + 8], "big")
    numbers = [
        int.from_bytes(frame[place + 8 + 4 * n : place + 12 + 4 * n], "big")
        for n in range(2)
    ]
    return Index(
        frames=numbers[0] if flags & 1 else None,
        bytes=numbers[flags & 1] if flags & 2 else None,
    )


def begin_at(file: BinaryIO, place: int, frames: int) -> bool:
    """Whether so many MPEG frames follow each other from `place` on."""
    for _ in range(frames):
        file.seek(place)
        length = frame_length(file.read(4))
        if length is None:
            return False
        place += length
    return True


def headers(file: BinaryIO, start: int) -> Iterator[tuple[int, bytes]]:
    """Where each frame ends, and its first four bytes.

    Junk between frames is skipped, as decoders do.

    Raises:
      OSError: the file cannot be read.
    """
    size = os.fstat(file.fileno()).st_size
    buffer, base, place, junk = b"", start, start, 0
    while place + 4 <= size and junk <= _MOST_JUNK:
        if place + 4 > base + len(buffer):
            file.seek(place)
            buffer, base = file.read(_BUFFER), place
        at = place - base
        header = buffer[at : at + 4]
        length = frame_length(header)
        if length is None:
            found = buffer.find(b"\xff", at + 1)
            skipped = (found if found > 0 else len(buffer)) - at
            place, junk = place + skipped, junk + skipped
            continue
        place += length
        if place <= size:
            yield place, header


def after_frames(file: BinaryIO, start: int, frames: int) -> int | None:
    """Where so many frames end, counted from the one at `start`; None if it has fewer.

    Raises:
      OSError: the file cannot be read.
    """
    ends = itertools.islice(headers(file, start), frames - 1, None)
    return next((end for end, _ in ends), None)


def index_for(file: BinaryIO, start: int) -> bytes | None:
    """A frame with the index that a song of changing bit rate lacks.

    Without it decoders take the bit rate of the first frame for that of all, and the
    song for shorter or longer than it is.

    Returns:
      The frame, to be put before the one at `start`; None if all have one bit rate, or
      the file is no MP3.

    Raises:
      OSError: the file cannot be read.
    """
    if not begin_at(file, start, 3):
        return None
    first, rates, count, place = b"", set(), 0, start
    for end, header in headers(file, start):
        first, place = first or header, end
        rates.add(header[2] >> 4)
        count += 1
    whole = place + _MOST_JUNK > os.fstat(file.fileno()).st_size
    if len(rates) < 2 or not whole or first[1] >> 1 & 3 != 1:  # It is for layer 3 only.
        return None
    # Of the highest bit rate, so that there is room, and without a checksum.
    header = bytes([first[0], first[1] | 1, 14 << 4 | first[2] & 0x0C, first[3]])
    version_1, mono = header[1] >> 3 & 3 == 3, header[3] >> 6 == 3
    side = (17 if mono else 32) if version_1 else (9 if mono else 17)
    text = b"Xing" + (1).to_bytes(4, "big") + count.to_bytes(4, "big")
    frame = header + bytes(side) + text
    return frame.ljust(frame_length(header) or 0, b"\0")

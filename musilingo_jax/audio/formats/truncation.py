"""Detects sound files whose end is missing, as far as their format allows.

Decoders return what they find and do not complain. But a header gives the size of the
samples (WAV, AIFF, AU; MP3 with a Xing index), or the last page of an Ogg stream is
marked as the last. An MP3 without an index cannot be checked. The readers of FLAC and
NumPy files count samples themselves.
"""

from pathlib import Path
from typing import BinaryIO

# Larger sizes are placeholders of programs that wrote into a pipe.
_UNKNOWN = 0x7F00_0000
_MOST_CHUNKS = 10_000  # A damaged size may lead to a place with endless zeros.
_LARGEST_OGG_PAGE = 65_307
# Tag editors do not always correct the index, so it may be wrong by this many bytes.
_MP3_SLACK = 8_192
# Where the index may begin in a frame: after the header, an optional checksum, and side
# information of 9, 17 or 32 bytes, by MPEG version and number of channels.
_XING = (13, 15, 21, 23, 36, 38)


def missing(path: Path) -> str | None:
    """Evidence that the file ends too early, or None.

    Raises:
      OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4096)
        match head[:4]:
            case b"RIFF" | b"RF64" | b"RIFX" | b"FORM":
                promised = _end_of_samples(file, head, size)
            case b".snd" | b"dns.":
                order = "big" if head[:1] == b"." else "little"
                start, count = (int.from_bytes(head[i : i + 4], order) for i in (4, 8))
                promised = start + count if count < _UNKNOWN else None
            case b"OggS":
                return _unfinished_ogg(file, size)
            case _:
                promised = _end_of_mp3(file, head)
    if promised is None or promised <= size:
        return None
    return f"it has {size:,} bytes of {promised:,}"


def after_id3(head: bytes) -> int:
    """Where an ID3v2 tag at the beginning of a file ends; 0 without a tag.

    Its size is stored with seven bits per byte, so that it never looks like sound.
    """
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size


def _end_of_samples(file: BinaryIO, head: bytes, size: int) -> int | None:
    """Where the samples of a WAV or AIFF should end, by the size of their chunk."""
    order = "big" if head[:4] in (b"RIFX", b"FORM") else "little"
    place = 12
    for _ in range(_MOST_CHUNKS):
        file.seek(place)
        header = file.read(8)
        if len(header) < 8:
            break
        length = int.from_bytes(header[4:], order)
        if header[:4] in (b"data", b"SSND"):
            if head[:4] == b"RF64":  # The size does not fit here; `ds64` has it.
                length = int.from_bytes(head[28:36], "little")
            elif length >= _UNKNOWN:
                return None
            return place + 8 + length
        place += 8 + length + length % 2
    return None


def _unfinished_ogg(file: BinaryIO, size: int) -> str | None:
    """Whether the last page is complete and marked as the last one (RFC 3533)."""
    file.seek(max(0, size - 2 * _LARGEST_OGG_PAGE))
    end = file.read()
    place = end.rfind(b"OggS\0")
    if place < 0:
        return "there is no Ogg page near its end"
    page = end[place:]
    lengths = page[27 : 27 + page[26]] if len(page) > 26 else b""
    whole = len(page) > 26 and len(page) >= 27 + page[26] + sum(lengths)
    if not whole:
        return "its last Ogg page is incomplete"
    return None if page[5] & 4 else "its last Ogg page does not end the stream"


def _end_of_mp3(file: BinaryIO, head: bytes) -> int | None:
    """Where an MP3 should end, by the index in its first frame, if it has one."""
    start = after_id3(head)
    file.seek(start)
    frame = file.read(256)
    places = (p for p in _XING if frame[p : p + 4] in (b"Xing", b"Info"))
    place = next(places, None)
    if frame[:1] != b"\xff" or place is None:
        return None
    flags = int.from_bytes(frame[place + 4 : place + 8], "big")
    if not flags & 2:
        return None
    place += 8 + 4 * (flags & 1)  # After the number of frames, if that is stored.
    return start + int.from_bytes(frame[place : place + 4], "big") - _MP3_SLACK

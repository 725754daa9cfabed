"""The pieces of a file that are heard one after the other, each a file of its own.

Most files are one piece. But whoever joins songs with `cat`, or records a radio
station, gets a file with several, of which decoders read the first one only:

    OggS … last page │ OggS … last page │          chained Ogg
    ID3 Xing … frames │ frames …                   MP3 with something appended
    RIFF … │ RIFF …                                also FLAC, AIFF, AU, CAF and W64

What is missing at the end of the last piece, and what follows it, is noted too. An MP3
without an index does not tell its end. FLAC's decoder counts samples itself.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from musilingo_jax.audio.formats import chunked_files, mpeg_frames, ogg_pages
from musilingo_jax.audio.formats.mpeg_frames import Index
from musilingo_jax.audio.formats.window import Piece
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import open_regular_file

# FLAC's first block is always of this kind and size, and may be the last one.
_FLAC = (b"fLaC\0\0\0\x22", b"fLaC\x80\0\0\x22")
# Tag editors do not always correct the index, so it may be wrong by this many bytes.
_MP3_SLACK = 8_192
_MP3_TAG = 128  # Bytes of the tag at the end of many an MP3.
# Fewer frames after those that the index counts are a mistake of the encoder.
_MP3_FRAMES = 8
_TAGS = (b"TAG", b"APETAGEX", b"ID3", b"LYRICSBEGIN", b"3DI")
_FEW_BYTES = 512  # Less than can be heard.
_MOST_PIECES = 1_000  # Each has a decoder of its own, which takes memory.
_SCAN = 1 << 22


@dataclass
class Contents:
    """What a file consists of.

    Attributes:
      pieces: at least one.
      after: where what belongs to the pieces ends, chunks with tags included.
      missing: the share of the last piece that is missing, by the sizes in its header.
      cut: what is missing, as a clause; None if nothing is.
      damaged: what makes the file unusable; None if nothing does.
      notices: what the listener should know.
    """

    pieces: list[Piece] = field(default_factory=list)
    after: int = 0
    missing: float = 0.0
    cut: str | None = None
    damaged: str | None = None
    notices: list[str] = field(default_factory=list)


def find(path: Path) -> Contents:
    """Looks at the headers of a file.

    Raises:
      UserError: it holds several streams of sound at once, or too many songs.
      OSError: it cannot be read.
    """
    with open_regular_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(16)
        contents = Contents()
        if head[:4] == b"OggS":
            _ogg(path, file, contents)
        elif head[:4] in chunked_files.KINDS:
            _chunks(file, size, contents)
        elif head[:4] in (b".snd", b"dns."):
            _au(file, size, contents)
        elif head[:8] in _FLAC:
            _flac(file, size, contents)
        else:
            _mp3(file, size, contents)
        last = contents.pieces[-1].stop if contents.pieces else size
        contents.pieces = contents.pieces or [Piece(0, size, {})]
        if last < size and (rest := _rest(file, max(last, contents.after), size)):
            contents.notices.append(rest)
    if len(contents.pieces) > 1:
        count = len(contents.pieces)
        if count > _MOST_PIECES:
            raise UserError(
                f"{path}: holds more than {_MOST_PIECES:,} songs one after the other; "
                "split it"
            )
        contents.notices.append(
            f"holds {count} songs one after the other, which are taken as one"
        )
    return contents


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


def _ogg(path: Path, file: BinaryIO, contents: Contents) -> None:
    pages = ogg_pages.scan(file, 0)
    for link in pages.links:
        if len(link.sounds) > 1:
            kinds = " and ".join(link.sounds.values())
            raise UserError(
                f"{path}: holds {len(link.sounds)} streams of sound at once ({kinds}), "
                "so which one is meant is unclear; take one out, as by `ffmpeg -i "
                "… -map 0:a:0 song.flac`"
            )
        contents.pieces.append(Piece(link.start, link.stop, {}))
        if link.missing:
            contents.damaged = (
                f"damaged: {link.missing} of its Ogg pages are missing between others"
            )
    if not pages.links:
        contents.damaged = "damaged: no page of it is whole"
    elif not pages.whole:
        contents.damaged = "cut off: its last Ogg page is incomplete"
    elif not pages.links[-1].sounds.keys() <= pages.links[-1].ended:
        contents.notices.append(
            "does not mark its last Ogg page as the last, as if it went on: the end "
            "may be missing"
        )
    if pages.other:
        contents.notices.append(
            f"has {pages.other:,} bytes between its Ogg pages that are not sound"
        )


def _chunks(file: BinaryIO, size: int, contents: Contents) -> None:
    place = 0
    for _ in range(_MOST_PIECES + 1):
        found = chunked_files.read(file, place, size)
        if found is None:
            return
        # libsndfile takes all that follows the header of a W64 for samples.
        stop = found.after
        if found.end is not None and _magic(file, place) == b"riff":
            stop = min(found.end, size)
        contents.pieces.append(Piece(place, stop, found.repair))
        if found.unfinished:
            contents.notices.append(
                "has a header that was never finished: it says 0 bytes of sound, but "
                f"{size - found.samples:,} follow, which are taken for it"
            )
        if found.end is not None and found.end > size:
            _cut(contents, size - found.samples, found.end - found.samples)
        place = contents.after = found.after
        if _magic(file, place) not in chunked_files.KINDS:
            return


def _magic(file: BinaryIO, place: int) -> bytes:
    file.seek(place)
    return file.read(4)


def _au(file: BinaryIO, size: int, contents: Contents) -> None:
    place = 0
    for _ in range(_MOST_PIECES + 1):
        file.seek(place)
        head = file.read(16)
        if head[:4] not in (b".snd", b"dns."):
            return
        order = "big" if head[:1] == b"." else "little"
        start, count = (int.from_bytes(head[i : i + 4], order) for i in (4, 8))
        if count >= chunked_files.UNKNOWN or not count:
            rest = size - place - start
            contents.pieces.append(
                Piece(place, size, {8: min(rest, 2**32 - 1).to_bytes(4, order)})
                if rest > 0
                else Piece(place, size, {})
            )
            if not count and rest > 0:
                contents.notices.append(
                    "has a header that was never finished: it says 0 bytes of sound, "
                    f"but {rest:,} follow, which are taken for it"
                )
            return
        if place + start + count > size:
            _cut(contents, size - place - start, count)
        contents.pieces.append(Piece(place, min(size, place + start + count), {}))
        place += start + count


def _cut(contents: Contents, found: int, promised: int) -> None:
    contents.cut = f"its sound has {max(found, 0):,} bytes of {promised:,}"
    contents.missing = 1 - max(found, 0) / promised


def _flac(file: BinaryIO, size: int, contents: Contents) -> None:
    starts, place, kept = [], 0, b""
    file.seek(0)
    while block := file.read(_SCAN):
        block = kept + block
        for magic in _FLAC:
            found = block.find(magic)
            while found >= 0:
                starts.append(place - len(kept) + found)
                found = block.find(magic, found + 1)
        place += len(block) - len(kept)
        kept = block[-7:]
    stops = [*sorted(starts)[1:], size]
    contents.pieces = [
        Piece(a, b, {}) for a, b in zip(sorted(starts), stops, strict=True)
    ]


def _mp3(file: BinaryIO, size: int, contents: Contents) -> None:
    place = 0
    for _ in range(_MOST_PIECES + 1):
        file.seek(place)
        start = place + after_id3(file.read(10))
        file.seek(start)
        frame = file.read(256)
        index = mpeg_frames.index(frame)
        stop = size if index is None else _end_of_mp3(file, start, size, index)
        if not _sound_follows(file, stop):
            stop = size  # Tags, which decoders know.
        if (
            index is not None
            and index.bytes
            and start + index.bytes > size + _MP3_SLACK
        ):
            _cut(contents, size - start, index.bytes)
        before = b""
        if index is None or not index.frames:
            before = mpeg_frames.index_for(file, start) or b""
        contents.pieces.append(Piece(start if before else place, stop, {}, before))
        if stop == size:
            return
        place = stop


def _end_of_mp3(file: BinaryIO, start: int, size: int, index: Index) -> int:
    """Where decoders stop, who count the frames of the index and one for itself."""
    if not index.frames or (index.bytes and start + index.bytes + _MP3_TAG >= size):
        return size
    return mpeg_frames.after_frames(file, start, index.frames + 1) or size


def _sound_follows(file: BinaryIO, place: int) -> bool:
    """Whether MPEG frames follow, after a tag perhaps."""
    file.seek(place)
    start = place + after_id3(file.read(10))
    return mpeg_frames.begin_at(file, start, _MP3_FRAMES)


def _rest(file: BinaryIO, place: int, size: int) -> str | None:
    """What is known of the bytes after the last piece; None for tags and zeros."""
    file.seek(place)
    beginning = file.read(1 << 16)
    few = size - place < _FEW_BYTES
    if few or beginning.startswith(_TAGS) or not any(beginning):
        return None
    return (
        f"has {size - place:,} bytes after the end of its sound, by its header, which "
        "are not heard"
    )

"""The record, which every corpus is reduced to: a text about a stretch of sound."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from musilingo_jax.runtime.paths import stat_regular_file

_END = 1 << 16  # bytes of each end of a sound file that its clip id depends on
_STRETCH = re.compile(r"(?:@\d*-\d*ms)?(#\d+Hz)?\Z")
_CONTENTS = re.compile(r":(\d+:[0-9a-f]{16})(?:@\d*-\d*ms)?(?:#\d+Hz)?\Z")

# Suffixes of sound files, in order of preference if a song exists in several formats. A
# `.npy` comes last because it does not state its sampling rate.
SUFFIXES = (
    ".wav",
    ".flac",
    ".aiff",
    ".aif",
    ".mp3",
    ".ogg",
    ".oga",
    ".opus",
    ".m4a",
    ".aac",
    ".wma",
    ".webm",
    ".npy",
)


@dataclass(frozen=True, slots=True)
class Record:
    """A question and its answer, or a caption, about one clip.

    Attributes:
      audio: the sound file.
      clip: identifies the clip: the file's path relative to the corpus, its size and a
        digest of both its ends, and the stretch of it. If the file is replaced, it is
        another clip.
      question: what is asked; "" if the answer is a caption.
      answer: the reference answer; "" if it is unknown, as for a folder of songs.
      split: the part of the corpus that the record belongs to.
      attribute: what the question is about, such as "tempo"; None if unknown.
      value: the attribute's true value, such as "fast"; None if unknown.
      start: second of the file where the clip starts; None for the file's start.
      end: second of the file where it ends; None for the file's end.
      rate: samples per second of a `.npy`; None for files that state it themselves.
      corpus: the corpus of a mixture that the record comes from; "" if there is one.
    """

    audio: Path
    clip: str
    question: str
    answer: str
    split: str
    attribute: str | None
    value: str | None
    start: float | None = None
    end: float | None = None
    rate: int | None = None
    corpus: str = ""


def clip_id(
    audio: Path,
    folder: Path,
    *,
    start: float | None = None,
    end: float | None = None,
    rate: int | None = None,
) -> str:
    """Identifies a stretch of a sound file by its content, without reading all of it.

        songs/a.ogg:160291:0d5b57a1a2b3c4d5                all of it
        -0Gj8-vB1q4.wav:48044:1f2e3d4c5b6a7980@30000-40000ms
        -0Gj8-vB1q4.npy:3528128:0d5b57a1a2b3c4d5#44100Hz

    The path is relative to `folder`, so a corpus may be moved. Modification times are
    not part of it, because copying changes them.

    Args:
      audio: the sound file.
      folder: of the corpus.
      start: as in `Record`.
      end: as in `Record`.
      rate: as in `Record`.

    Raises:
      OSError: the file cannot be read, or is not a regular file.
    """
    name = Path(os.path.relpath(audio, folder)).as_posix()
    found = f"{name}:{contents(audio)}"
    if start is not None or end is not None:
        found += f"@{_milliseconds(start)}-{_milliseconds(end)}ms"
    return found if rate is None else f"{found}#{rate}Hz"


def contents(audio: Path) -> str:
    """The part of a clip id that is about content: the size and a digest of both ends.

    Raises:
      OSError: as in `clip_id`.
    """
    status = stat_regular_file(audio)
    with audio.open("rb") as file:
        ends = file.read(_END)
        file.seek(max(0, status.st_size - _END))
        ends += file.read(_END)
    return f"{status.st_size}:{hashlib.sha256(ends).hexdigest()[:16]}"


def contents_of(clip: str) -> str | None:
    """The part of a clip id that `contents` returns; None if there is no such part."""
    found = _CONTENTS.search(clip)
    return found and found[1]


def stretch_id(clip: str, start: float, end: float) -> str:
    """The id of another stretch of a clip's file.

    Args:
      clip: the clip.
      start: of the stretch, in seconds of the file.
      end: of it.
    """
    found = _STRETCH.search(clip)
    assert found is not None  # It may be empty.
    stretch = f"@{_milliseconds(start)}-{_milliseconds(end)}ms"
    return clip[: found.start()] + stretch + (found[1] or "")


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else str(round(1000 * seconds))

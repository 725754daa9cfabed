"""What every corpus comes down to: something to say about a stretch of sound."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from musilingo_jax.runtime.paths import stat_regular_file

_END = 1 << 16  # bytes of each end of a sound file that its clip id depends on
_CONTENTS = re.compile(r":(\d+:[0-9a-f]{16})(?:@\d*-\d*ms)?(?:#\d+Hz)?\Z")

# Kinds of sound file, the one to take first where a song is there in several. A `.npy`
# comes last because it does not know its own sampling rate.
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
    """One thing to say about one song.

    Attributes:
      audio: the sound file.
      clip: identifies what is heard: the file's path relative to the corpus, its size
        and a digest of both its ends, and the stretch of it. A file that is replaced is
        another clip.
      question: what is asked; "" where the answer is a caption.
      answer: what should be said; "" where nobody knows, as for a folder of songs.
      split: the part of the corpus that the record belongs to.
      attribute: what the question is about, such as "tempo", where that is known.
      value: its true value, such as "fast".
      start: second of the file where the clip starts; None for the file's start.
      end: second of the file where it ends; None for the file's end.
      rate: samples per second of a `.npy`; None for files that know it themselves.
      corpus: which corpus of a mixture it comes from; "" where there is only one.
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
    """Identifies a stretch of a sound file by what it holds, cheaply.

        songs/a.ogg:160291:0d5b57a1a2b3c4d5                all of it
        -0Gj8-vB1q4.wav:48044:1f2e3d4c5b6a7980@30000-40000ms
        -0Gj8-vB1q4.npy:3528128:0d5b57a1a2b3c4d5#44100Hz

    The path is relative to `folder`, so that a corpus may move; times of change are
    left out, for they do not survive copying.

    Raises:
      OSError: the file cannot be read, or is none, but a named pipe for example.
    """
    name = Path(os.path.relpath(audio, folder)).as_posix()
    found = f"{name}:{contents(audio)}"
    if start is not None or end is not None:
        found += f"@{_milliseconds(start)}-{_milliseconds(end)}ms"
    return found if rate is None else f"{found}#{rate}Hz"


def contents(audio: Path) -> str:
    """What a clip id says of a file's contents: its size and a digest of its ends.

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
    """The part of a clip id that `contents` makes; None if it has none."""
    found = _CONTENTS.search(clip)
    return found and found[1]


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else str(round(1000 * seconds))

"""The files that clips are heard from, if they still are what the corpus knows."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from musilingo_jax.audio import waveforms
from musilingo_jax.corpora import records
from musilingo_jax.runtime.errors import UserError


class Clip(NamedTuple):
    """A song to encode.

    Attributes:
      id: tells these contents of the file, and this stretch of it, from others.
      path: the file.
      start, end: seconds of the file; None for all of it.
      rate: samples per second of an `.npy`.
    """

    id: str
    path: Path
    start: float | None = None
    end: float | None = None
    rate: int | None = None


class Unavailable(UserError):
    """A file could not be had, which says nothing of the clip that it should hold."""


def is_at_hand(clip: Clip) -> bool:
    """Whether the clip's file is there, and still what its id says."""
    try:
        check_file(clip)
    except Unavailable:
        return False
    return True


def check_file(clip: Clip) -> None:
    """That the clip's file is there, and still what its id says.

    Raises:
      Unavailable: it is not.
    """
    try:
        found = records.contents(clip.path)
    except FileNotFoundError as error:
        raise Unavailable(f"{clip.path}: there is no such file") from error
    except OSError as error:
        reason = error.strerror or error
        raise Unavailable(f"{clip.path}: cannot be read: {reason}") from error
    if records.contents_of(clip.id) not in (None, found):
        raise Unavailable(
            f"{clip.path}: has changed since the corpus was read; build or load the "
            "corpus again"
        )


def hear(clip: Clip, sample_rate: int) -> Iterator[waveforms.Block]:
    """What is heard, if it is what the clip's id says from the first to the last.

    Raises:
      UserError: as in `audio.read`; `Unavailable` if that is no fault of the sound's.
    """
    check_file(clip)
    try:
        yield from waveforms.read(
            clip.path,
            sample_rate=sample_rate,
            npy_rate=clip.rate,
            start=clip.start,
            end=clip.end,
        )
    except UserError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno is not None:
            raise Unavailable(str(error)) from error
        check_file(clip)
        raise
    check_file(clip)

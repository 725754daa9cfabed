"""Clips and their files, which may be missing or changed by the time they are read."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from musilingo_jax.audio import waveforms
from musilingo_jax.audio.level import Block, Tell
from musilingo_jax.corpora import records
from musilingo_jax.runtime.errors import UserError


class Clip(NamedTuple):
    """A stretch of a sound file to encode.

    Attributes:
      id: identifies the contents of the file, and the stretch.
      path: the file.
      start, end: the stretch, in seconds; None for the file's own ends.
      rate: samples per second of an `.npy`.
    """

    id: str
    path: Path
    start: float | None = None
    end: float | None = None
    rate: int | None = None


class Unavailable(UserError):
    """A clip's file is missing, unreadable or changed; the clip itself may be fine."""


def is_available(clip: Clip) -> bool:
    """Whether the clip's file exists and has the contents that its id names."""
    try:
        check_file(clip)
    except Unavailable:
        return False
    return True


def check_file(clip: Clip) -> None:
    """Checks that the clip's file exists and has the contents that its id names.

    Raises:
      Unavailable: it does not.
    """
    try:
        contents = records.contents(clip.path)
    except FileNotFoundError as error:
        raise Unavailable(f"{clip.path}: there is no such file") from error
    except OSError as error:
        reason = error.strerror or error
        raise Unavailable(f"{clip.path}: cannot be read: {reason}") from error
    if records.contents_of(clip.id) not in (None, contents):
        raise Unavailable(
            f"{clip.path}: has changed since the corpus was read; build or load the "
            "corpus again"
        )


def read(clip: Clip, sample_rate: int, tell: Tell) -> Iterator[Block]:
    """The clip's waveform in blocks, if its file does not change while it is read.

    Args:
      clip: the clip.
      sample_rate: samples per second of the result.
      tell: as in `waveforms.read`.

    Raises:
      UserError: as in `waveforms.read`; `Unavailable` if the file is the reason.
    """
    check_file(clip)
    try:
        yield from waveforms.read(
            clip.path,
            sample_rate=sample_rate,
            npy_rate=clip.rate,
            start=clip.start,
            end=clip.end,
            tell=tell,
        )
    except UserError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno is not None:
            raise Unavailable(str(error)) from error
        check_file(clip)
        raise
    check_file(clip)

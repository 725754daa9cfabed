"""Files that libsndfile decodes: WAV, AIFF, AU, FLAC, Ogg Vorbis, Opus, MP3, more."""

import contextlib
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import soundfile
from jaxtyping import Float

from musilingo_jax.audio.formats import pieces
from musilingo_jax.audio.formats.pieces import Contents
from musilingo_jax.audio.formats.sound import (
    Mixer,
    Sound,
    block_frames,
    check,
    check_start,
)
from musilingo_jax.audio.formats.window import Piece, Window
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import open_regular_file

# libsndfile's code for files of an unknown format (SF_ERR_UNRECOGNISED_FORMAT).
_UNRECOGNISED = 1
# More frames than a file can have: FLAC that was written into a pipe has no number.
_UNKNOWN_FRAMES = 1 << 50
# So much may be missing at the end. Encoders promise up to 0.13 s more than they wrote.
_MISSING_SECONDS = 0.2


class Unreadable(Exception):
    """libsndfile cannot open the file; `reason` is None if the format is unknown."""

    def __init__(self, reason: str | None):
        super().__init__(reason)
        self.reason = reason


class _Forwards(soundfile.SoundFile):
    """Reads without seeking.

    The library seeks after each read, to where it already is. That empties the bit
    reservoir of an MP3, which loses its next frames, and costs time elsewhere.
    """

    def seekable(self) -> bool:
        return False


def open_file(path: Path, skip: int) -> Sound:
    """Opens a file, leaving out its first `skip` seconds.

    Raises:
      Unreadable: the header cannot be read.
      UserError: the header has impossible values, or the file is cut off, or holds
        several streams of sound at once.
      OSError: it cannot be read.
    """
    contents = pieces.find(path)
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(open_regular_file(path))
        files = [stack.enter_context(_open(raw, piece)) for piece in contents.pieces]
        rate = files[0].samplerate
        for file in files:
            check(path, rate=file.samplerate, channels=file.channels)
        if len(rates := {file.samplerate for file in files}) > 1:
            raise UserError(
                f"{path}: holds {len(files)} songs one after the other with different "
                f"sample rates ({', '.join(map(str, sorted(rates)))}); split it"
            )
        if contents.damaged:
            raise UserError(f"{path}: {contents.damaged}; get or export it again")
        _check_end(path, contents, files[-1].frames / rate)
        seconds = sum(file.frames for file in files) / rate
        check_start(path, seconds=seconds, skip=skip)
        return Sound(
            rate,
            _blocks(path, stack.pop_all(), files, skip, contents.notices),
            contents.notices,
        )


def _open(raw: BinaryIO, piece: Piece) -> soundfile.SoundFile:
    """Opens a piece, or the whole file by its descriptor, which is faster.

    Either way the name of the file does not decide its format.

    Raises:
      Unreadable: the header cannot be read.
    """
    size = os.fstat(raw.fileno()).st_size
    whole = piece == Piece(0, size, {})
    try:
        if whole:
            return _Forwards(raw.fileno(), closefd=False)
        return _Forwards(cast(BinaryIO, Window(raw, piece)))
    except soundfile.LibsndfileError as error:
        if error.code == _UNRECOGNISED:
            raise Unreadable(None) from error
        reason = error.error_string.strip(" .:")
        raise Unreadable(f"damaged ({reason})" if reason else "damaged") from error


def _check_end(path: Path, contents: Contents, seconds: float) -> None:
    """Checks how much is missing at the end, by the sizes in the header.

    Args:
      path: the file.
      contents: what the header says.
      seconds: how long the last piece is, by what libsndfile makes of it.

    Raises:
      UserError: more than a moment is missing.
    """
    if contents.cut is None:
        return
    missing = seconds * contents.missing / max(1 - contents.missing, 1e-9)
    if missing > _MISSING_SECONDS or not seconds:
        raise UserError(f"{path}: cut off: {contents.cut}; get or export it again")
    contents.notices.append(f"lacks {1000 * missing:.1f} ms at its end: {contents.cut}")


def _blocks(
    path: Path,
    stack: contextlib.ExitStack,
    files: list[soundfile.SoundFile],
    skip: int,
    notices: list[str],
) -> Generator[Float[np.ndarray, " frames"], None, None]:
    mixer = Mixer(notices)
    rate = files[0].samplerate
    first, done = skip * rate, 0
    with stack:
        stack.callback(mixer.finish)
        for file in files:
            began = done
            size = block_frames(rate, file.channels)
            if first and len(files) == 1 and file.format != "MP3":
                with _damage_named(path, file, 0):
                    done = file.seek(first)
            while True:
                with _damage_named(path, file, done - began):
                    block = file.read(size, "float32", always_2d=True)
                if not len(block):
                    break
                wanted = block[max(0, first - done) :]
                done += len(block)
                if len(wanted):
                    yield mixer.mix(wanted)
            if notice := _missing(path, file, done - began):
                notices.append(notice)


@contextlib.contextmanager
def _damage_named(path: Path, file: soundfile.SoundFile, done: int) -> Iterator[None]:
    """Raises a `UserError` for what libsndfile raises after `done` frames."""
    try:
        yield
    except soundfile.LibsndfileError as error:
        rate = file.samplerate
        raise UserError(
            f"{path}: damaged after {done / rate:.1f} s of {file.frames / rate:.1f} s; "
            "get or export it again"
        ) from error


def _missing(path: Path, file: soundfile.SoundFile, done: int) -> str | None:
    """What a file promised and did not decode to, if it is only a moment.

    Raises:
      UserError: it is more.
    """
    rate, least = file.samplerate, file.frames
    if file.format == "MP3":  # Without an index this is an estimate.
        least = 0.98 * least - 0.1 * rate
    missing = least - done
    if missing <= 0 or least >= _UNKNOWN_FRAMES:
        return None
    if missing > _MISSING_SECONDS * rate:
        raise UserError(
            f"{path}: cut off after {done / rate:.1f} s of {file.frames / rate:.1f} s, "
            "or damaged inside; get or export it again"
        )
    return (
        f"promises {1000 * missing / rate:.1f} ms more than the {done / rate:.1f} s "
        "that it decodes to: they are missing at its end, or inside"
    )

"""Files that libsndfile decodes: WAV, AIFF, AU, FLAC, Ogg Vorbis, Opus, MP3, more."""

from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
from jaxtyping import Float

from musilingo_jax.audio.formats import truncation
from musilingo_jax.audio.formats.sound import Sound, block_frames, check, check_start
from musilingo_jax.runtime.errors import UserError

# libsndfile's code for files of an unknown format (SF_ERR_UNRECOGNISED_FORMAT).
_UNRECOGNISED = 1
# More frames than a file can have: FLAC that was written into a pipe has no number.
_UNKNOWN_FRAMES = 1 << 50


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
      UserError: the header has impossible values, or the file is cut off.
    """
    raw = path.open("rb")
    try:
        # By its descriptor, so that the name of the file does not decide its format.
        file = _Forwards(raw.fileno(), closefd=False)
    except soundfile.LibsndfileError as error:
        raw.close()
        if error.code == _UNRECOGNISED:
            raise Unreadable(None) from error
        reason = error.error_string.strip(" .:")
        raise Unreadable(f"damaged ({reason})" if reason else "damaged") from error
    rate = file.samplerate
    try:
        check(path, rate=rate, channels=file.channels)
        if reason := truncation.missing(path):
            raise UserError(f"{path}: cut off: {reason}; get or export it again")
        check_start(path, seconds=file.frames / rate, skip=skip)
    except UserError:
        file.close()
        raw.close()
        raise
    return Sound(rate, _blocks(path, raw, file, skip))


def _blocks(
    path: Path, raw: BinaryIO, file: soundfile.SoundFile, skip: int
) -> Generator[Float[np.ndarray, " frames"], None, None]:
    rate = file.samplerate
    size = block_frames(rate, file.channels)
    first, promised = skip * rate, file.frames / rate
    done = 0
    with raw, file:
        try:
            if first and file.format != "MP3":
                done = file.seek(first)
            while len(block := file.read(size, "float32", always_2d=True)):
                wanted = block[max(0, first - done) :]
                done += len(block)
                if len(wanted):
                    yield wanted.mean(axis=1)
        except soundfile.LibsndfileError as error:
            raise UserError(
                f"{path}: damaged after {done / rate:.1f} s of {promised:.1f} s; get "
                "or export it again"
            ) from error
        least = file.frames
        if file.format == "MP3":  # Without an index this is an estimate.
            least = 0.98 * least - 0.1 * rate
        if done < least < _UNKNOWN_FRAMES:
            raise UserError(
                f"{path}: cut off after {done / rate:.1f} s of {promised:.1f} s, or "
                "damaged inside; get or export it again"
            )

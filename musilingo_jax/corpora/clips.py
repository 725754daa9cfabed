"""The sound behind an annotation: where it lies, how long it is, what part is meant."""

import functools
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from musilingo_jax.corpora import listing
from musilingo_jax.corpora.records import SUFFIXES, clip_id
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import stat_regular_file

# A file that is cut to its clip may be longer than the clip by what its format adds.
SLACK_SECONDS = 0.5
_FFMPEG_SUFFIXES = (".m4a", ".aac", ".wma", ".webm")  # libsndfile does not know them.
_PROBE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """The sound that an annotation speaks of.

    Attributes:
      names: how the file may be called, as a path or not, whatever its format.
      start, end: the stretch of the original recording in seconds; None for all of it.
        The file may hold the stretch alone or the recording.
      longest: seconds that a file may last if the stretch is not known; None for any.
      rate: samples per second of the file if it is an `.npy`.
      exact: the very file, if that is known; `start` and `end` are then its own.
    """

    names: tuple[str, ...]
    start: float | None = None
    end: float | None = None
    longest: float | None = None
    rate: int | None = None
    exact: Path | None = None


@dataclass(frozen=True, slots=True)
class FoundClip:
    """Sound that was found; the fields but `seconds` are as in `Record`.

    Attributes:
      seconds: how long it lasts; None where the file does not tell.
    """

    audio: Path
    id: str
    start: float | None
    end: float | None
    rate: int | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Lacking:
    """Sound that cannot be used: `reason` is one of a few, `detail` a sentence."""

    reason: str
    detail: str


class AudioFolder:
    """The sound files at or below a folder, by name and whatever their format."""

    def __init__(self, folder: Path):
        """Nothing is listed before it must be.

        Raises:
          UserError: there is no such folder, or its name is not UTF-8.
        """
        listing.check_name(folder)
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder with audio files")
        self.folder = folder

    @functools.cached_property
    def _paths(self) -> dict[str, str]:
        """Both path and name without suffix → file.

        Of files of one name the preferred format counts, then the first in order; what
        cannot be opened comes last.
        """
        ranks = {suffix: rank for rank, suffix in enumerate(SUFFIXES)}
        found = [
            (bool(reason), ranks[os.path.splitext(path)[1].lower()], path)
            for path, reason in listing.sounds(self.folder, hidden=True)
            if listing.is_sound(path)
        ]
        paths: dict[str, str] = {}
        for _, _, path in sorted(found):
            within = os.path.splitext(os.path.relpath(path, self.folder))[0]
            paths.setdefault(Path(within).as_posix(), path)
            paths.setdefault(os.path.basename(within), path)
        return paths

    def find(self, wanted: Wanted) -> FoundClip | Lacking:
        """The clip, or why there is none."""
        audio = wanted.exact or self._named(wanted.names)
        if audio is None:
            where = f"in any format at or below {self.folder}"
            return Lacking("missing audio", f"no {wanted.names[0]} {where}")
        rate = wanted.rate if audio.suffix.lower() == ".npy" else None
        if audio.suffix.lower() == ".npy" and rate is None:
            return Lacking("no sampling rate", f"{audio} does not know its own")
        try:
            listing.check_name(audio)
            if not stat_regular_file(audio).st_size:
                return Lacking("empty file", f"{audio} has 0 bytes")
            seconds = duration(audio, rate)
            part = (wanted.start, wanted.end)
            if not wanted.exact:
                part = _part(wanted, seconds, audio)
            elif seconds is not None and seconds < (wanted.end or 0) - SLACK_SECONDS:
                part = Lacking(
                    "wrong length",
                    f"{audio} lasts {seconds:.1f} s, and its part up to {wanted.end:g} "
                    "s is asked for",
                )
            if isinstance(part, Lacking):
                return part
            start, end = part
            found = clip_id(audio, self.folder, start=start, end=end, rate=rate)
        except FileNotFoundError:
            return Lacking("missing audio", f"there is no {audio}")
        except OSError as error:
            return Lacking("unreadable file", f"{audio}: {error.strerror or error}")
        if seconds is not None:
            seconds = max(0.0, min(seconds, end or seconds) - (start or 0.0))
        return FoundClip(audio, found, start, end, rate, seconds)

    def _named(self, names: tuple[str, ...]) -> Path | None:
        stems = [_stem(name) for name in names]
        everywhere = (*stems, *map(os.path.basename, stems))
        path = next((self._paths[n] for n in everywhere if n in self._paths), None)
        return None if path is None else Path(path)


def _stem(name: str) -> str:
    """The name without the suffix of a sound file, if it has one."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in SUFFIXES else name


def duration(audio: Path, rate: int | None) -> float | None:
    """How many seconds a file says it lasts; None if it is not readable as sound.

    Nothing is decoded. Whether the sound is whole shows when it is encoded.

    Args:
      audio: the file.
      rate: samples per second, for an `.npy`: [samples], or with channels before or
        after.
    """
    if audio.suffix.lower() == ".npy":
        try:
            shape = np.load(audio, mmap_mode="r", allow_pickle=False).shape
        except (ValueError, EOFError, AttributeError):  # The last: an .npz in disguise.
            return None
        return max(shape, default=0) / rate if rate else None
    if audio.suffix.lower() in _FFMPEG_SUFFIXES:
        seconds = _probed(audio)
    else:
        try:
            # By its descriptor, so that the content alone decides about the format:
            # libmpg123 complains on stderr about text that is called .mp3.
            with (
                audio.open("rb") as raw,
                soundfile.SoundFile(raw.fileno(), closefd=False) as file,
            ):
                seconds = file.frames / file.samplerate
        except (soundfile.LibsndfileError, ZeroDivisionError):
            return None
    return seconds if seconds and 0 < seconds < 1e6 else None


def _probed(audio: Path) -> float | None:
    """What ffprobe, which comes with ffmpeg, reads in a file's header."""
    command = ["ffprobe", "-v", "error", "-protocol_whitelist", "file"]
    command += ["-show_entries", "format=duration", "-of", "csv=p=0", f"file:{audio}"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
        )
        return float(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None


def _part(
    wanted: Wanted, seconds: float | None, audio: Path
) -> tuple[float | None, float | None] | Lacking:
    """Which part of the file is the clip.

    Of the clip from 30 to 40 s of a recording (`=` is what the file holds):

        0         30        40                  file of        part
                  |=========|                   10 s           all of it
        |=========|=========|==========         60 s           30 to 40
        |=========|====                         35 s           unclear, hence none

    """
    if wanted.end is None:
        if wanted.longest is None:
            return None, None
        if seconds is not None and seconds <= wanted.longest + SLACK_SECONDS:
            return None, None
        if seconds is not None:
            return Lacking(
                "not cut",
                f"{audio} lasts {seconds:.1f} s, and which {wanted.longest:g} s of it "
                "are meant is not said",
            )
    start, end = wanted.start or 0.0, wanted.end
    if seconds is None:
        return Lacking(
            "unknown length",
            f"{audio} is not readable, or needs ffmpeg to be installed, so whether it "
            "is cut to the clip cannot be told",
        )
    if seconds <= end - start + SLACK_SECONDS:
        return None, None
    if seconds >= end - SLACK_SECONDS:
        return wanted.start, end
    return Lacking(
        "wrong length",
        f"{audio} lasts {seconds:.1f} s: neither the {end - start:g} s of the clip nor "
        f"the recording up to {end:g} s",
    )

"""The sound of an annotation: which file it is in, how long it is, and which part."""

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
from musilingo_jax.runtime.unicode_names import composed

# A file that is cut to its clip may be longer than the clip by what its format adds.
SLACK_SECONDS = 0.5
_LONGEST = 1e6  # seconds; a header that claims more is damaged
_FFMPEG_SUFFIXES = (".m4a", ".aac", ".wma", ".webm")  # not read by libsndfile
_PROBE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """The sound that an annotation is about.

    Attributes:
      names: possible names of the file, with or without folders, in any format.
      start, end: the stretch of the original recording in seconds; None for all of it.
        The file may hold the stretch alone or the recording.
      longest: seconds that a file may last if the stretch is unknown; None for any.
      rate: samples per second of the file if it is an `.npy`.
      exact: the path of the file, if it is known; `start` and `end` are then seconds
        of this file.
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
      seconds: how long the clip lasts; None if the file's header does not say.
    """

    audio: Path
    id: str
    start: float | None
    end: float | None
    rate: int | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Lacking:
    """Sound that cannot be used: a `reason` to count by, and a sentence of `detail`."""

    reason: str
    detail: str


class AudioFolder:
    """The sound files in a folder, at any depth: found by name, in any format."""

    def __init__(self, folder: Path):
        """Lists nothing yet.

        Raises:
          UserError: there is no such folder, or its name is not UTF-8.
        """
        listing.check_name(folder)
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder with audio files")
        self.folder = folder

    @functools.cached_property
    def _paths(self) -> dict[str, str]:
        """Both path within the folder and name, without suffix, composed → file.

        Of files with the same name the preferred format is chosen, then the first in
        order; files that cannot be opened come last.
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
            paths.setdefault(composed(Path(within).as_posix()), path)
            paths.setdefault(composed(os.path.basename(within)), path)
        return paths

    def find(self, wanted: Wanted) -> FoundClip | Lacking:
        """The clip, or why there is none that can be used."""
        audio = wanted.exact or self._named(wanted.names)
        if audio is None:
            where = f"in any format in {self.folder}"
            return Lacking("missing audio", f"no {wanted.names[0]} {where}")
        rate = wanted.rate if audio.suffix.lower() == ".npy" else None
        if audio.suffix.lower() == ".npy" and rate is None:
            return Lacking("no sampling rate", f"that of {audio} is not given")
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
                    f"{audio} lasts {seconds:.1f} s, but the clip ends at "
                    f"{wanted.end:g} s",
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
        stems = [composed(_stem(name)) for name in names]
        everywhere = (*stems, *map(os.path.basename, stems))
        path = next((self._paths[n] for n in everywhere if n in self._paths), None)
        return None if path is None else Path(path)


def _stem(name: str) -> str:
    """The name without the suffix of a sound file, if it has one."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in SUFFIXES else name


def duration(audio: Path, rate: int | None) -> float | None:
    """The seconds of sound that a file's header states; None if it cannot be read.

    Nothing is decoded, so damaged sound is only noticed when it is encoded.

    Args:
      audio: the file.
      rate: samples per second, for an `.npy`; its array is [samples], or has channels
        before or after them.
    """
    if audio.suffix.lower() == ".npy":
        try:
            shape = np.load(audio, mmap_mode="r", allow_pickle=False).shape
        except (ValueError, EOFError, AttributeError):  # The last: an .npz inside.
            return None
        return max(shape, default=0) / rate if rate else None
    if audio.suffix.lower() in _FFMPEG_SUFFIXES:
        seconds = _probed(audio)
    else:
        try:
            # By its descriptor, so that the content alone decides the format: otherwise
            # libmpg123 writes to stderr about a text file that is named .mp3.
            with (
                audio.open("rb") as raw,
                soundfile.SoundFile(raw.fileno(), closefd=False) as file,
            ):
                seconds = file.frames / file.samplerate
        except (soundfile.LibsndfileError, ZeroDivisionError):
            return None
    return seconds if seconds and 0 < seconds < _LONGEST else None


def _probed(audio: Path) -> float | None:
    """The duration that ffprobe, which is part of ffmpeg, reads in a file's header."""
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
    """Start and end of the clip within the file, in seconds; None for the file's own.

    For the clip from 30 to 40 s of a recording (`=` is what the file holds):

        0         30        40                  file of        part
                  |=========|                   10 s           all of it
        |=========|=========|==========         60 s           30 to 40
        |=========|====                         35 s           unclear, hence none
    """
    if wanted.end is None:
        if wanted.longest is None:
            return None, None
        if seconds is None:
            return _unknown_length(audio)
        if seconds > wanted.longest + SLACK_SECONDS:
            return Lacking(
                "not cut",
                f"{audio} lasts {seconds:.1f} s, and the annotation does not say which "
                f"{wanted.longest:g} s of it are the clip",
            )
        return None, None
    start, end = wanted.start or 0.0, wanted.end
    if seconds is None:
        return _unknown_length(audio)
    if seconds <= end - start + SLACK_SECONDS:
        return None, None
    if seconds >= end - SLACK_SECONDS:
        return wanted.start, end
    return Lacking(
        "wrong length",
        f"{audio} lasts {seconds:.1f} s: neither the {end - start:g} s of the clip nor "
        f"the recording up to {end:g} s",
    )


def _unknown_length(audio: Path) -> Lacking:
    return Lacking(
        "unknown length",
        f"{audio} is not readable, or needs ffmpeg to be installed, so it is unknown "
        "whether it is cut to the clip",
    )

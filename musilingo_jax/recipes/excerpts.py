"""A seeded sample of recordings, in excerpts of one length, to teach an encoder with.

A song of `D` seconds is cut into as many equal parts as it may have excerpts, and an
excerpt begins at a random place of each part, so that all of the song may be drawn:

    song        |             |             |             |
    excerpts         [----]      [----]                 [----]

What is silent, or is mostly silent, is not drawn. Excerpts are brought to one level, as
all songs are before the encoder hears them, and kept as 16-bit numbers.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from musilingo_jax.audio import level, waveforms
from musilingo_jax.recipes.soundfont import SAMPLE_RATE
from musilingo_jax.runtime import cli, storage
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json

# Root mean square of an excerpt: that of the rendered clips, so that one level of the
# feature cache holds for all. Peaks up to 20 dB above it survive.
LEVEL = 0.1
# A part of a song below this, relative to the whole song, is a pause: −30 dB.
_PAUSE = 10 ** (-30 / 20)


@dataclasses.dataclass(frozen=True)
class Track:
    """A recording.

    Attributes:
      package: that it comes in.
      path: of its file.
    """

    package: str
    path: Path


class RecordedSet:
    """What `write_set` wrote.

    Attributes:
      waveform: int16 [excerpts, samples] at 24 kHz, read from disk as it is used.
      packages, paths: of each excerpt's song.
      starts: seconds from the song's beginning.
    """

    def __init__(self, folder: Path):
        """Opens a set."""
        self.folder = folder
        self.waveform = np.load(folder / "waveform.npy", mmap_mode="r")
        described = read_json(folder / "set.json")
        self.packages = [row["package"] for row in described["excerpts"]]
        self.paths = [Path(row["path"]) for row in described["excerpts"]]
        self.starts = [row["start"] for row in described["excerpts"]]

    def __len__(self) -> int:
        return len(self.waveform)

    def heard(
        self, rows: Int[np.ndarray, " *rows"] | int
    ) -> Float[np.ndarray, "*rows samples"]:
        """The waveforms of some excerpts, or of one, full scale = 1."""
        return self.waveform[rows].astype(np.float32) / 32768


def write_set(
    folder: Path,
    tracks: Sequence[Track],
    *,
    seconds: float,
    spacing: float,
    most: int,
    seed: int,
    processes: int,
) -> None:
    """Draws excerpts of songs, unless this was done before.

    Writes `waveform.npy` (int16 [excerpts, samples], at 24 kHz) and `set.json`: where
    each excerpt comes from, and which songs gave none and why.

    Args:
      folder: where to write.
      tracks: the songs.
      seconds: length of an excerpt.
      spacing: a song gives an excerpt for each so many seconds of it, rounded up.
      most: excerpts of one song at most.
      seed: of the places.
      processes: how many read songs at the same time.

    Raises:
      UserError: no song can be used.
    """
    record = folder / "set.json"
    settings = {
        "seconds": seconds,
        "spacing": spacing,
        "most": most,
        "seed": seed,
        "songs": len(tracks),
    }
    if record.exists():
        if read_json(record)["settings"] != settings:
            raise UserError(
                f"{record} describes a set with other settings than {settings}; choose "
                "another folder, or delete this one"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    rows, left_out, found = [], [], []
    jobs = [
        (track, seconds, spacing, most, [seed, n]) for n, track in enumerate(tracks)
    ]
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        results = pool.map(_draw, jobs)
        bar = cli.progress(results, total=len(jobs), unit="song", label="excerpts")
        for track, (starts, drawn, why) in zip(tracks, bar, strict=True):
            where = {"package": track.package, "path": str(track.path.resolve())}
            if why:
                left_out.append({**where, "why": why})
            rows += [{**where, "start": start} for start in starts]
            found.append(drawn)
    if not rows:
        raise UserError(f"{folder}: none of the {len(tracks)} songs can be used")
    with storage.atomic(folder / "waveform.npy") as partial, partial.open("wb") as file:
        np.save(file, np.concatenate(found))
    described = {"settings": settings, "excerpts": rows, "left_out": left_out}
    storage.write_text(record, json.dumps(described, indent=1))


def _draw(
    job: tuple[Track, float, float, int, list[int]],
) -> tuple[list[float], Int[np.ndarray, "excerpts samples"], str]:
    """Where the excerpts of a song begin, what they hold, or why there is none."""
    track, seconds, spacing, most, seed = job
    samples = round(seconds * SAMPLE_RATE)
    none = np.zeros((0, samples), np.int16)
    try:
        song = waveforms.load(track.path, sample_rate=SAMPLE_RATE, tell=lambda _: None)
    except UserError as error:
        return [], none, str(error)
    room = len(song) - samples
    if room < 0:
        return [], none, f"lasts {len(song) / SAMPLE_RATE:.1f} s"
    rng = np.random.default_rng(seed)
    count = min(most, math.ceil(len(song) / SAMPLE_RATE / spacing))
    whole = _root_mean_square(song)
    starts, drawn = [], []
    for part in range(count):
        start = round((part + rng.random()) * room / count)
        excerpt = song[start : start + samples]
        if level.is_silent(excerpt) or _root_mean_square(excerpt) < whole * _PAUSE:
            continue
        starts.append(start / SAMPLE_RATE)
        drawn.append(quantised(excerpt))
    return starts, np.stack(drawn) if drawn else none, "" if drawn else "is silent"


def quantised(waveform: Float[np.ndarray, " samples"]) -> Int[np.ndarray, " samples"]:
    """The waveform at `LEVEL`, or lower where its peaks need it, in 16 bits."""
    centred = waveform - waveform.mean()
    gain = min(
        LEVEL / (_root_mean_square(centred) + 1e-9),
        0.99 / (float(np.abs(centred).max()) + 1e-9),
    )
    return np.round(centred * gain * 32767).astype(np.int16)


def _root_mean_square(waveform: Float[np.ndarray, " samples"]) -> float:
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))

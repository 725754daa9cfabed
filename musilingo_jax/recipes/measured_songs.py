"""The songs that a model's answers about recordings are measured with.

    teachers/     30 s of each song of the packages that were left out, with what the
                  teachers are sure of, and speech, noise and silence: *agreement*
    file_facts/   songs of which others say the truth: tempi of charts, keys of titles
    voices/       such songs with a voice that sings, which is made (`singing.py`), and
                  as many without; voices, too, that nothing was learnt from

Each is a corpus as anybody's own; nothing here is learnt from.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from musilingo_jax.annotation import tags
from musilingo_jax.audio import waveforms
from musilingo_jax.corpora import fact_questions, songs
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.recipes import (
    charts,
    excerpts,
    no_music,
    notes,
    pseudo_labels,
    recorded_songs,
    recordings,
    singing,
    teacher_outputs,
)
from musilingo_jax.recipes.excerpts import RecordedSet, Track
from musilingo_jax.recipes.lessons import Lessons
from musilingo_jax.recipes.soundfont import SAMPLE_RATE
from musilingo_jax.runtime import storage
from musilingo_jax.runtime.settings import setting

TEACHERS, FILE_FACTS, VOICES = "teachers", "file_facts", "voices"
KEYS = {"Peer Gynt Suite No. 1, Op. 46 - I. Morning": "E major"}
"""Part of a file's name → the key of the work that it names."""
# Of each song with a chart there is a copy at each of these speeds.
_SPEEDS = (1.0, 0.85, 0.7, 0.55)


@dataclass(frozen=True)
class MeasureConfig:
    """How much is measured.

    Attributes:
      work: the folder of what is measured with.
      seconds: length of a song's excerpt.
      no_music: clips of speech, and as many of noise.
      sung: songs with a voice that sings.
      songs: songs at most, spread over the packages; 0 for all.
      gains: factors of the level at which songs are asked about again.
      gain_songs: songs that are.
      draws: answers drawn of each question, whose agreement is its confidence.
      shown: songs whose answers are printed.
      seed: of all draws.
    """

    work: str = setting()
    seconds: float = setting(above=0)
    no_music: int = setting(at_least=1)
    sung: int = setting(at_least=1)
    songs: int = setting(at_least=0)
    gains: tuple[float, ...] = setting(above=0)
    gain_songs: int = setting(at_least=1)
    draws: int = setting(at_least=1)
    shown: int = setting(at_least=0)
    seed: int = setting(at_least=0)


def write(
    numbers: MeasureConfig, music: Path, packages: Path, config: MertConfig
) -> tuple[RecordedSet, list[dict[str, str]]]:
    """Writes the corpora, unless they are there already.

    Args:
      numbers: how much.
      music: the folder of the recordings' packages.
      packages: the folder of the teachers' packages.
      config: of the encoder, for the frames of the notes.

    Returns:
      The excerpts, and what is taken for known of each.

    Raises:
      UserError: a package is missing, or no song can be read.
    """
    work = Path(numbers.work)
    chosen = recordings.tracks(music, recordings.LEFT_OUT)
    if numbers.songs:
        chosen = chosen[:: max(1, len(chosen) // numbers.songs)][: numbers.songs]
    others = no_music.write(
        work / "no_music",
        recordings.tracks(music, recordings.LEFT_OUT, speech=True),
        clips=numbers.no_music,
        seconds=numbers.seconds,
        seed=numbers.seed,
    )
    recorded = _one_of_each(
        work / "set", [*chosen, *others], numbers.seconds, numbers.seed + 1
    )
    lessons = Lessons.of(
        recorded,
        taggers=packages / tags.WHEEL,
        transcriber=packages / notes.WHEEL,
        frames=int(config.frames(recorded.waveform.shape[1])),
        frames_per_second=config.frames_per_second,
        processes=1,
        copies=False,
    )
    facts = recorded_songs.known_facts(recorded, lessons)
    folder = work / TEACHERS
    if not (folder / songs.FILE_NAME).exists():
        recorded_songs.write_corpus(
            folder, recorded, facts, lessons.bpm, split="test", seed=numbers.seed + 2
        )
    if not (work / FILE_FACTS / songs.FILE_NAME).exists():
        write_file_facts(work / FILE_FACTS, music, numbers.seconds)
    if not (work / VOICES / songs.FILE_NAME).exists():
        write_voices(work / VOICES, recorded, facts, music, packages, numbers)
    return recorded, facts


def _one_of_each(
    folder: Path, tracks: Sequence[Track], seconds: float, seed: int
) -> RecordedSet:
    """A set with one excerpt of each recording."""
    excerpts.write_set(
        folder, tracks, seconds=seconds, spacing=1e9, most=1, seed=seed, processes=1
    )
    return RecordedSet(folder)


def write_voices(
    folder: Path,
    recorded: RecordedSet,
    facts: Sequence[Mapping[str, str]],
    music: Path,
    packages: Path,
    numbers: MeasureConfig,
) -> None:
    """Writes songs with a voice mixed in, and asks of these and of others for vocals.

    As many songs are asked about in which the teachers hear vocals as in which they
    hear none; where they are not sure, none is.

    Args:
      folder: where to write.
      recorded: the songs as they are.
      facts: what is taken for known of each.
      music: the folder of the recordings' packages.
      packages: the folder of the teachers' packages.
      numbers: how many.

    Raises:
      UserError: a package is missing, or no song can be read.
    """
    mixed = singing.write(
        folder / "clips",
        recordings.tracks(music, recordings.LEFT_OUT),
        recordings.tracks(music, recordings.LEFT_OUT, speech=True),
        clips=numbers.sung,
        seconds=numbers.seconds,
        seed=numbers.seed + 3,
    )
    sung = _one_of_each(folder / "set", mixed, numbers.seconds, numbers.seed + 4)
    heard = teacher_outputs.heard_by_taggers(
        sung.waveform, packages / tags.WHEEL, folder / "set" / "tags"
    )
    tagged = len(teacher_outputs.TAG_NAMES)
    asked = [
        (path, 0.0, value)
        for path, row in zip(sung.paths, heard, strict=True)
        if (value := pseudo_labels.facts(row[:tagged]).get("vocals"))
    ]
    voiced = sum(value == "vocals" for *_, value in asked)
    rng = np.random.default_rng([numbers.seed, 7])
    silent = [n for n, known in enumerate(facts) if known.get("vocals") == "no vocals"]
    more = rng.permutation(silent)[: max(0, 2 * voiced - len(asked))]
    asked += [(recorded.paths[n], recorded.starts[n], "no vocals") for n in more]
    rows = []
    for index, (path, start, value) in enumerate(asked):
        draw = np.random.default_rng([numbers.seed, 8, index])
        question, answer, _ = fact_questions.short({"vocals": value}, "vocals", draw)
        rows.append(
            {
                "audio": str(path),
                "start": round(start, 3),
                "end": round(start + numbers.seconds, 3),
                "split": "test",
                "question": question,
                "answer": answer,
                "attribute": "vocals",
                "value": value,
            }
        )
    text = "".join(json.dumps(row) + "\n" for row in rows)
    storage.write_text(folder / songs.FILE_NAME, text)


class Charted(NamedTuple):
    """A copy of a song with a chart.

    Attributes:
      name: of the song, with the speed in percent.
      waveform: from the middle of the song, at `SAMPLE_RATE`.
      bpm: the chart's beats per minute, at this speed.
    """

    name: str
    waveform: Float[np.ndarray, " samples"]
    bpm: float


def charted(music: Path, seconds: float) -> Iterator[Charted]:
    """Copies of each song with a chart, as it is and slowed.

    Args:
      music: as `recordings.fetch` fills it.
      seconds: of a copy.

    Raises:
      UserError: a song or a chart cannot be read.
    """
    for song, chart in recordings.charts(music).items():
        whole = waveforms.load(song, sample_rate=SAMPLE_RATE, tell=lambda _: None)
        bpm = charts.bpm_of(chart)
        for speed in _SPEEDS:
            needed = round(seconds * speed * SAMPLE_RATE)
            begin = max(0, (len(whole) - needed) // 2)
            copy = whole[begin : begin + needed]
            if speed != 1:
                copy = soxr.resample(copy, SAMPLE_RATE * speed, SAMPLE_RATE)
            yield Charted(f"{song.stem}_{round(100 * speed)}", copy, bpm * speed)


def write_file_facts(folder: Path, music: Path, seconds: float) -> None:
    """Writes copies of the songs with charts, and asks for tempi and keys.

    Raises:
      UserError: a song or a chart cannot be read.
    """
    (folder / "copies").mkdir(parents=True, exist_ok=True)
    rows: list[Mapping[str, object]] = []
    for copy in charted(music, seconds):
        name = f"copies/{copy.name}.flac"
        soundfile.write(folder / name, np.clip(copy.waveform, -1, 1), SAMPLE_RATE)
        value = f"{copy.bpm:.1f}"
        rows.append(
            {
                "audio": name,
                "split": "test",
                "question": "What is the tempo in beats per minute?",
                "answer": f"About {value} beats per minute.",
                "attribute": "bpm",
                "value": value,
            }
        )
    for track in recordings.tracks(music, recordings.LEFT_OUT):
        for title, key in KEYS.items():
            if title in track.path.name:
                rows.append(
                    {
                        "audio": str(track.path.resolve()),
                        "start": 0.0,
                        "end": seconds,
                        "split": "test",
                        "question": "What key is it in?",
                        "answer": f"It is in {key}.",
                        "attribute": "key",
                        "value": key,
                    }
                )
    text = "".join(json.dumps(row) + "\n" for row in rows)
    storage.write_text(folder / songs.FILE_NAME, text)

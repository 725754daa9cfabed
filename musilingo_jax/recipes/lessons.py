"""Recordings with what teachers heard in them, as batches for a student.

    excerpt ──────────────▶ teachers, once, at one level ──▶ tags, features, notes
       │                                                            │
       └─▶ a codec, another room, equaliser, noise, level           │
                    └──────────▶ student ─────────────▶ loss ◀──────┘

A copy keeps what the teachers said of the excerpt itself. Some copies are played more
slowly: of these only what is periodic is known, as much slower.
"""

import dataclasses
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Bool, Float, Int

from musilingo_jax.corpora.facts import FACTS, beat_index, tempo_of
from musilingo_jax.models.taggers.musicnn import TAGS
from musilingo_jax.recipes import no_music, notes, teacher_outputs, tempi
from musilingo_jax.recipes.augmentation import augment, slowed
from musilingo_jax.recipes.excerpts import RecordedSet
from musilingo_jax.recipes.singing import SUNG
from musilingo_jax.recipes.soundfont import SAMPLE_RATE, Waveform
from musilingo_jax.runtime import cli, storage

# Containers and codecs that libsndfile writes; the compression is drawn.
_CODECS = (("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("OGG", "OPUS"))
# Share of the copies of these that the student hears through a codec.
_CODED = 0.6
# Of the excerpts, one of so many is coded at all.
_CODED_EVERY = 2
# Share of the copies that differ in their level only.
_PLAIN = 0.3
# Share of the copies that are played more slowly, and the speeds of these.
_SLOWED, _SPEEDS = 0.4, (0.5, 1.0)
RHYTHM = tempi.TEMPI[::2]
"""Beats per minute of which a student learns how well each fits, one fiftieth apart."""
UNKNOWN = -1
"""In place of a class of the tempo."""
# Tags of energetic music, whose beats are counted faster.
_ENERGETIC = ("MTT_musicnn/fast", "MTT_musicnn/rock", "MSD_musicnn/metal")
# Notes are heard in one excerpt of so many.
NOTED_EVERY = 3
SOUNDS = ("music", no_music.SPEECH, no_music.NOISE)
"""What an excerpt is: the last outputs, which need no teacher."""


@dataclasses.dataclass(frozen=True)
class Lessons:
    """Excerpts, and what the teachers heard in them.

    Attributes:
      waveform: 16 bits, at 24 kHz.
      coded: every other one through a lossy codec and back.
      outputs: of the taggers, then which of `SOUNDS` it is; each column with mean 0
        and variance 1.
      mean, deviation: of each column before.
      chroma: the probability that a pitch class sounds in a frame.
      noted: whether `chroma` was heard; it is 0 elsewhere.
      onsets: the autocorrelation of each excerpt's onsets, from `tempi.correlations`.
      bpm: beats per minute, as `tempi.tempi` finds them; NaN where they are not known.
    """

    waveform: Int[np.ndarray, "excerpts samples"]
    coded: Int[np.ndarray, "half samples"]
    outputs: Float[np.ndarray, "excerpts outputs"]
    mean: Float[np.ndarray, " outputs"]
    deviation: Float[np.ndarray, " outputs"]
    chroma: Float[np.ndarray, "excerpts frames 12"]
    noted: Bool[np.ndarray, " excerpts"]
    onsets: Float[np.ndarray, "excerpts lags"]
    bpm: Float[np.ndarray, " excerpts"]

    @classmethod
    def of(
        cls,
        recorded: RecordedSet,
        *,
        taggers: Path,
        transcriber: Path,
        frames: int,
        frames_per_second: float,
        processes: int,
        copies: bool = True,
    ) -> "Lessons":
        """Lets the teachers hear a set; what they heard before is kept in its folder.

        Args:
          recorded: the set.
          taggers: the package of `annotation.tags.load`.
          transcriber: the package of `notes.chroma`.
          frames: that the student makes of an excerpt.
          frames_per_second: their rate.
          processes: excerpts that are coded at the same time.
          copies: whether a student will learn from them, and so hear coded copies.

        Raises:
          UserError: as in `teacher_outputs.heard_by_taggers` and `notes.chroma`.
        """
        heard = teacher_outputs.heard_by_taggers(
            recorded.waveform, taggers, recorded.folder / "tags"
        )
        onsets = _onsets(recorded, processes)
        bpm = _tempi(recorded, heard, onsets)
        kinds = [sound_of(package) for package in recorded.packages]
        is_kind = np.array([[kind == sound for sound in SOUNDS] for kind in kinds])
        heard = np.concatenate([heard, is_kind.astype(np.float32)], axis=1)
        noted = np.arange(len(recorded)) % NOTED_EVERY == 0
        chroma = np.zeros((len(recorded), frames, 12), np.float32)
        chroma[noted] = notes.chroma(
            recorded.waveform[noted],
            transcriber,
            recorded.folder / "notes",
            frames=frames,
            frames_per_second=frames_per_second,
        )
        mean, deviation = heard.mean(axis=0), heard.std(axis=0) + 1e-6
        return cls(
            waveform=recorded.waveform,
            coded=_coded_copies(recorded, processes) if copies else recorded.waveform,
            outputs=(heard - mean) / deviation,
            mean=mean,
            deviation=deviation,
            chroma=chroma,
            noted=noted,
            onsets=onsets,
            bpm=bpm,
        )

    def __len__(self) -> int:
        return len(self.waveform)

    def tag_logits(self, row: int) -> Float[np.ndarray, " tags"]:
        """The logits of `teacher_outputs.TAG_NAMES` for an excerpt."""
        tags = slice(len(teacher_outputs.TAG_NAMES))
        return self.outputs[row, tags] * self.deviation[tags] + self.mean[tags]

    def batch(
        self, rows: Int[np.ndarray, " rows"], seed: list[int]
    ) -> tuple[
        Float[np.ndarray, "rows samples"],
        Float[np.ndarray, "rows outputs"],
        Bool[np.ndarray, " rows"],
        Float[np.ndarray, "rows frames 12"],
        Bool[np.ndarray, " rows"],
        Float[np.ndarray, "rows tempi"],
        dict[str, Int[np.ndarray, " rows"]],
    ]:
        """Copies of some excerpts, each another way, and what is known of them.

        Args:
          rows: the excerpts.
          seed: of the copies; row `i` of a batch has the seed [*seed, i].

        Returns:
          The copies; what the taggers said, and of which copies it holds; the pitch
          classes, and of which copies they are known; how well each tempo of `RHYTHM`
          fits, from -1 to 1; the classes of the tempo, as a number and as a word, or
          `UNKNOWN`.
        """
        made = [self._copy(row, [*seed, i]) for i, row in enumerate(rows)]
        copies, speeds = zip(*made, strict=True)
        alike = np.array(speeds) == 1.0
        bpm = self.bpm[rows] * speeds
        classes = {
            "beats": [UNKNOWN if np.isnan(x) else beat_index(x) for x in bpm],
            "tempo": [
                UNKNOWN if np.isnan(x) else FACTS["tempo"].index(tempo_of(x))
                for x in bpm
            ],
        }
        return (
            np.stack(copies),
            self.outputs[rows],
            alike,
            self.chroma[rows],
            self.noted[rows] & alike,
            # What has a period of the excerpt has a longer one of the slower copy.
            np.concatenate(
                [
                    tempi.comb(self.onsets[row][None], RHYTHM / speed)
                    for row, speed in zip(rows, speeds, strict=True)
                ]
            ).astype(np.float32),
            {name: np.array(each, np.int32) for name, each in classes.items()},
        )

    def _copy(self, row: int, seed: list[int]) -> tuple[Waveform, float]:
        """A copy of an excerpt, and its speed."""
        rng = np.random.default_rng(seed)
        source, place = self.waveform, row
        if row % _CODED_EVERY == 0 and rng.random() < _CODED:
            source, place = self.coded, row // _CODED_EVERY
        sound, speed = source[place].astype(np.float32) / 32768, 1.0
        if rng.random() < _SLOWED and not np.isnan(self.bpm[row]):
            speed = rng.uniform(*_SPEEDS)
            sound = slowed(sound, speed)
        if rng.random() < _PLAIN:
            return sound * np.float32(10 ** (rng.uniform(-12, 0) / 20)), speed
        return augment(sound, rng), speed


def sound_of(package: str) -> str:
    """Which of `SOUNDS` the excerpts of a package are."""
    return package if package in SOUNDS else SOUNDS[0]


def output_weights() -> Float[np.ndarray, " outputs"]:
    """How much each output counts; they sum to 1.

    Half of it is the tags of MagnaTagATune, which say what is heard; a quarter the tags
    of the Million Song Dataset, which say more of taste and time; a sixth the layers
    below; the rest whether it is music.
    """
    sizes = [len(tags) for tags in TAGS.values()]
    widths = [teacher_outputs.FEATURES] * len(sizes)
    shares = [0.5, 0.25, 0.085, 0.085, 0.08]
    parts = zip(shares, [*sizes, *widths, len(SOUNDS)], strict=True)
    return np.concatenate([np.full(n, share / n, np.float32) for share, n in parts])


def _onsets(
    recorded: RecordedSet, processes: int
) -> Float[np.ndarray, "excerpts lags"]:
    """The autocorrelation of each excerpt's onsets, computed once."""
    path = recorded.folder / "onsets.npy"
    if not path.exists():
        found = tempi.correlations(recorded.waveform, processes)
        with storage.atomic(path) as partial, partial.open("wb") as file:
            np.save(file, found.astype(np.float32))
    return np.load(path)


def _tempi(
    recorded: RecordedSet,
    heard: Float[np.ndarray, "excerpts outputs"],
    onsets: Float[np.ndarray, "excerpts lags"],
) -> Float[np.ndarray, " excerpts"]:
    """Beats per minute of each excerpt of music; NaN where they are not known."""
    columns = [teacher_outputs.TAG_NAMES.index(name) for name in _ENERGETIC]
    energy = 1 / (1 + np.exp(-heard[:, columns].max(axis=1)))
    songs = [str(path) for path in recorded.paths]
    bpm = tempi.tempi(onsets, songs, energy)
    # A voice that was mixed in keeps a time of its own.
    is_music = [
        sound_of(package) == SOUNDS[0] and package != SUNG
        for package in recorded.packages
    ]
    return np.where(is_music, bpm, np.nan)


def _coded_copies(
    recorded: RecordedSet, processes: int
) -> Int[np.ndarray, "half samples"]:
    """Every other excerpt through a codec and back, written once."""
    path = recorded.folder / "coded.npy"
    if not path.exists():
        with (
            storage.atomic(path) as partial,
            ThreadPoolExecutor(processes) as pool,
        ):
            chosen = recorded.waveform[::_CODED_EVERY]
            shape = chosen.shape
            copies = np.lib.format.open_memmap(partial, "w+", np.int16, shape)
            coded = pool.map(_through_a_codec, chosen, range(len(chosen)))
            bar = cli.progress(coded, total=shape[0], unit="excerpt", label="codecs")
            for row, copy in enumerate(bar):
                copies[row] = copy
            copies.flush()
    return np.load(path, mmap_mode="r")


def _through_a_codec(
    excerpt: Int[np.ndarray, " samples"], seed: int
) -> Int[np.ndarray, " samples"]:
    """What is left of an excerpt after a codec, at a rate that people use or below.

    A codec's delay, at most a twentieth of a second, is not taken away.
    """
    rng = np.random.default_rng([seed, 9])
    container, codec = _CODECS[rng.integers(len(_CODECS))]
    file = io.BytesIO()
    soundfile.write(
        file,
        excerpt,
        SAMPLE_RATE,
        format=container,
        subtype=codec,
        compression_level=float(rng.uniform(0.4, 1.0)),
    )
    file.seek(0)
    copy, _ = soundfile.read(file, dtype="int16")
    return np.pad(copy[: len(excerpt)], (0, max(0, len(excerpt) - len(copy))))

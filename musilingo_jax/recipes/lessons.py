"""Recordings with what teachers heard in them, as batches for a student.

    excerpt ──────────────▶ teachers, once, at one level ──▶ tags, features, notes
       │                                                            │
       └─▶ a codec, another room, equaliser, noise, level           │
                    └──────────▶ student ─────────────▶ loss ◀──────┘

A copy keeps what the teachers said of the excerpt itself.
"""

import dataclasses
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Bool, Float, Int

from musilingo_jax.models.taggers.musicnn import TAGS
from musilingo_jax.recipes import no_music, notes, teacher_outputs
from musilingo_jax.recipes.augmentation import augment
from musilingo_jax.recipes.excerpts import RecordedSet
from musilingo_jax.recipes.soundfont import SAMPLE_RATE, Waveform
from musilingo_jax.runtime import cli, storage

# Containers and codecs that libsndfile writes; the compression is drawn.
_CODECS = (("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("OGG", "OPUS"))
# Share of the copies that the student hears through a codec.
_CODED = 0.4
# Notes are heard in one excerpt of so many.
NOTED_EVERY = 3
SOUNDS = ("music", no_music.SPEECH, no_music.NOISE)
"""What an excerpt is: the last outputs, which need no teacher."""


@dataclasses.dataclass(frozen=True)
class Lessons:
    """Excerpts, and what the teachers heard in them.

    Attributes:
      waveform: 16 bits, at 24 kHz.
      coded: the same through a lossy codec and back.
      outputs: of the taggers, then which of `SOUNDS` it is; each column with mean 0
        and variance 1.
      mean, deviation: of each column before.
      chroma: the probability that a pitch class sounds in a frame.
      noted: whether `chroma` was heard; it is 0 elsewhere.
    """

    waveform: Int[np.ndarray, "excerpts samples"]
    coded: Int[np.ndarray, "excerpts samples"]
    outputs: Float[np.ndarray, "excerpts outputs"]
    mean: Float[np.ndarray, " outputs"]
    deviation: Float[np.ndarray, " outputs"]
    chroma: Float[np.ndarray, "excerpts frames 12"]
    noted: Bool[np.ndarray, " excerpts"]

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
    ) -> "Lessons":
        """Lets the teachers hear a set; what they heard before is kept in its folder.

        Args:
          recorded: the set.
          taggers: the package of `teachers.load`.
          transcriber: the package of `notes.chroma`.
          frames: that the student makes of an excerpt.
          frames_per_second: their rate.
          processes: excerpts that are coded at the same time.

        Raises:
          UserError: as in `teacher_outputs.heard_by_taggers` and `notes.chroma`.
        """
        heard = teacher_outputs.heard_by_taggers(
            recorded.waveform, taggers, recorded.folder / "tags"
        )
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
            coded=_coded_copies(recorded, processes),
            outputs=(heard - mean) / deviation,
            mean=mean,
            deviation=deviation,
            chroma=chroma,
            noted=noted,
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
        Float[np.ndarray, "rows frames 12"],
        Bool[np.ndarray, " rows"],
    ]:
        """Copies of some excerpts, each another way, and what the teachers said.

        Args:
          rows: the excerpts.
          seed: of the copies; row `i` of a batch has the seed [*seed, i].
        """
        copies = [self._copy(row, [*seed, i]) for i, row in enumerate(rows)]
        return np.stack(copies), self.outputs[rows], self.chroma[rows], self.noted[rows]

    def _copy(self, row: int, seed: list[int]) -> Waveform:
        rng = np.random.default_rng(seed)
        source = self.coded if rng.random() < _CODED else self.waveform
        return augment(source[row].astype(np.float32) / 32768, rng)


def sound_of(package: str) -> str:
    """Which of `SOUNDS` the excerpts of a package are."""
    return package if package in SOUNDS else SOUNDS[0]


def output_weights() -> Float[np.ndarray, " outputs"]:
    """How much each output counts; they sum to 1.

    Half of it is the tags of MagnaTagATune, which say what is heard; a quarter the tags
    of the Million Song Dataset, which say more of taste and time; a fifth the layers
    below; the rest whether it is music.
    """
    sizes = [len(tags) for tags in TAGS.values()]
    widths = [teacher_outputs.FEATURES] * len(sizes)
    shares = [0.5, 0.25, 0.1, 0.1, 0.05]
    parts = zip(shares, [*sizes, *widths, len(SOUNDS)], strict=True)
    return np.concatenate([np.full(n, share / n, np.float32) for share, n in parts])


def _coded_copies(
    recorded: RecordedSet, processes: int
) -> Int[np.ndarray, "excerpts samples"]:
    """Every excerpt through a codec and back, written once."""
    path = recorded.folder / "coded.npy"
    if not path.exists():
        with (
            storage.atomic(path) as partial,
            ThreadPoolExecutor(processes) as pool,
        ):
            shape = recorded.waveform.shape
            copies = np.lib.format.open_memmap(partial, "w+", np.int16, shape)
            coded = pool.map(_through_a_codec, recorded.waveform, range(len(recorded)))
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

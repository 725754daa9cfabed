"""Trains the embedded encoder on rendered music and on recordings.

MERT learns by predicting masked codes of 160,000 hours of music. With a budget of one
hour on two CPU cores, supervision is worth more:

- The score of a rendered piece knows everything: for every frame the sounding pitch
  classes, bass, melody, onsets, beats, drum strokes and instrument families, and for
  every clip its style, lead, tempo, mode, key and drums.
- Of recordings nobody knows the score, but published models hear in them what people
  have said of music: a hundred tags and, in a part of them, which notes sound. The
  student learns to give their answers (Hinton et al. 2015, "Distilling the Knowledge
  in a Neural Network").

*Linear* heads predict all of it from the features that MusiLingo reads: the mean over
all hidden states, and for a whole clip that mean averaged over windows of time. So
whatever the heads can read, the adapter, which is linear too, can read. The heads are
discarded afterwards.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from musilingo_jax.models.adapter import pool
from musilingo_jax.models.layers import Linear
from musilingo_jax.models.mert import Mert
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.pretrained import weights
from musilingo_jax.recipes import loop
from musilingo_jax.recipes.lessons import UNKNOWN, Lessons, output_weights
from musilingo_jax.recipes.rendered_set import CHROMA, LABELS, RenderedSet
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import setting

# Weight of the loss of single windows beside that of whole clips.
_WINDOW_WEIGHT = 0.3
# Weight of the notes of recordings, which a model has guessed, beside those of a score.
_NOTE_WEIGHT = 0.5
# The same of the tempo of recordings.
_TEMPO_WEIGHT = 0.15


@dataclasses.dataclass(frozen=True)
class EncoderRecipe:
    """How long and how fast the encoder learns.

    Attributes:
      start: the encoder that it begins with, a folder or the name of an embedded one;
        "" for random numbers.
      steps: updates.
      batch_size: rendered clips per update.
      recorded_batch_size: excerpts of recordings per update.
      learning_rate: of AdamW, after a linear warm-up, falling to 0 by a cosine.
      warmup_steps: updates of the warm-up.
      weight_decay: of matrices only.
      gradient_norm: gradients are clipped to this global norm.
      frame_weight: weight of the frame targets' loss beside that of the clip labels.
      heard_weight: weight of the loss of what teachers heard in recordings.
      window_frames: frames per pooled window, as the adapter will read them.
      checkpoint_every: updates between checkpoints.
      seed: of the weights and of the order of clips.
    """

    start: str = setting()
    steps: int = setting(at_least=1)
    batch_size: int = setting(at_least=1)
    recorded_batch_size: int = setting(at_least=1)
    learning_rate: float = setting(above=0)
    warmup_steps: int = setting(at_least=0)
    weight_decay: float = setting(at_least=0)
    gradient_norm: float = setting(above=0)
    frame_weight: float = setting(at_least=0)
    heard_weight: float = setting(at_least=0)
    window_frames: int = setting(at_least=1)
    checkpoint_every: int = setting(at_least=1)
    seed: int = setting(at_least=0)


class Student(nnx.Module):
    """The encoder and the linear heads that read it during training."""

    def __init__(
        self, encoder: Mert, *, frame_targets: int, heard: int, rngs: nnx.Rngs
    ):
        width = encoder.config.hidden_size
        head = functools.partial(Linear, width, axes=(None, None), bias=True, rngs=rngs)
        self.encoder = encoder
        self.clip_heads = nnx.data(
            {name: head(len(values)) for name, values in LABELS.items()}
        )
        self.frame_head = head(frame_targets)
        self.heard_head = head(heard)

    def __call__(
        self, waveform: Float[Array, "batch samples"], window_frames: int
    ) -> tuple[Float[Array, "batch windows width"], Float[Array, "batch frames width"]]:
        """The features of each window, and those of each frame."""
        lengths = jnp.full(waveform.shape[0], waveform.shape[1], jnp.int32)
        frames = self.encoder(
            waveform, lengths, reduce=lambda hidden, valid: hidden, remat=False
        )
        valid = jnp.ones(frames.shape[:2], bool)
        windows, _ = pool(frames, valid, window_frames)
        return windows, frames


class Rendered(NamedTuple):
    """Rendered clips and their score.

    Attributes:
      waveform: clips of equal length.
      labels: the class of each clip, by attribute.
      targets: for each frame, from 0 to 1, what sounds in it.
    """

    waveform: Float[Array | np.ndarray, "batch samples"]
    labels: Mapping[str, Int[Array | np.ndarray, " batch"]]
    targets: Float[Array | np.ndarray, "batch frames targets"]


class Recorded(NamedTuple):
    """Copies of excerpts of recordings, as long as the rendered clips.

    Attributes:
      waveform: the copies.
      outputs: of the taggers, standardised.
      heard: whether `outputs` are known.
      chroma: for each frame, the probability that a pitch class sounds.
      noted: whether `chroma` is known.
      tempo: the classes of the tempo, by label, or `lessons.UNKNOWN`.
    """

    waveform: Float[Array | np.ndarray, "batch samples"]
    outputs: Float[Array | np.ndarray, "batch outputs"]
    heard: Bool[Array | np.ndarray, " batch"]
    chroma: Float[Array | np.ndarray, "batch frames 12"]
    noted: Bool[Array | np.ndarray, " batch"]
    tempo: Mapping[str, Int[Array | np.ndarray, " batch"]]


def loss(
    student: Student,
    rendered: Rendered,
    recorded: Recorded | None,
    *,
    window_frames: int,
    frame_weight: float,
    heard_weight: float,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Of what the score says of rendered clips, and the teachers of recordings.

    Args:
      student: what learns.
      rendered: clips whose score is known.
      recorded: excerpts that teachers have heard; None for none.
      window_frames: as in `EncoderRecipe`.
      frame_weight: as in `EncoderRecipe`.
      heard_weight: as in `EncoderRecipe`.

    Returns:
      The loss; and numbers to show, by name, as `_of_score` and `_of_teachers` do.
    """
    clips = len(rendered.waveform)
    waveform = jnp.asarray(rendered.waveform)
    if recorded is not None:
        waveform = jnp.concatenate([waveform, jnp.asarray(recorded.waveform)])
    windows, frames = student(waveform, window_frames)
    # The last window may be shorter: each counts by the frames that it holds.
    count = frames.shape[1]
    sizes = np.diff([*range(0, count, window_frames), count])
    shares = jnp.asarray(sizes / count, jnp.float32)
    total, numbers = _of_score(
        student, windows[:clips], frames[:clips], rendered, shares, frame_weight
    )
    if recorded is not None:
        more, found = _of_teachers(
            student, windows[clips:], frames[clips:], recorded, shares, frame_weight
        )
        total, numbers = total + heard_weight * more, numbers | found
    return total, numbers


def _of_score(
    student: Student,
    windows: Float[Array, "batch windows width"],
    frames: Float[Array, "batch frames width"],
    rendered: Rendered,
    shares: Float[Array, " windows"],
    frame_weight: float,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Cross entropy of each label, from the whole clip and from each window alone.

    Returns:
      The loss; and the share of clips whose label is right, by attribute, with the
      frames' loss as `frame_loss`.
    """
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels
    total, correct = jnp.float32(0.0), {}
    for name, head in student.clip_heads.items():
        logits, labels = head(windows), rendered.labels[name]
        whole = jnp.einsum("bwv,w->bv", logits, shares)
        total += jnp.mean(cross_entropy(whole, labels))
        each = cross_entropy(logits, labels[:, None])
        total += _WINDOW_WEIGHT * jnp.mean(jnp.sum(each * shares, axis=1))
        correct[name] = jnp.mean(jnp.argmax(whole, -1) == labels)
    frame_loss = jnp.mean(
        optax.sigmoid_binary_cross_entropy(student.frame_head(frames), rendered.targets)
    )
    return total + frame_weight * frame_loss, {**correct, "frame_loss": frame_loss}


def _of_teachers(
    student: Student,
    windows: Float[Array, "batch windows width"],
    frames: Float[Array, "batch frames width"],
    recorded: Recorded,
    shares: Float[Array, " windows"],
    frame_weight: float,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Squared distance from the taggers' outputs; cross entropy of notes and tempo.

    Returns:
      The loss; and the share of the taggers' variance that is not explained, as
      `heard_loss`.
    """
    outputs = student.heard_head(windows)
    heard_loss = _distance(outputs, recorded.outputs, recorded.heard, shares)
    logits = student.frame_head(frames)[..., CHROMA]
    missed = jnp.mean(
        optax.sigmoid_binary_cross_entropy(logits, recorded.chroma), axis=(1, 2)
    )
    total = sum(heard_loss)
    total += _NOTE_WEIGHT * frame_weight * _mean(missed, recorded.noted)
    for name, labels in recorded.tempo.items():
        logits, known = student.clip_heads[name](windows), labels != UNKNOWN
        each = optax.softmax_cross_entropy_with_integer_labels(
            jnp.einsum("bwv,w->bv", logits, shares), jnp.maximum(labels, 0)
        )
        total += _TEMPO_WEIGHT * _mean(each, known)
    return total, {"heard_loss": heard_loss[0]}


def _distance(
    outputs: Float[Array, "batch windows outputs"],
    goals: Float[Array | np.ndarray, "batch outputs"],
    known: Bool[Array | np.ndarray, " batch"],
    shares: Float[Array, " windows"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Squared distance of whole clips, and that of single windows with its weight."""
    weights = jnp.asarray(output_weights())
    whole = jnp.einsum("bwo,w->bo", outputs, shares)
    of_clips = jnp.square(whole - goals) @ weights
    of_windows = jnp.square(outputs - jnp.asarray(goals)[:, None]) @ weights
    return (
        _mean(of_clips, known),
        _WINDOW_WEIGHT * _mean(of_windows @ shares, known),
    )


def _mean(
    values: Float[Array, " batch"], known: Bool[Array | np.ndarray, " batch"]
) -> Float[Array, ""]:
    """The mean over the rows that are known; 0 if none is."""
    return jnp.sum(values * known) / jnp.maximum(jnp.sum(known), 1)


# Compiled once for all the sets that are measured during and after a training.
_measure = jax.jit(
    loss, static_argnames=("window_frames", "frame_weight", "heard_weight")
)


def accuracy(
    student: Student, rendered: RenderedSet, recipe: EncoderRecipe
) -> dict[str, float]:
    """Share of clips whose label the linear heads name, per attribute.

    Clips beyond the last whole batch are not measured.
    """
    batches = len(rendered) // recipe.batch_size
    found: dict[str, list[float]] = {}
    for rows in np.arange(batches * recipe.batch_size).reshape(batches, -1):
        _, numbers = _measure(
            student,
            Rendered(*rendered.batch(rows)),
            None,
            window_frames=recipe.window_frames,
            frame_weight=recipe.frame_weight,
            heard_weight=recipe.heard_weight,
        )
        for name, number in numbers.items():
            found.setdefault(name, []).append(float(number))
    return {name: float(np.mean(values)) for name, values in found.items()}


@functools.partial(jax.jit, static_argnames="window_frames")
def heard(
    student: Student, waveform: Float[Array, "batch samples"], window_frames: int
) -> Float[Array, "batch outputs"]:
    """What the student hears in place of the taggers: their outputs, standardised."""
    windows, frames = student(waveform, window_frames)
    count = frames.shape[1]
    sizes = np.diff([*range(0, count, window_frames), count])
    shares = jnp.asarray(sizes / count, jnp.float32)
    return jnp.einsum("bwo,w->bo", student.heard_head(windows), shares)


def rows_of_step(
    step: int, *, clips: int, batch_size: int, seed: int
) -> Int[np.ndarray, " batch_size"]:
    """The clips of an update: a pure function of (seed, step).

    Each epoch has an order of its own, and leaves out what fills no whole batch.
    """
    steps_per_epoch = clips // batch_size
    epoch, position = divmod(step, steps_per_epoch)
    order = np.random.default_rng([seed, epoch]).permutation(clips)
    return order[position * batch_size : (position + 1) * batch_size]


def first_encoder(config: MertConfig, start: str, rngs: nnx.Rngs) -> Mert:
    """The encoder that a training begins with; `start` as in `EncoderRecipe`.

    Raises:
      UserError: it cannot be read, or has another architecture.
    """
    if not start:
        return Mert(config, rngs=rngs)
    found = weights.load_encoder(start, dtype="float32", mesh=None)
    if found.config != config:
        raise UserError(
            f"config.encoder.recipe.start is {start}: its architecture is another than "
            'that of config.encoder.model; choose another, or "" for random numbers'
        )
    return found


def train(
    config: MertConfig,
    recipe: EncoderRecipe,
    *,
    training: RenderedSet,
    lessons: Lessons | None,
    held_out: Mapping[str, RenderedSet],
    folder: Path,
) -> Student:
    """Trains the encoder, resuming from the newest checkpoint in `folder`.

    Args:
      config: of the encoder.
      recipe: of the training.
      training: the rendered clips that it learns from.
      lessons: the recordings that it learns from; None for rendered clips alone.
      held_out: sets on which it is measured at each checkpoint, by name.
      folder: of the checkpoints.

    Raises:
      UserError: the encoder to begin with cannot be read, or has another architecture.
    """
    rngs = nnx.Rngs(recipe.seed)
    student = Student(
        first_encoder(config, recipe.start, rngs),
        frame_targets=training.targets.shape[2],
        heard=len(output_weights()),
        rngs=rngs,
    )

    def batch(step: int) -> tuple[Rendered, Recorded | None]:
        rows = rows_of_step(
            step, clips=len(training), batch_size=recipe.batch_size, seed=recipe.seed
        )
        rendered = Rendered(*training.batch(rows))
        if lessons is None:
            return rendered, None
        rows = rows_of_step(
            step,
            clips=len(lessons),
            batch_size=recipe.recorded_batch_size,
            seed=recipe.seed + 1,
        )
        return rendered, Recorded(*lessons.batch(rows, [recipe.seed, step]))

    def examine(student: Student) -> dict[str, dict[str, float]]:
        return {
            name: accuracy(student, rendered, recipe)
            for name, rendered in held_out.items()
        }

    return loop.train(
        student,
        functools.partial(
            loss,
            window_frames=recipe.window_frames,
            frame_weight=recipe.frame_weight,
            heard_weight=recipe.heard_weight,
        ),
        batch,
        optimiser=loop.adamw(
            learning_rate=recipe.learning_rate,
            final_learning_rate=0.0,
            warmup_steps=recipe.warmup_steps,
            steps=recipe.steps,
            weight_decay=recipe.weight_decay,
            gradient_norm=recipe.gradient_norm,
        ),
        steps=recipe.steps,
        checkpoint_every=recipe.checkpoint_every,
        folder=folder,
        settings=dataclasses.asdict(recipe),
        label="encoder",
        examine=examine,
    )

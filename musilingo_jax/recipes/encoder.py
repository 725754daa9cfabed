"""Trains the embedded encoder on rendered music, with the score as its labels.

MERT learns by predicting masked codes of 160,000 hours of music. With a budget of one
hour on two CPU cores, supervision is worth more, and the score of a rendered piece
provides it: for every frame the sounding pitch classes, bass, melody, onsets, beats,
drum strokes and instrument families, and for every clip its style, lead, tempo, mode,
key and drums. *Linear* heads predict all of them from the features that MusiLingo
reads: the mean over all hidden states, and for the labels of a clip that mean averaged
over windows of time. So whatever the heads can read, the adapter, which is linear too,
can read. The heads are discarded afterwards.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from musilingo_jax.corpora.styles import ATTRIBUTES
from musilingo_jax.models.layers import Linear
from musilingo_jax.models.mert import Mert
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.models.pooling import pool
from musilingo_jax.recipes import loop
from musilingo_jax.recipes.rendered_set import RenderedSet
from musilingo_jax.runtime.settings import setting

# Weight of the loss of single windows beside that of whole clips.
_WINDOW_WEIGHT = 0.3


@dataclasses.dataclass(frozen=True)
class EncoderRecipe:
    """How long and how fast the encoder learns.

    Attributes:
      steps: updates.
      batch_size: clips per update.
      learning_rate: of AdamW, after a linear warm-up, falling to 0 by a cosine.
      warmup_steps: updates of the warm-up.
      weight_decay: of matrices only.
      gradient_norm: gradients are clipped to this global norm.
      frame_weight: weight of the frame targets' loss beside that of the clip labels.
      window_frames: frames per pooled window, as the adapter will read them.
      checkpoint_every: updates between checkpoints.
      seed: of the weights and of the order of clips.
    """

    steps: int = setting(at_least=1)
    batch_size: int = setting(at_least=1)
    learning_rate: float = setting(above=0)
    warmup_steps: int = setting(at_least=0)
    weight_decay: float = setting(at_least=0)
    gradient_norm: float = setting(above=0)
    frame_weight: float = setting(at_least=0)
    window_frames: int = setting(at_least=1)
    checkpoint_every: int = setting(at_least=1)
    seed: int = setting(at_least=0)


class Student(nnx.Module):
    """The encoder and the linear heads that read it during training."""

    def __init__(self, config: MertConfig, *, frame_targets: int, rngs: nnx.Rngs):
        head = functools.partial(
            Linear, config.hidden_size, axes=(None, None), bias=True, rngs=rngs
        )
        self.encoder = Mert(config, rngs=rngs)
        self.clip_heads = nnx.data(
            {name: head(len(values)) for name, values in ATTRIBUTES.items()}
        )
        self.frame_head = head(frame_targets)

    def __call__(
        self, waveform: Float[Array, "batch samples"], window_frames: int
    ) -> tuple[
        dict[str, Float[Array, "batch windows _"]], Float[Array, "batch frames targets"]
    ]:
        """The logits of each attribute for each window, and those of each frame."""
        lengths = jnp.full(waveform.shape[0], waveform.shape[1], jnp.int32)
        frames = self.encoder(
            waveform, lengths, reduce=lambda hidden, valid: hidden, remat=False
        )
        valid = jnp.ones(frames.shape[:2], bool)
        windows, _ = pool(frames, valid, window_frames)
        clip = {name: head(windows) for name, head in self.clip_heads.items()}
        return clip, self.frame_head(frames)


def loss(
    student: Student,
    waveform: Float[Array, "batch samples"],
    labels: Mapping[str, Int[Array, " batch"]],
    targets: Float[Array, "batch frames targets"],
    *,
    window_frames: int,
    frame_weight: float,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Cross entropy of each label, from the whole clip and from each window alone.

    Args:
      student: what learns.
      waveform: clips of equal length.
      labels: the class of each clip, by attribute.
      targets: for each frame, from 0 to 1, what sounds in it.
      window_frames: as in `EncoderRecipe`.
      frame_weight: as in `EncoderRecipe`.

    Returns:
      The loss; and the share of clips whose label is right, by attribute, with the
      frames' loss as `frame_loss`.
    """
    clip_logits, frame_logits = student(waveform, window_frames)
    # The last window may be shorter: each counts by the frames that it holds.
    frames = frame_logits.shape[1]
    sizes = np.diff([*range(0, frames, window_frames), frames])
    shares = jnp.asarray(sizes / frames, jnp.float32)
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels
    total, correct = jnp.float32(0.0), {}
    for name, logits in clip_logits.items():
        whole = jnp.einsum("bwv,w->bv", logits, shares)
        total += jnp.mean(cross_entropy(whole, labels[name]))
        each = cross_entropy(logits, labels[name][:, None])
        total += _WINDOW_WEIGHT * jnp.mean(jnp.sum(each * shares, axis=1))
        correct[name] = jnp.mean(jnp.argmax(whole, -1) == labels[name])
    frame_loss = jnp.mean(optax.sigmoid_binary_cross_entropy(frame_logits, targets))
    return total + frame_weight * frame_loss, {**correct, "frame_loss": frame_loss}


# Compiled once for all the sets that are measured during and after a training.
_measure = jax.jit(loss, static_argnames=("window_frames", "frame_weight"))


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
            *rendered.batch(rows),
            window_frames=recipe.window_frames,
            frame_weight=recipe.frame_weight,
        )
        for name, number in numbers.items():
            found.setdefault(name, []).append(float(number))
    return {name: float(np.mean(values)) for name, values in found.items()}


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


def train(
    config: MertConfig,
    recipe: EncoderRecipe,
    *,
    training: RenderedSet,
    held_out: Mapping[str, RenderedSet],
    folder: Path,
) -> Student:
    """Trains the encoder, resuming from the newest checkpoint in `folder`.

    Args:
      config: of the encoder.
      recipe: of the training.
      training: what it learns from.
      held_out: sets on which it is measured at each checkpoint, by name.
      folder: of the checkpoints.
    """
    student = Student(
        config, frame_targets=training.targets.shape[2], rngs=nnx.Rngs(recipe.seed)
    )

    def batch(step: int) -> tuple:
        rows = rows_of_step(
            step, clips=len(training), batch_size=recipe.batch_size, seed=recipe.seed
        )
        return training.batch(rows)

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

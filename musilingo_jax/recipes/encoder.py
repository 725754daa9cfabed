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

`student.py` has what is computed in an update.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from musilingo_jax.models.mert import Mert
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.pretrained import weights
from musilingo_jax.recipes import loop
from musilingo_jax.recipes.lessons import Lessons, output_weights
from musilingo_jax.recipes.rendered_set import RenderedSet
from musilingo_jax.recipes.student import Recorded, Rendered, Student, loss
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import setting


@dataclasses.dataclass(frozen=True)
class EncoderRecipe:
    """How long and how fast the encoder learns.

    Attributes:
      start: the encoder that it begins with, a folder or the name of an embedded one;
        "" for random numbers.
      steps: updates.
      parts: stages into which the updates are divided, so that none takes too long.
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
    parts: int = setting(at_least=1)
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

    def end_of(self, part: int) -> int:
        """The updates that are made when a part ends; parts are counted from 1."""
        return self.steps * part // self.parts


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

    Its positional convolution may be narrower than that of `config`; it is padded with
    zeros, so that it computes the same.

    Raises:
      UserError: it cannot be read, or has another architecture.
    """
    if not start:
        return Mert(config, rngs=rngs)
    found = weights.load_encoder(start, dtype="float32", mesh=None)
    narrow, wide = (c.num_conv_pos_embeddings for c in (found.config, config))
    if narrow < wide:
        kernel = found.positional.kernel
        before = wide // 2 - narrow // 2
        padding = ((before, wide - narrow - before), (0, 0), (0, 0))
        kernel.set_value(jnp.pad(kernel[...], padding))
        found.config = dataclasses.replace(found.config, num_conv_pos_embeddings=wide)
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
    part: int,
) -> Student:
    """Trains the encoder, resuming from the newest checkpoint in `folder`.

    It makes the same updates in parts as it would in one.

    Args:
      config: of the encoder.
      recipe: of the training.
      training: the rendered clips that it learns from.
      lessons: the recordings that it learns from; None for rendered clips alone.
      held_out: sets on which it is measured at each checkpoint, by name.
      folder: of the checkpoints.
      part: how far, counted from 1.

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
        steps=recipe.end_of(part),
        checkpoint_every=recipe.checkpoint_every,
        folder=folder,
        settings=dataclasses.asdict(recipe),
        label="encoder",
        examine=examine,
    )

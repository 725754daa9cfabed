"""Trains the embedded encoder on rendered music, whose score gives the answers.

MERT learns by predicting masked codes of 160,000 hours of music. At our budget (an
hour of two CPU cores) it pays more to tell the encoder what there is to hear: the score
of a rendered piece gives, for every frame, the sounding pitch classes, bass, melody,
onsets, beats, drum strokes and instrument families, and for every clip its style, lead,
tempo, mode, key and drums. All of them are read by *linear* heads from the very
features that MusiLingo reads: the mean over all hidden states, and for the clip's
labels that mean averaged over windows of time. So whatever the heads find there, the
adapter, which is linear too, can find. The heads are thrown away afterwards.
"""

import dataclasses
import functools
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from musilingo_jax.corpora import synthetic
from musilingo_jax.models.adapter import pool
from musilingo_jax.models.layers import Linear
from musilingo_jax.models.mert import Mert, MertConfig
from musilingo_jax.runtime import cli
from musilingo_jax.training.checkpoints import Checkpoints


@dataclasses.dataclass(frozen=True)
class EncoderRecipe:
    """How long and how fast the encoder learns.

    Attributes:
      steps: optimiser steps.
      batch_size: clips per step.
      learning_rate: of AdamW, after a linear warm-up, falling to 0 by a cosine.
      warmup_steps: length of the warm-up.
      weight_decay: on matrices only.
      gradient_norm: gradients are clipped to this global norm.
      frame_weight: weight of the frame targets' loss beside that of the clip labels.
      window_frames: frames per pooled window, as the adapter will read them.
      checkpoint_every: steps between checkpoints.
      seed: of the weights and of the order of clips.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    gradient_norm: float
    frame_weight: float
    window_frames: int
    checkpoint_every: int
    seed: int


class Student(nnx.Module):
    """The encoder and the linear heads that question it during training."""

    def __init__(self, config: MertConfig, *, frame_targets: int, rngs: nnx.Rngs):
        width = config.hidden_size
        self.encoder = Mert(config, rngs=rngs)
        self.clip_heads = nnx.data(
            {
                name: Linear(
                    width, len(values), axes=(None, None), bias=True, rngs=rngs
                )
                for name, values in synthetic.ATTRIBUTES.items()
            }
        )
        self.frame_head = Linear(
            width, frame_targets, axes=(None, None), bias=True, rngs=rngs
        )

    def __call__(
        self, waveform: Float[Array, "batch samples"], window_frames: int
    ) -> tuple[dict[str, Array], Array]:
        """Clip logits, {attribute: [batch, windows, values]}, and frame logits."""
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
    labels: dict[str, Array],
    targets: Float[Array, "batch frames targets"],
    *,
    window_frames: int,
    frame_weight: float,
) -> tuple[Array, dict[str, Array]]:
    """Cross entropy of every label, from the whole clip and from each single window."""
    clip_logits, frame_logits = student(waveform, window_frames)
    # The last window is shorter: each counts by the frames that it holds.
    frames = frame_logits.shape[1]
    sizes = np.diff([*range(0, frames, window_frames), frames])
    shares = jnp.asarray(sizes / frames, jnp.float32)
    total, correct = 0.0, {}
    for name, logits in clip_logits.items():
        whole = jnp.einsum("bwv,w->bv", logits, shares)
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels
        total += jnp.mean(cross_entropy(whole, labels[name]))
        each = cross_entropy(logits, labels[name][:, None])
        total += 0.3 * jnp.mean(jnp.sum(each * shares, axis=1))
        correct[name] = jnp.mean(jnp.argmax(whole, -1) == labels[name])
    frame_loss = jnp.mean(optax.sigmoid_binary_cross_entropy(frame_logits, targets))
    return total + frame_weight * frame_loss, {**correct, "frame_loss": frame_loss}


def optimiser(recipe: EncoderRecipe) -> optax.GradientTransformation:
    """AdamW with warm-up, cosine and clipped gradients."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, recipe.learning_rate, recipe.warmup_steps, recipe.steps
    )
    return optax.chain(
        optax.clip_by_global_norm(recipe.gradient_norm),
        optax.adamw(
            schedule,
            b2=0.98,
            weight_decay=recipe.weight_decay,
            mask=functools.partial(jax.tree.map, lambda x: x.ndim > 1),
        ),
    )


def resume(saved: Checkpoints, state):
    """Returns (steps done, state): the newest checkpoint's, or `state` as it is."""
    step = saved.latest()
    if step is None:
        return 0, state
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    return step, saved.restore(step, like)


def frame_matrix(targets: dict[str, np.ndarray]) -> np.ndarray:
    """The frame targets side by side, in alphabetical order, [frames, targets]."""
    return np.concatenate([targets[name] for name in sorted(targets)], axis=1)


class RenderedSet:
    """A rendered set on disk (see `render.write_set`) with its frame targets."""

    def __init__(self, folder: Path, *, frames: int, frames_per_second: float):
        self.waveform = np.load(folder / "waveform.npy", mmap_mode="r")
        labels = np.load(folder / "labels.npz")
        self.labels = {
            name: labels[name].astype(np.int32) for name in synthetic.ATTRIBUTES
        }
        stored = folder / f"targets-{frames}.npy"
        if not stored.exists():
            made = json.loads((folder / "set.json").read_text())
            rows = []
            for index in cli.progress(
                range(made["clips"]), total=made["clips"], unit="clip", label="targets"
            ):
                piece = synthetic.compose(
                    np.random.default_rng([made["seed"], index]),
                    duration=made["duration"],
                )
                targets = synthetic.frame_targets(
                    piece, frames_per_second=frames_per_second, frames=frames
                )
                # A target lies between 0 and 1: a byte is enough of it.
                rows.append(np.round(255 * frame_matrix(targets)).astype(np.uint8))
            unfinished = stored.with_suffix(".tmp.npy")
            np.save(unfinished, np.stack(rows))
            os.replace(unfinished, stored)
        self.targets = np.load(stored, mmap_mode="r")

    def __len__(self) -> int:
        return len(self.waveform)

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, dict, np.ndarray]:
        """Waveforms float32 [rows, samples], labels, frame targets in [0, 1]."""
        rows = np.sort(rows)
        return (
            self.waveform[rows].astype(np.float32) / 32768,
            {name: values[rows] for name, values in self.labels.items()},
            self.targets[rows].astype(np.float32) / 255,
        )


def rows_of_step(step: int, *, clips: int, batch_size: int, seed: int) -> np.ndarray:
    """The clips of a step: a pure function of (seed, step), each epoch a new order."""
    steps_per_epoch = clips // batch_size
    epoch, position = divmod(step, steps_per_epoch)
    order = np.random.default_rng([seed, epoch]).permutation(clips)
    return order[position * batch_size : (position + 1) * batch_size]


def accuracy(student: Student, rendered: RenderedSet, recipe: EncoderRecipe) -> dict:
    """Share of clips whose label the linear heads name, per attribute."""
    measure = jax.jit(
        functools.partial(
            loss,
            window_frames=recipe.window_frames,
            frame_weight=recipe.frame_weight,
        )
    )
    batches = len(rendered) // recipe.batch_size
    found: dict[str, list] = {}
    for rows in np.arange(batches * recipe.batch_size).reshape(batches, -1):
        _, numbers = measure(student, *rendered.batch(rows))
        for name, number in numbers.items():
            found.setdefault(name, []).append(float(number))
    return {name: float(np.mean(values)) for name, values in found.items()}


def train(
    config: MertConfig,
    recipe: EncoderRecipe,
    *,
    training: RenderedSet,
    held_out: dict[str, RenderedSet],
    folder: Path,
) -> Student:
    """Trains the encoder, resuming from the newest checkpoint below `folder`."""
    student = Student(
        config,
        frame_targets=training.targets.shape[2],
        rngs=nnx.Rngs(recipe.seed),
    )
    tx = optimiser(recipe)
    state = (student, jax.jit(tx.init)(student))
    saved = Checkpoints(folder, keep=1)
    start, state = resume(saved, state)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, waveform, labels, targets):
        student, moments = state
        (value, numbers), gradient = jax.value_and_grad(loss, has_aux=True)(
            student,
            waveform,
            labels,
            targets,
            window_frames=recipe.window_frames,
            frame_weight=recipe.frame_weight,
        )
        updates, moments = tx.update(gradient, moments, student)
        return (optax.apply_updates(student, updates), moments), value, numbers

    with cli.progress(
        total=recipe.steps, initial=start, unit="step", label="encoder"
    ) as bar:
        for index in range(start, recipe.steps):
            rows = rows_of_step(
                index,
                clips=len(training),
                batch_size=recipe.batch_size,
                seed=recipe.seed,
            )
            state, value, numbers = step(state, *training.batch(rows))
            bar.update()
            if index % 20 == 0:
                shown = {name: f"{float(x):.2f}" for name, x in numbers.items()}
                bar.set_postfix(loss=f"{float(value):.3f}", **shown)
            if (index + 1) % recipe.checkpoint_every == 0 or index + 1 == recipe.steps:
                saved.save(
                    index + 1, state, dataclasses.asdict(recipe), validation=None
                )
                for name, rendered in held_out.items():
                    found = accuracy(state[0], rendered, recipe)
                    text = "  ".join(f"{key} {x:.3f}" for key, x in found.items())
                    bar.write(f"encoder step {index + 1}, {name}: {text}")
    saved.close()
    return state[0]

"""The encoder while it learns: linear heads that read it, and their losses.

*Linear* heads predict all that is taught from the features that MusiLingo reads: the
mean over all hidden states, and for a whole clip that mean averaged over windows of
time. So whatever the heads can read, the adapter, which is linear too, can read. The
heads are discarded afterwards.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from musilingo_jax.models.layers import Linear
from musilingo_jax.models.mert import Mert
from musilingo_jax.models.pooling import pool
from musilingo_jax.recipes.lessons import RHYTHM, UNKNOWN, output_weights
from musilingo_jax.recipes.rendered_set import CHROMA, LABELS

# Weight of the loss of single windows beside that of whole clips.
_WINDOW_WEIGHT = 0.3
# Weight of the notes of recordings, which a model has guessed, beside those of a score.
_NOTE_WEIGHT = 0.5
# The same of the tempo of recordings.
_TEMPO_WEIGHT = 0.4
# The same of how well each tempo fits, which is known of excerpts without one, too. It
# varies by about `_RHYTHM_SPREAD`.
_RHYTHM_WEIGHT, _RHYTHM_SPREAD = 0.5, 0.13
# A tempo as a number counts as the class beside it, too, a little: the classes are one
# twenty-fifth apart, and a tempo lies anywhere between two (Böck and Davies 2020 widen
# tempo targets likewise).
_BESIDE = 0.2


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
        self.rhythm_head = head(len(RHYTHM))

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
      rhythm: how well each tempo of `lessons.RHYTHM` fits, from -1 to 1.
      tempo: the classes of the tempo, by label, or `lessons.UNKNOWN`.
    """

    waveform: Float[Array | np.ndarray, "batch samples"]
    outputs: Float[Array | np.ndarray, "batch outputs"]
    heard: Bool[Array | np.ndarray, " batch"]
    chroma: Float[Array | np.ndarray, "batch frames 12"]
    noted: Bool[Array | np.ndarray, " batch"]
    rhythm: Float[Array | np.ndarray, "batch tempi"]
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
    """Squared distance from what is heard; cross entropy of notes and of the tempo.

    Heard are the taggers' outputs, and how well each tempo fits.

    Returns:
      The loss; and the shares of the taggers' variance and of the rhythms' that are not
      explained, as `heard_loss` and, about, `rhythm_loss`.
    """
    outputs = student.heard_head(windows)
    heard_loss = _distance(outputs, recorded.outputs, recorded.heard, shares)
    logits = student.frame_head(frames)[..., CHROMA]
    missed = jnp.mean(
        optax.sigmoid_binary_cross_entropy(logits, recorded.chroma), axis=(1, 2)
    )
    total = sum(heard_loss)
    total += _NOTE_WEIGHT * frame_weight * _mean(missed, recorded.noted)
    rhythm = jnp.einsum("bwt,w->bt", student.rhythm_head(windows), shares)
    goals = jnp.asarray(recorded.rhythm) / _RHYTHM_SPREAD
    rhythm_loss = jnp.mean(jnp.square(rhythm - goals))
    total += _RHYTHM_WEIGHT * rhythm_loss
    for name, labels in recorded.tempo.items():
        logits = jnp.einsum("bwv,w->bv", student.clip_heads[name](windows), shares)
        goals = jax.nn.one_hot(labels, logits.shape[-1])
        if name == "beats":
            goals = _widened(goals)
        each = optax.softmax_cross_entropy(logits, goals)
        total += _TEMPO_WEIGHT * _mean(each, labels != UNKNOWN)
    return total, {"heard_loss": heard_loss[0], "rhythm_loss": rhythm_loss}


def _widened(goals: Float[Array, "batch classes"]) -> Float[Array, "batch classes"]:
    """Goals that also name the class below and the class above, by `_BESIDE`."""
    ends = jnp.pad(goals, ((0, 0), (1, 1)), mode="edge")
    return (1 - 2 * _BESIDE) * goals + _BESIDE * (ends[:, :-2] + ends[:, 2:])


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

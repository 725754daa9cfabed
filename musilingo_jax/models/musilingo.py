"""MusiLingo: audio vectors among word embeddings, and the loss of the answer.

    tokens      <s>  ### Human :  <Audio>  .    .   </Audio> What … ?  ### Assistant :
    audio_slot   -1   -1  -1  -1    -1     0    1      -1     -1  … -1   -1    -1   -1
                                           ↑    ↑
                            the adapter's vectors of the clip's windows

The language model is frozen; the loss is differentiated by its first argument only.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from numpy import ndarray

from musilingo_jax.models.llama import Llama


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """Rows of text with audio in them. Several examples may share a row."""

    features: jax.Array  # float32[batch, windows, width]: the encoder's pooled frames
    tokens: jax.Array  # int32[batch, time]; in an audio slot, any token
    audio_slot: jax.Array  # int32[batch, time]: window at this position, -1 = a token
    segments: jax.Array  # int32[batch, time]: 0 = padding, 1… = example in the row
    positions: jax.Array  # int32[batch, time]: place within the example, from 0
    targets: jax.Array  # int32[batch, answers]: positions in the row of the tokens to
    # predict, never the first of their example; -1 = unused


def splice(
    text: Float[Array, "batch time width"],
    audio: Float[Array, "batch windows width"],
    audio_slot: Int[Array | ndarray, "batch time"],
) -> Float[Array, "batch time width"]:
    """Puts audio vectors where `audio_slot` names them, and words elsewhere.

        text          w0  w1  w2  w3  w4
        audio         a0  a1
        audio_slot    -1  -1   0   1  -1
        result        w0  w1  a0  a1  w4

    A slot without an audio vector becomes NaN, so that the loss shows it.
    """
    chosen = jnp.take_along_axis(
        audio, jnp.maximum(audio_slot, 0)[..., None], axis=1, mode="fill"
    )
    return jnp.where(audio_slot[..., None] >= 0, chosen, text)


def attend_mask(
    segments: Int[Array | ndarray, "batch time"],
) -> Bool[Array, "batch time time"]:
    """Which positions each may attend to: earlier ones of its own example, and itself.

    segments           1 1 1 2 2 0

    query 0   1        x . . . . .
          1   1        x x . . . .
          2   1        x x x . . .
          3   2        . . . x . .
          4   2        . . . x x .
          5   0        . . . . . .
    """
    time = jnp.arange(segments.shape[1])
    same = segments[:, :, None] == segments[:, None, :]
    text = segments[:, :, None] > 0
    return same & text & (time[:, None] >= time[None, :])


def answer_loss(
    adapter: Callable[[Array], Array], llama: Llama, batch: Batch, *, remat: bool
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """Summed cross entropy of the answers' tokens, in nats, and the number of tokens.

    A sum and a count, so that batches and devices can be added up before the division.
    Scores over the whole vocabulary are the largest array of all; they are computed
    for the answers only.

    Args:
      adapter: the part that learns.
      llama: the frozen language model.
      batch: rows of text with audio.
      remat: recompute the inside of layers in the backward pass.
    """
    embeddings = splice(
        llama.embed(batch.tokens), adapter(batch.features), batch.audio_slot
    )
    hidden = llama(
        embeddings,
        positions=batch.positions,
        attend=attend_mask(batch.segments),
        remat=remat,
    )
    used = batch.targets >= 0
    # Token t is predicted from the hidden state before it.
    before = jnp.maximum(batch.targets - 1, 0)
    hidden = jnp.take_along_axis(hidden, before[..., None], axis=1)
    answer = jnp.take_along_axis(batch.tokens, jnp.maximum(batch.targets, 0), axis=1)
    logits = llama.logits(hidden)
    score = jnp.take_along_axis(logits, answer[..., None], axis=-1)[..., 0]
    entropy = jax.nn.logsumexp(logits, axis=-1) - score
    return jnp.sum(jnp.where(used, entropy, 0.0)), jnp.sum(used, dtype=jnp.int32)

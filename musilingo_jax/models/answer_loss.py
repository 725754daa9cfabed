"""Text that is heard with audio, and the loss of its answers.

A bridge that splices, such as MusiLingo's, puts vectors among the word embeddings:

    tokens      <s>  ### Human :  <Audio>  .    .   </Audio> What … ?  ### Assistant :
    audio_slot   -1   -1  -1  -1    -1     0    1      -1     -1  … -1   -1    -1   -1
                                           ↑    ↑
                            the bridge's vectors of the clip's windows

The loss is differentiated by its first argument only, which holds the parts that learn.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from numpy import ndarray

from musilingo_jax.models import attention_blocks
from musilingo_jax.models.attention_blocks import Blocks
from musilingo_jax.models.heard import END, WORD
from musilingo_jax.models.llama import Llama
from musilingo_jax.models.parts import Parts

CHUNK = 256
"""Targets of a row whose scores over the vocabulary are in memory at the same time."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """Rows of text with audio in them. Several examples may share a row."""

    features: jax.Array  # float32[batch, windows, width]: of the encoder, pooled
    tokens: jax.Array  # int32[batch, time]; in an audio slot, any token
    audio_slot: jax.Array  # int32[batch, time]: window at this position, or one of
    # `heard.WORD`, `heard.BEGIN` and `heard.END`
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

    `heard.BEGIN` and `heard.END` name the last two audio vectors. A slot without an
    audio vector becomes NaN, so that the loss shows it.
    """
    slots = jnp.asarray(audio_slot)
    mark = audio.shape[1] - 1 - (slots - END)
    index = jnp.where(slots >= 0, slots, jnp.maximum(mark, 0))
    chosen = jnp.take_along_axis(audio, index[..., None], axis=1, mode="fill")
    return jnp.where(slots[..., None] == WORD, text, chosen)


def answer_loss(
    learning: Parts,
    frozen: Parts,
    batch: Batch,
    *,
    remat: str,
    blocks: Blocks = attention_blocks.DEFAULT,
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """Summed cross entropy of the answers' tokens, in nats, and the number of tokens.

    A sum and a count, so that batches and devices can be added up before the division.

    Args:
      learning: the parts that learn.
      frozen: the other parts.
      batch: rows of text with audio.
      remat: what the backward pass keeps of each layer, a key of
        `remat.POLICIES`.
      blocks: of attention on TPUs.
    """
    model = learning.and_those_of(frozen)
    llama, heard = model.llama, model.hear(batch.features)
    embeddings = llama.embed(batch.tokens)
    if heard.spliced is not None:
        embeddings = splice(embeddings, heard.spliced, batch.audio_slot)
    hidden = llama(
        embeddings,
        positions=batch.positions,
        segments=batch.segments,
        remat=remat,
        blocks=blocks,
        added=heard.added,
        tuning=model.tuning,
    )
    return target_entropy(llama, hidden, batch.tokens, batch.targets)


def target_entropy(
    llama: Llama,
    hidden: Float[Array, "batch time width"],
    tokens: Int[Array | ndarray, "batch time"],
    targets: Int[Array | ndarray, "batch answers"],
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """Summed cross entropy of the tokens at `targets`, and the number of them.

    Scores over the vocabulary would be the largest array of all. They exist for `CHUNK`
    targets of each row at a time, forward and backward:

        targets     3 4 5 6 7 8 9 -1        chunks of 4     3 4 5 6 | 7 8 9 -1

    Args:
      llama: the language model.
      hidden: its hidden states; token t is predicted from the one before it.
      tokens: of each row.
      targets: positions of the tokens to predict; -1 = unused.
    """

    def entropy(
        hidden: Float[Array, "batch chunk width"], targets: Int[Array, "batch chunk"]
    ) -> Float[Array, ""]:
        answer = jnp.take_along_axis(tokens, jnp.maximum(targets, 0), axis=1)
        logits = llama.logits(hidden)
        score = jnp.take_along_axis(logits, answer[..., None], axis=-1)[..., 0]
        lost = jax.nn.logsumexp(logits, axis=-1) - score
        return jnp.sum(jnp.where(targets >= 0, lost, 0.0))

    tokens, targets = jnp.asarray(tokens), jnp.asarray(targets)
    count = jnp.sum(targets >= 0, dtype=jnp.int32)
    before = jnp.maximum(targets - 1, 0)
    hidden = jnp.take_along_axis(hidden, before[..., None], axis=1)
    starts = range(0, targets.shape[1], CHUNK)
    if len(starts) > 1:
        entropy = jax.checkpoint(entropy)
    total = jnp.zeros(())
    # Written out: a loop would hold a copy of the head.
    for start in starts:
        chunk = slice(start, start + CHUNK)
        total += entropy(hidden[:, chunk], targets[:, chunk])
    return total, count

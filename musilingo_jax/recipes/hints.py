"""What the audio slot holds while the embedded language model is trained.

For each audio vector, a sum of word embeddings: those of the words of the piece's
attributes, some left out, blurred with other values, and noisy. For a slow waltz:

    vector 0    0.8 · embed("waltz") + 0.2 · embed("rock")                     + noise
    vector 1    0.9 · embed("waltz") + 0.1 · embed("jazz") + embed("slow")     + noise
    vector 2                                                 embed("slow")     + noise

The adapter must later produce such vectors from sound.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from musilingo_jax.corpora.styles import ATTRIBUTES
from musilingo_jax.models.llama import Llama
from musilingo_jax.pretrained.tokenizer import Tokenizer

_SLOTS_WITH_HINTS = 0.95  # the other slots are empty but for the noise


def value_tokens(tokenizer: Tokenizer) -> Int[np.ndarray, "attributes values words"]:
    """The tokens of the words of each value of each attribute; -1 is padding."""
    spelt = [
        [tokenizer.encode(value) for value in values] for values in ATTRIBUTES.values()
    ]
    most = max(len(values) for values in spelt)
    longest = max(len(words) for values in spelt for words in values)
    table = np.full((len(spelt), most, longest), -1, np.int32)
    for attribute, values in enumerate(spelt):
        for value, words in enumerate(values):
            table[attribute, value, : len(words)] = words
    return table


def value_embeddings(
    llama: Llama, table: Int[np.ndarray, "attributes values words"]
) -> Float[Array, "attributes values width"]:
    """The sum of the embeddings of each value's words; zeros where there is no value.

    Args:
      llama: whose embeddings are summed.
      table: from `value_tokens`.
    """
    embedded = llama.embed(jnp.maximum(table, 0).reshape(len(table), -1))
    embedded = embedded.reshape(*table.shape, -1)
    return jnp.sum(jnp.where(table[..., None] >= 0, embedded, 0.0), axis=2)


def hints(
    llama: Llama,
    table: Int[np.ndarray, "attributes values words"],
    values: Int[Array | np.ndarray, "batch attributes"],
    asked: Bool[Array | np.ndarray, "batch attributes"],
    *,
    windows: int,
    keep_asked: float,
    keep_others: float | Float[Array, ""],
    thin: float,
    blur: float,
    noise: float,
    key: PRNGKeyArray,
) -> Float[Array, "batch windows width"]:
    """Random hints about some pieces.

    Args:
      llama: whose embeddings the hints are made of; they get no gradient from here.
      table: from `value_tokens`.
      values: the value of each attribute of the piece.
      asked: which attributes the text is about.
      windows: audio vectors per row.
      keep_asked: probability that an attribute that the text is about is hinted at.
      keep_others: the same for the other attributes.
      thin: probability that a hint is left out of one audio vector.
      blur: a hint is mixed with another value's, with a share uniform in [0, blur].
      noise: its standard deviation, in units of the embeddings' own.
      key: of all draws.
    """
    batch, attributes = values.shape
    keys = jax.random.split(key, 6)
    embedded = jax.lax.stop_gradient(value_embeddings(llama, table))
    counts = np.array([len(names) for names in ATTRIBUTES.values()])
    others = jax.random.randint(keys[0], values.shape, 0, counts)
    share = blur * jax.random.uniform(keys[1], (batch, windows, attributes, 1))
    row = np.arange(attributes)
    hint = (1 - share) * embedded[row, values][:, None]
    hint += share * embedded[row, others][:, None]
    kept = jax.random.uniform(keys[2], values.shape) < jnp.where(
        asked, keep_asked, keep_others
    )
    kept &= jax.random.uniform(keys[3], (batch, 1)) < _SLOTS_WITH_HINTS
    present = jax.random.uniform(keys[4], (batch, windows, attributes)) > thin
    vectors = jnp.sum(hint * (kept[:, None] & present)[..., None], axis=2)
    spread = noise * jnp.std(embedded)
    return vectors + spread * jax.random.normal(keys[5], vectors.shape)

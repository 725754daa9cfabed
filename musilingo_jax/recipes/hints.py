"""What the audio slot holds while the embedded language model is trained.

Every value of every fact has a code: a vector of its own. For each audio vector,
a sum of codes: those of what is known of the song, some left out, blurred with other
values, and noisy. For a slow waltz:

    vector 0    0.8 · code("waltz") + 0.2 · code("rock")                   + noise
    vector 1    0.9 · code("waltz") + 0.1 · code("jazz") + code("slow")    + noise
    vector 2                                               code("slow")    + noise

A fact that is not known has no code in the slot, and the model learns to say that it
cannot tell. The adapter must later produce such vectors from sound: strong ones where
the evidence is strong, weak ones where it is weak.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from musilingo_jax.corpora.facts import FACTS

_SLOTS_WITH_HINTS = 0.95  # the other slots are empty but for the noise
_SEED = 20261129
UNKNOWN = -1
"""In place of a value, for a fact that is not known."""


def codes(width: int) -> Float[np.ndarray, "facts values width"]:
    """The code of each value: its numbers are near ±1, and it is orthogonal to others.

    Where there are more values than `width`, nearly so. Zeros where a fact has no such
    value.
    """
    rng = np.random.default_rng(_SEED)
    count = sum(len(values) for values in FACTS.values())
    rows = rng.standard_normal((max(count, width), width))
    if count <= width:
        rows, upper = np.linalg.qr(rows)
        # Of either sign, depending on the library, but for this.
        rows = (rows * np.sign(np.diag(upper)) * np.sqrt(width)).T
    most = max(len(values) for values in FACTS.values())
    table, done = np.zeros((len(FACTS), most, width), np.float32), 0
    for fact, values in enumerate(FACTS.values()):
        table[fact, : len(values)] = rows[done : done + len(values)]
        done += len(values)
    return table


def hints(
    values: Int[Array | np.ndarray, "batch facts"],
    asked: Bool[Array | np.ndarray, "batch facts"],
    *,
    width: int,
    windows: int,
    keep_asked: float,
    keep_others: float | Float[Array, ""],
    thin: float,
    blur: float,
    noise: float,
    key: PRNGKeyArray,
) -> Float[Array, "batch windows width"]:
    """Random hints about some songs.

    Args:
      values: the value of each fact, or `UNKNOWN`.
      asked: which facts the text is about.
      width: of the language model.
      windows: audio vectors per row.
      keep_asked: probability that a fact that the text is about is hinted at.
      keep_others: the same for the other facts.
      thin: probability that a hint is left out of one audio vector.
      blur: a hint is mixed with another value's, with a share uniform in [0, blur].
      noise: its standard deviation, in units of the codes' own.
      key: of all draws.
    """
    batch, facts = values.shape
    keys = jax.random.split(key, 6)
    table = jnp.asarray(codes(width))
    counts = np.array([len(names) for names in FACTS.values()])
    others = jax.random.randint(keys[0], values.shape, 0, counts)
    share = blur * jax.random.uniform(keys[1], (batch, windows, facts, 1))
    row = np.arange(facts)
    hint = (1 - share) * table[row, jnp.maximum(values, 0)][:, None]
    hint += share * table[row, others][:, None]
    kept = jax.random.uniform(keys[2], values.shape) < jnp.where(
        asked, keep_asked, keep_others
    )
    kept &= jnp.asarray(values) != UNKNOWN
    kept &= jax.random.uniform(keys[3], (batch, 1)) < _SLOTS_WITH_HINTS
    present = jax.random.uniform(keys[4], (batch, windows, facts)) > thin
    vectors = jnp.sum(hint * (kept[:, None] & present)[..., None], axis=2)
    return vectors + noise * jax.random.normal(keys[5], vectors.shape)

"""What a language model gets to hear of a clip."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from numpy import ndarray

WORD, BEGIN, END = -1, -2, -3
"""In place of the number of an audio vector: a word; the bridge's own vector before
the audio, and the one after it."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Heard:
    """What a bridge makes of cached features; one of the two is None.

        spliced     <s> Human: <Audio> ♪ ♪ </Audio> What …     vectors among the words

        added       <s> Below  is an  instruction  …           all positions of a layer
        layer 2      ·    ·     ·          ·                   get the same vector, of
        layer 3      ♪₃   ♪₃    ♪₃         ♪₃                  the clip of their text
        layer 4      ♪₄   ♪₄    ♪₄         ♪₄

    Attributes:
      spliced: word embeddings that stand in the audio slots of the text, in float32. Of
        a bridge that marks where audio begins and ends, the last two are these marks.
      added: what each layer adds to its mixed values, before the product that follows
        attention, in float32. One vector for each clip of a row, of which a position
        gets that of its segment: 1 = the first. Zeros in layers that do not hear.
    """

    spliced: Float[Array, "batch windows width"] | None
    added: Float[Array, "depth batch clips queries"] | None


def added_at(
    added: Float[Array, "batch clips queries"],
    segments: Int[Array | ndarray, "batch time"] | None,
) -> Float[Array, "batch time queries"]:
    """The vector of one layer at each position, by the segment that it belongs to.

        added       a0  a1
        segments     1   1   1   2   2   0        0 = padding, which nobody reads
        result      a0  a0  a0  a1  a1  a0

    Args:
      added: of the clips of each row, in one layer.
      segments: of each position; None if a row is the text of a single clip, whose
        result then has a time of 1.
    """
    if segments is None:
        return added[:, :1]
    clip = jnp.maximum(jnp.asarray(segments) - 1, 0)
    return jnp.take_along_axis(added, clip[..., None], axis=1)

"""LLark's bridge: a word embedding for each frame, between two vectors that are learnt.

Gardner et al. 2024, "LLark: A Multimodal Instruction-Following Language Model for
Music". Where MusiLingo hears one vector every few seconds, this hears ten a second:

    <s> ### Human:  start  ♪ ♪ ♪ ♪ ♪ ♪ … ♪ ♪ ♪  end  What key … ? ### Assistant:
                    learnt     projected        learnt

The published model learns `start` and `end` as two rows that it adds to the table of
word embeddings; here they belong to the bridge, and the vocabulary stays as it is.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from numpy import ndarray

from musilingo_jax.models.heard import Heard
from musilingo_jax.models.layers import Linear, parameter
from musilingo_jax.models.names import Names

NAMES: Names = {
    "projection.kernel": "mm_projector.weight",
    "projection.bias": "mm_projector.bias",
    "start": "audio_start",
    "end": "audio_end",
}

# Of LLaMA's word embeddings, which `start` and `end` stand among.
_DEVIATION = 0.02


class Frames(nnx.Module):
    """One linear map, with bias, and the vectors that stand before and after audio.

    Attributes:
      projection: from the encoder's frames, averaged over short windows, to word
        embeddings.
      start, end: [width], what stands before the first frame and after the last.
    """

    splices: ClassVar[bool] = True
    marks: ClassVar[bool] = True
    reduction: ClassVar[str] = "pooled"

    def __init__(self, width_in: int, width_out: int, *, rngs: nnx.Rngs):
        self.projection = Linear(
            width_in, width_out, axes=(None, None), bias=True, rngs=rngs
        )
        start, end = _DEVIATION * jax.random.normal(rngs.params(), (2, width_out))
        self.start = parameter(start, (None,))
        self.end = parameter(end, (None,))

    @property
    def sizes(self) -> dict[str, Any]:
        """What `config.json` says of it."""
        width_in, width = self.projection.kernel.shape
        return {
            "encoder_width": width_in,
            "language_model_width": width,
            "marks": True,
        }

    @property
    def width(self) -> int:
        """Of the language model."""
        return self.projection.kernel.shape[1]

    def __call__(
        self,
        features: Float[Array | ndarray, "batch windows width_in"],
        llama: Any,
    ) -> Heard:
        """A word embedding for each window of frames; then `start` and `end`.

        The marks are in each row once, whichever of its clips stand between them.

        Args:
          features: the encoder's frames, averaged over short windows.
          llama: the language model, of which this bridge needs nothing.
        """
        del llama
        frames = self.projection(features)
        marks = jnp.stack([self.start[...], self.end[...]])
        marks = jnp.broadcast_to(marks, (len(frames), *marks.shape))
        return Heard(spliced=jnp.concatenate([frames, marks], axis=1), added=None)

"""MusiLingo's bridge: one linear map from pooled audio to word embeddings.

Deng et al. 2023, "MusiLingo". It is all that learns there.
"""

from typing import Any, ClassVar

from flax import nnx
from jaxtyping import Array, Float
from numpy import ndarray

from musilingo_jax.models.heard import Heard
from musilingo_jax.models.layers import Linear
from musilingo_jax.models.names import Names

NAMES: Names = {
    "projection.kernel": "llama_proj.weight",
    "projection.bias": "llama_proj.bias",
}


class LinearBridge(nnx.Module):
    """One linear map, with bias, from pooled audio to word embeddings.

    Its few parameters name no axes, so each device holds a copy and devices exchange
    only the gradient.
    """

    splices: ClassVar[bool] = True
    """Whether what is heard stands among the words; else the layers add it."""
    marks: ClassVar[bool] = False
    """Whether it has vectors of its own that stand before and after the audio."""
    reduction: ClassVar[str] = "pooled"
    """The features that it reads, as `config.features.reduction` names them."""

    def __init__(self, width_in: int, width_out: int, *, rngs: nnx.Rngs):
        self.projection = Linear(
            width_in, width_out, axes=(None, None), bias=True, rngs=rngs
        )

    @property
    def sizes(self) -> dict[str, int]:
        """What `config.json` says of it."""
        width_in, width = self.projection.kernel.shape
        return {"encoder_width": width_in, "language_model_width": width}

    @property
    def width(self) -> int:
        """Of the language model."""
        return self.projection.kernel.shape[1]

    def __call__(
        self,
        features: Float[Array | ndarray, "batch windows width_in"],
        llama: Any,
    ) -> Heard:
        """A word embedding for each vector of pooled audio.

        Args:
          features: the encoder's frames, averaged over windows.
          llama: the language model, of which this bridge needs nothing.
        """
        del llama
        return Heard(spliced=self.projection(features), added=None)

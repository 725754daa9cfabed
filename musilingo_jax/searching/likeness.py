r"""How alike two clips are: the cosine of their pooled, whitened features.

    x     the mean of a clip's vectors
    m     the mean of x over all clips
    S     the covariance of vectors around the mean of their own clip
    S'    (1 − a) S + a tr(S)/d I                         shrunk (Ledoit and Wolf 2004)
    y     S'^(−1/2) (x − m)                               centred and whitened
    likeness of two clips: y₁·y₂ / (|y₁| |y₂|), from −1 to 1

Centring is needed because the vectors of an encoder have one in common, whatever is
played: without it the cosine of two clips says how much of that there is in both.
Whitening is needed because lengths along different directions are not comparable. A
direction along which the vectors of one clip differ as much as those of different clips
says little of a clip; dividing by the deviation within clips takes it back, as speaker
recognition does (Hatch, Kajarekar and Stolcke 2006). Shrinkage takes as much of the
identity as the number of vectors demands, so that S' has an inverse.

Where each clip is one vector, nothing is known of S, and vectors are only centred.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from musilingo_jax.runtime.errors import UserError

_FEWEST = 3


@dataclass(frozen=True, eq=False)
class Likeness:
    """The whitened vectors of some clips, and what whitens others.

    Attributes:
      mean: of the pooled features.
      whitener: the inverse root of the covariance within clips, symmetric.
      unit: of each clip, of length 1; 0 where a clip is the mean itself.
    """

    mean: Float[np.ndarray, " width"]
    whitener: Float[np.ndarray, "width width"]
    unit: Float[np.ndarray, "clips width"]

    @classmethod
    def of(cls, features: Sequence[Float[np.ndarray, "_vectors width"]]) -> "Likeness":
        """Whitens the features of all clips.

        Args:
          features: the vectors of each clip.

        Raises:
          UserError: there are fewer than three clips, or they are all the same.
        """
        if len(features) < _FEWEST:
            raise UserError(
                f"there are {len(features)} clips; to tell what they have in common, "
                f"{_FEWEST} are needed at least"
            )
        pooled = np.stack([pool(each) for each in features])
        mean = pooled.mean(axis=0)
        if not np.ptp(pooled, axis=0).any():
            raise UserError("all clips have the same features, so none is more alike")
        around = [each - own for each, own in zip(features, pooled, strict=True)]
        inverse_root = whitener(np.concatenate(around))
        unit = _unit((pooled - mean) @ inverse_root)
        return cls(mean, inverse_root, unit)

    def to(self, vector: Float[np.ndarray, " width"]) -> Float[np.ndarray, " clips"]:
        """How alike each clip is to a pooled vector, from −1 to 1."""
        (unit,) = _unit((vector - self.mean)[None] @ self.whitener)
        return self.unit @ unit


def pool(features: Float[np.ndarray, "_vectors width"]) -> Float[np.ndarray, " width"]:
    """The mean of a clip's vectors."""
    return features.mean(axis=0, dtype=np.float64)


def whitener(
    around: Float[np.ndarray, "_vectors width"],
) -> Float[np.ndarray, "width width"]:
    """The inverse root of the shrunk covariance; the identity if there is none.

    Args:
      around: vectors without the mean of their clip.
    """
    values, axes = np.linalg.eigh(_shrunk(around))
    if values[-1] <= 0:
        return np.eye(around.shape[1])
    # What is left of rounding must not be blown up.
    values = np.maximum(values, values[-1] * np.finfo(np.float64).eps)
    return axes / np.sqrt(values) @ axes.T


def _shrunk(
    around: Float[np.ndarray, "_vectors width"],
) -> Float[np.ndarray, "width width"]:
    """Ledoit and Wolf's covariance.

    The optimal amount of the identity is the error of the sample's covariance over its
    distance from the multiple of the identity that it is shrunk to, both in the
    Frobenius norm.
    """
    count, width = around.shape
    sample = around.T @ around / count
    level = np.trace(sample) / width
    distance = np.sum((sample - level * np.eye(width)) ** 2)
    fourth = np.sum(np.sum(around**2, axis=1) ** 2)
    error = (fourth / count - np.sum(sample**2)) / count
    amount = float(np.clip(error / distance, 0, 1)) if distance > 0 else 1.0
    return (1 - amount) * sample + amount * level * np.eye(width)


def _unit(
    vectors: Float[np.ndarray, "clips width"],
) -> Float[np.ndarray, "clips width"]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)

"""How sure one can be of a mean: 95 % intervals."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

# The 97.5th percentile of the normal distribution: two-sided 95 % intervals.
Z_95 = 1.959964
# With fewer clips not even a unanimous sign test reaches 5 % (2 · 0.5⁵ = 0.0625), and
# a bootstrap over so few is blind to it: it never sees a clip that it has not drawn.
FEWEST_CLIPS = 6
# Resamples that are drawn at once: bounds the memory, a number per clip each.
_AT_ONCE = 100


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927); stays inside [0, 1]."""
    rate, z = correct / total, Z_95
    centre = rate + z**2 / (2 * total)
    reach = z * np.sqrt(rate * (1 - rate) / total + z**2 / (4 * total**2))
    scale = 1 + z**2 / total
    return max(0.0, (centre - reach) / scale), min(1.0, (centre + reach) / scale)


def bootstrap_sums(
    scores: Float[np.ndarray, "rows columns"],
    clips: Sequence[str],
    *,
    resamples: int,
    seed: int,
) -> Float[np.ndarray, "resamples columns"]:
    """Sums of every column over clips that are drawn with replacement, many times.

    Rows about one clip share its difficulty, so clips are drawn, not rows. All columns
    see the same draws: differences between columns are those of the paired bootstrap
    (Efron & Tibshirani 1993, chapter 13; Koehn 2004).

    Args:
      scores: one row per question; a column per score, or per control's score.
      clips: the clip of each row.
      resamples: how many times all clips are drawn.
      seed: of the draws.
    """
    ids, clip_of_row = np.unique(np.asarray(clips), return_inverse=True)
    sums = np.zeros((len(ids), scores.shape[1]))
    np.add.at(sums, clip_of_row, scores)
    generator = np.random.default_rng(seed)
    chance = np.full(len(ids), 1 / len(ids))
    drawn = []
    for start in range(0, resamples, _AT_ONCE):
        # draws[r, c]: how often resample r took clip c.
        size = min(_AT_ONCE, resamples - start)
        draws = generator.multinomial(len(ids), chance, size=size)
        drawn.append(draws.astype(np.float64) @ sums)
    return np.concatenate(drawn)


def percentile_interval(values: Float[np.ndarray, " resamples"]) -> tuple[float, float]:
    """The middle 95 % of what the resamples gave; those that gave nothing are NaN."""
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)

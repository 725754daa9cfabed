"""95 % intervals of proportions and means, for answers that share clips."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

# The 97.5th percentile of the normal distribution: two-sided 95 % intervals.
Z_95 = 1.959964
# With fewer clips not even a unanimous sign test reaches 5 % (2 · 0.5⁵ = 0.0625), which
# a bootstrap does not show: its interval can be arbitrarily narrow.
FEWEST_CLIPS = 6
# Widths and variances below this are 0 but for rounding.
_NO_WIDTH = 1e-12
# Resamples drawn at once. Bounds the memory: each takes a number per clip.
_BATCH = 100


def numbered(names: Sequence[Any]) -> Int[np.ndarray, " rows"]:
    """A number for each name, equal for equal names, in their sorted order.

    Not by an array of texts, which drops NUL at their ends, and in which each takes as
    much memory as the longest.
    """
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    return np.array([numbers[name] for name in names], np.int64)


def wilson_interval(rate: float, size: float) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927); stays inside [0, 1].

    Args:
      rate: the observed proportion.
      size: the number of independent answers; need not be whole (`effective_size`).
    """
    z = Z_95
    centre = rate + z**2 / (2 * size)
    reach = z * np.sqrt(rate * (1 - rate) / size + z**2 / (4 * size**2))
    scale = 1 + z**2 / size
    return max(0.0, (centre - reach) / scale), min(1.0, (centre + reach) / scale)


def effective_size(right: Bool[np.ndarray, " rows"], clips: Sequence[Any]) -> float:
    """The number of independent answers that are as informative as these.

    Twenty questions about one clip that the model misheard are hardly twenty trials.
    The number of answers is divided by the design effect: the variance of the rate
    between clips (of a ratio estimator, Cochran 1977, chapter 6), over what it would be
    if all answers were independent. Few clips estimate that variance badly. For this,
    Korn & Graubard (1998, "Confidence intervals for proportions with small expected
    number of positive counts estimated from survey data") correct it by quantiles of
    Student's t. Wilson's interval of this size is that of Dean & Pagano (2015,
    "Evaluating confidence interval methods for binomial proportions in clustered
    surveys").

        one row per clip                                      → the number of rows
        clips of equal size, each all right or all wrong      → the number of clips
        … or all answers, or the rates of all clips, equal    → the number of clips

    Args:
      right: which answers are right; at least one answer.
      clips: the clip of each.

    Returns:
      At least the size if all answers about a clip were the same answer (Kish 1965), at
      most the number of answers.
    """
    clip_of_row = numbered(clips)
    sizes = np.bincount(clip_of_row).astype(np.float64)
    rows, count, rate = len(right), len(sizes), float(np.mean(right))
    least = rows**2 / float((sizes**2).sum())
    if count == 1 or rate in (0.0, 1.0):
        return least
    excess = np.bincount(clip_of_row, weights=right) - rate * sizes
    by_clips = count / (count - 1) * float((excess**2).sum()) / rows**2
    if by_clips < _NO_WIDTH:  # All clips have the same rate, perhaps by chance.
        return least
    effect = by_clips / (rate * (1 - rate) / (rows - 1))
    quantiles = stats.t.ppf(0.975, [rows - 1, count - 1])
    size = rows / effect * float(quantiles[0] / quantiles[1]) ** 2
    return min(max(size, least), float(rows))


def bootstrap_sums(
    scores: Float[np.ndarray, "rows columns"],
    clips: Sequence[str],
    *,
    resamples: int,
    seed: int,
) -> Float[np.ndarray, "resamples columns"]:
    """Sums of every column over clips drawn with replacement, many times.

    Rows about one clip share its difficulty, so clips are drawn, not rows. All columns
    get the same draws: differences between columns are those of the paired bootstrap
    (Efron & Tibshirani 1993, chapter 13; Koehn 2004).

    Args:
      scores: one row per question; a column per score, or per control's score.
      clips: the clip of each row.
      resamples: how many times as many clips are drawn as there are.
      seed: of the draws.
    """
    clip_of_row = numbered(clips)
    count = int(clip_of_row.max()) + 1
    sums = np.zeros((count, scores.shape[1]))
    np.add.at(sums, clip_of_row, scores)
    generator = np.random.default_rng(seed)
    chance = np.full(count, 1 / count)
    drawn = []
    for start in range(0, resamples, _BATCH):
        # draws[r, c]: how often resample r took clip c.
        size = min(_BATCH, resamples - start)
        draws = generator.multinomial(count, chance, size=size)
        drawn.append(draws.astype(np.float64) @ sums)
    return np.concatenate(drawn)


def percentile_interval(
    values: Float[np.ndarray, " resamples"], clips: int
) -> tuple[float, float] | str:
    """The interval that holds the middle 95 % of the resamples.

    Args:
      values: the score of each resample; NaN if the resample has none.
      clips: the number of clips that were resampled.

    Returns:
      The interval, or why there is none. Resamples that are all the same do not show
      that the score is certain.
    """
    if clips < FEWEST_CLIPS:
        return f"fewer than {FEWEST_CLIPS} clips"
    low, high = np.nanquantile(values, [0.025, 0.975])
    if high - low < _NO_WIDTH:
        return "all resamples give the same"
    return float(low), float(high)

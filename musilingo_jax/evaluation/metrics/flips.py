"""Whether a system is above its control by more than chance: sign-flip tests.

If both heard equally little, each clip could as well have given their scores the other
way round. So own and control are exchanged clip by clip, in all ways or in many, and
the difference that was found must be among the largest that come of it (Noreen 1989,
"Computer-Intensive Methods for Testing Hypotheses"). Unlike a bootstrap, the test is
not too bold where clips are few.
"""

import numpy as np
from jaxtyping import Float

# One-sided, as a 95 % interval that lies above 0.
LEVEL = 0.025
# Up to so many clips that differ, all exchanges are tried: 8,192.
_MOST_FOR_ALL = 13
_FLIPS = 10_000
# Exchanges that are drawn at once: bounds the memory, a number per clip each.
_AT_ONCE = 100
# Differences are in [-1, 1]; what is nearer than this differs by rounding.
_ROUNDING = 1e-9


def flipped_sums(
    differences: Float[np.ndarray, "clips columns"], *, seed: int
) -> tuple[Float[np.ndarray, "flips columns"], bool]:
    """Sums of differences over clips, of which some have changed their sign.

    Args:
      differences: own − control, summed over the rows of each clip. A clip's columns
        change sign together.
      seed: of the draws, where there are too many clips to try all signs.

    Returns:
      The sums, and whether they are of all signs there are.
    """
    differing = differences[differences.any(axis=1)]
    clips, whole = len(differing), differences.sum(0)
    if clips <= _MOST_FOR_ALL:
        flipped = np.arange(1 << clips)[:, None] >> np.arange(clips) & 1
        return whole - 2.0 * (flipped @ differing), True
    generator = np.random.default_rng(seed)
    sums = []
    for start in range(0, _FLIPS, _AT_ONCE):
        size = min(_AT_ONCE, _FLIPS - start), clips
        flipped = generator.integers(0, 2, size, dtype=np.int8).astype(np.float64)
        sums.append(whole - 2.0 * (flipped @ differing))
    return np.concatenate(sums), False


def p_value(
    found: float, flipped: Float[np.ndarray, " flips"], *, all_signs: bool
) -> float:
    """How often exchanges give at least the difference that was found.

    Drawn exchanges are counted with the one that was found among them, so that the test
    keeps its level (Phipson & Smyth 2010, "Permutation p-values should never be zero").

    Args:
      found: own − control.
      flipped: the same after each exchange.
      all_signs: whether they are all there are, or drawn.
    """
    above = int((flipped >= found - _ROUNDING).sum())
    return above / len(flipped) if all_signs else (above + 1) / (len(flipped) + 1)

"""Tempo in beats per minute: within 4 %, or off by a factor of two or three."""

import re

from musilingo_jax.corpora.statements.tempos import Tempo

_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_TOLERANCE = 0.04 + 1e-9  # A deviation of exactly 4 % counts, whatever the rounding.
_FACTORS = (1, 2, 3, 1 / 2, 1 / 3)


def published_tempo(text: str) -> Tempo | None:
    """The first number of a text, the published rule; None if it has none.

    "About 120.5 BPM" → 120.5
    "In 4/4, at 120"  → 4.0
    """
    found = _NUMBER.search(text)
    return None if found is None else Tempo(float(found[0]), float(found[0]))


def accuracy(answered: Tempo | None, value: float) -> tuple[bool, bool]:
    """Whether a stated tempo is the true one (Gouyon et al. 2006).

    Args:
      answered: what the answer states. Of a range, both ends must be near.
      value: the true tempo.

    Returns:
      Accuracy 1: within 4 % of the tempo. Accuracy 2: within 4 % of the tempo, or of
      twice, three times, half or a third of it.
    """
    if answered is None:
        return False, False
    near = [
        all(abs(end - value * f) <= _TOLERANCE * value * f for end in answered)
        for f in _FACTORS
    ]
    return near[0], any(near)

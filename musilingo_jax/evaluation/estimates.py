"""A score with its interval, and a difference of two scores with its significance."""

from dataclasses import dataclass

from musilingo_jax.evaluation.metrics import flips


@dataclass(frozen=True)
class Estimate:
    """A score of a set of answers, in [0, 1].

    Attributes:
      value: the score.
      low, high: its 95 % interval; None if there is no interval.
      reason: why there is no interval.
    """

    value: float
    low: float | None
    high: float | None
    reason: str | None


@dataclass(frozen=True)
class Gain(Estimate):
    """Own − control, with the p-values of two one-sided tests (`flips.p_value`).

    Attributes:
      p_above: of the test that own is above the control.
      p_below: of the test that own is below the control.
    """

    p_above: float
    p_below: float

    @property
    def is_above(self) -> bool:
        """Whether own is significantly above the control.

        The test decides; the interval, if there is one, must not contradict it.
        """
        return self.p_above <= flips.LEVEL and (self.low is None or self.low > 0)

    @property
    def is_below(self) -> bool:
        """Whether own is significantly below the control."""
        return self.p_below <= flips.LEVEL and (self.high is None or self.high < 0)

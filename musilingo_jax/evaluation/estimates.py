"""What a score is, how sure that is, and whether it is above another."""

from dataclasses import dataclass

from musilingo_jax.evaluation.metrics import flips


@dataclass(frozen=True)
class Estimate:
    """A score of all answers, in [0, 1].

    Attributes:
      value: the score.
      low, high: its 95 % interval; None if there is none.
      reason: why there is none.
    """

    value: float
    low: float | None
    high: float | None
    reason: str | None


@dataclass(frozen=True)
class Gain(Estimate):
    """Own − control, and how often chance alone gives as much (`flips.p_value`).

    Attributes:
      p_above: of the one-sided test that own is above the control.
      p_below: … that it is below.
    """

    p_above: float
    p_below: float

    @property
    def is_above(self) -> bool:
        """Whether own is above the control beyond chance.

        The test decides; an interval, where there is one, must not contradict it.
        """
        return self.p_above <= flips.LEVEL and (self.low is None or self.low > 0)

    @property
    def is_below(self) -> bool:
        """Whether own is below the control beyond chance."""
        return self.p_below <= flips.LEVEL and (self.high is None or self.high < 0)

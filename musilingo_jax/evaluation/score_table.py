"""All scores of all systems in one table of columns: estimates, and paired gains.

Each score is a function of sums over rows. A mean is Σ value / Σ 1; the BLEU of a
corpus is a function of ten summed counts (`bleu.statistics`). So the score of any
resample of the clips needs only that resample's sums, and one bootstrap serves all.

A control is compared with the system's own answers on the rows where both have the
score. For this each control has two columns, which include the same rows:

    row               own     control     own, paired     control, paired
    clip a, first     1.0     0.0         1.0             0.0
    clip a, second    0.5     –           –               –
    clip b, first     0.0     0.5         0.0             0.5
    mean              0.50                0.50            0.25       gain 0.25
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from musilingo_jax.evaluation.estimates import Estimate, Gain
from musilingo_jax.evaluation.metrics import flips, intervals

OWN = "own"
RESAMPLES = 2000

# Name of a score → its value for each row, NaN if the row does not have it. Counts of
# BLEU have several values for each row.
RowScores = Mapping[str, Float[np.ndarray, "rows ..."]]


@dataclass(frozen=True)
class Column:
    """Names the values of one score of one system.

    Attributes:
      score: the name of the score, a key of `RowScores`.
      system: whose answers have it: `OWN`, or a control.
      paired_with: the control that must have the score too for a row to be included;
        None to include all rows that have the score.
    """

    score: str
    system: str
    paired_with: str | None


@dataclass(frozen=True)
class Terms:
    """What each row adds to the sums that a score is a function of.

        value of the row    terms
        0.5                 0.5  1
        not included        0    0

    Attributes:
      values: the terms; zeros for rows that are not included.
      included: which rows are included.
    """

    values: Float[np.ndarray, "rows terms"]
    included: Bool[np.ndarray, " rows"]

    @classmethod
    def of(
        cls, scores: Float[np.ndarray, "rows ..."], included: Bool[np.ndarray, " rows"]
    ) -> "Terms":
        """The terms of a mean, or of counts that are summed as they are.

        Args:
          scores: a value for each row, or several counts for each row.
          included: which rows to include.
        """
        if scores.ndim == 1:
            scores = np.stack([scores, np.ones_like(scores)], axis=1)
        return cls(np.where(included[:, None], scores, 0.0), included)


@dataclass(frozen=True)
class Sums:
    """The terms of a column, summed.

    Attributes:
      whole: over all rows.
      resampled: over the rows of each resample of the clips.
    """

    whole: Float[np.ndarray, " terms"]
    resampled: Float[np.ndarray, "resamples terms"]


@dataclass(frozen=True)
class Measure:
    """How a reported score is computed.

    Attributes:
      score: the score whose terms it is a function of, a key of `RowScores`.
      formula: sums of terms → the score, for many sums at once.
      right_or_wrong: whether answers are right (1) or wrong (0), so that the score is a
        proportion.
    """

    score: str
    formula: Callable[[Float[np.ndarray, "many terms"]], Float[np.ndarray, " many"]]
    right_or_wrong: bool


def mean(sums: Float[np.ndarray, "many 2"]) -> Float[np.ndarray, " many"]:
    """Σ value / Σ 1: the `Measure.formula` of a mean; NaN where no row is included."""
    with np.errstate(invalid="ignore"):
        return sums[:, 0] / sums[:, 1]


class ScoreTable:
    """The columns of all scores, and their sums over the same resamples of clips."""

    def __init__(
        self,
        clips: Sequence[str],
        scores: Mapping[str, RowScores],
        *,
        seed: int,
    ):
        """Sums all columns.

        Args:
          clips: the clip of each row.
          scores: system → its scores. `OWN` has every score that a control has.
          seed: of the bootstrap, and of the sign flips.
        """
        self.controls = [system for system in scores if system != OWN]
        self._seed = seed
        self._clip_of_row = intervals.numbered(clips)
        self._terms = dict(_columns(scores))
        every = [terms.values for terms in self._terms.values()]
        stacked = np.concatenate(every, axis=1)
        resampled = intervals.bootstrap_sums(
            stacked, clips, resamples=RESAMPLES, seed=seed
        )
        ends = np.cumsum([values.shape[1] for values in every])[:-1]
        sums = map(
            Sums, np.split(stacked.sum(0), ends), np.split(resampled, ends, axis=1)
        )
        self._sums = dict(zip(self._terms, sums, strict=True))

    def has(self, measure: Measure, system: str) -> bool:
        """Whether any answer of a system has the score."""
        terms = self._terms.get(_column(measure, system))
        return terms is not None and bool(terms.included.any())

    def size(self, measure: Measure, system: str) -> tuple[int, int]:
        """How many answers have the score, and how many clips they are about."""
        included = self._terms[_column(measure, system)].included
        return int(included.sum()), len(np.unique(self._clip_of_row[included]))

    def estimate(self, measure: Measure, system: str) -> Estimate:
        """A system's score with its interval: Wilson's for a proportion.

        The score of a control is over the rows that it shares with `OWN`.
        """
        column = _column(measure, system)
        terms, sums = self._terms[column], self._sums[column]
        value = _value(measure, sums)
        answers = terms.values[terms.included, 0]
        if measure.right_or_wrong and np.isin(answers, (0, 1)).all():
            clips = self._clip_of_row[terms.included].tolist()
            size = intervals.effective_size(answers == 1, clips)
            return Estimate(value, *intervals.wilson_interval(value, size), None)
        _, clips = self.size(measure, system)
        return Estimate(value, *_interval(measure.formula(sums.resampled), clips))

    def gain(self, measure: Measure, control: str) -> Gain:
        """Own − control over the rows that both have, tested by sign flips.

        A flip exchanges the answers of the two systems about a clip: it changes the
        sign of their difference there, and not what they add up to. So after any flips

            own     = (both + difference) / 2        both       = own + control
            control = (both − difference) / 2        difference = own − control
        """
        columns = [Column(measure.score, name, control) for name in (OWN, control)]
        formula = measure.formula
        own, other = (self._sums[column] for column in columns)
        value = _value(measure, own) - _value(measure, other)
        resampled = formula(own.resampled) - formula(other.resampled)

        own_clips, other_clips = (self._sum_by_clip(column) for column in columns)
        both = (own_clips + other_clips).sum(0)
        difference, all_signs = flips.flipped_sums(
            own_clips - other_clips, seed=self._seed
        )
        flipped = formula((both + difference) / 2) - formula((both - difference) / 2)
        _, clips = self.size(measure, control)
        return Gain(
            value,
            *_interval(resampled, clips),
            p_above=flips.p_value(value, flipped, all_signs=all_signs),
            p_below=flips.p_value(-value, -flipped, all_signs=all_signs),
        )

    def _sum_by_clip(self, column: Column) -> Float[np.ndarray, "clips terms"]:
        values = self._terms[column].values
        sums = np.zeros((self._clip_of_row.max() + 1, values.shape[1]))
        np.add.at(sums, self._clip_of_row, values)
        return sums


def _columns(scores: Mapping[str, RowScores]) -> Iterator[tuple[Column, Terms]]:
    """The columns of every system: its own, or those of each pair with `OWN`."""
    for system, found in scores.items():
        for score, values in found.items():
            own = scores[OWN][score]
            shared = _has_score(own) & _has_score(values)
            if system == OWN:
                yield Column(score, OWN, None), Terms.of(values, shared)
            else:
                yield Column(score, system, system), Terms.of(values, shared)
                yield Column(score, OWN, system), Terms.of(own, shared)


def _has_score(values: Float[np.ndarray, "rows ..."]) -> Bool[np.ndarray, " rows"]:
    """Which rows have a score. All counts of a row are NaN, or none is."""
    return ~np.isnan(values.reshape(len(values), -1)[:, 0])


def _column(measure: Measure, system: str) -> Column:
    """The column of a system's reported score."""
    return Column(measure.score, system, None if system == OWN else system)


def _value(measure: Measure, sums: Sums) -> float:
    """The score over all rows."""
    return float(measure.formula(sums.whole[None])[0])


def _interval(
    resampled: Float[np.ndarray, " resamples"], clips: int
) -> tuple[float | None, float | None, str | None]:
    """The ends of an interval, or why there is no interval."""
    found = intervals.percentile_interval(resampled, clips)
    return (None, None, found) if isinstance(found, str) else (*found, None)

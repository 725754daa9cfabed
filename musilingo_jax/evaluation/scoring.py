"""Answers and their controls → a line per score: means, intervals, differences."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from musilingo_jax.evaluation.answered_questions import AnsweredQuestion
from musilingo_jax.evaluation.estimates import Estimate, Gain
from musilingo_jax.evaluation.metrics import (
    bleu,
    diversity,
    facts,
    flips,
    intervals,
    wording,
)
from musilingo_jax.evaluation.metrics.wording import COUNTS, Wording

OWN = "own"
RESAMPLES = 2000

Scores = Float[np.ndarray, " rows"]


@dataclass(frozen=True)
class Line:
    """One score of all answers that have it.

    Attributes:
      section: "factual", "legacy", "honest", or "kind": an honest ROUGE-L of one kind.
      name: of the score within its section, or the kind of question.
      rows, clips: how many answers about how many clips.
      own: of the answers themselves; None if it could not be computed.
      reason: why it could not.
      controls: control → the same score; None where it could not be had.
      gains: control → own − control, paired.
      unanswered: answers that say nothing of the kind; None where that has no meaning.
      unscorable: references that do not name their own value, so that no answer in the
        same words can be right.
    """

    section: str
    name: str
    rows: int
    clips: int
    own: Estimate | None
    reason: str | None
    controls: dict[str, Estimate | None]
    gains: dict[str, Gain | None]
    unanswered: int | None
    unscorable: int

    @property
    def beaten(self) -> dict[str, bool]:
        """Control → whether it is above it beyond chance, as far as one knows."""
        return {
            control: gain.is_above
            for control, gain in self.gains.items()
            if gain is not None
        }

    @property
    def beats_controls(self) -> bool:
        """Whether it is above all controls there are; a line without any is not."""
        return bool(self.beaten) and all(self.beaten.values())


@dataclass(frozen=True)
class Scored:
    """Everything that is said of a set of answers.

    Attributes:
      lines: all scores.
      rows: what was asked and answered.
      answers: system ("own", or a control) → its answers.
      scores: system → score → of each row, NaN where it has none; for single examples.
      diversity: system → distinct-1, distinct-2 and words per answer, and of the
        references under "reference".
      notes: what metrics were computed with.
    """

    lines: list[Line]
    rows: list[AnsweredQuestion]
    answers: dict[str, list[str | None]]
    scores: dict[str, dict[str, Scores]]
    diversity: dict[str, dict[str, float | None]]
    notes: dict[str, str]


def score(
    rows: Sequence[AnsweredQuestion],
    controls: Mapping[str, Sequence[str | None]],
    values: Mapping[str, set[str]],
    parts: wording.WordingModels,
    *,
    seed: int,
    progress: Callable[..., Any],
) -> Scored:
    """Scores answers and controls in every way there is.

    Args:
      rows: what was asked, what should have been said, and what was.
      controls: control → its answers, None where it has none.
      values: `facts.vocabulary` of the corpus.
      parts: what some metrics need.
      seed: of the bootstrap, and of sign flips.
      progress: makes a bar that is told how many rows are done (`cli.progress`).
    """
    answers = {OWN: [row.answer for row in rows]}
    answers |= {control: list(said) for control, said in controls.items()}
    references = [row.reference for row in rows]
    judge = Wording(parts)
    scores, judged = {}, {}
    total = len(rows) * len(answers) * judge.rounds
    with progress(total=total, unit="answers", label="scoring") as bar:
        for system, said in answers.items():
            judged[system] = facts.score(rows, said, values)
            scores[system] = judge.score(said, references, bar.update)
            scores[system] |= {
                f"factual.{name}": column
                for name, column in judged[system].scores.items()
            }
    kinds = np.array([row.kind for row in rows])
    for kind in sorted(set(kinds)):
        for found in scores.values():
            rouge = found["honest.rouge_l"]
            found[f"kind.{kind}"] = np.where(kinds == kind, rouge, np.nan)
    truths = facts.score(rows, references, values).scores
    table = _Table(rows, scores, seed)
    return Scored(
        lines=list(_lines(table, parts, judged[OWN].answered, truths)),
        rows=list(rows),
        answers=answers,
        scores=scores,
        diversity={
            system: diversity.of([text for text in said if text is not None])
            for system, said in {**answers, "reference": references}.items()
        },
        notes=parts.notes,
    )


def _lines(
    table: "_Table",
    parts: wording.WordingModels,
    answered: Mapping[str, Scores],
    truths: Mapping[str, Scores],
) -> Iterator[Line]:
    """First what is said of the music, then how it is put."""
    named = [name for name in facts.STANDARD if name in truths]
    for name in named + sorted(truths.keys() - facts.STANDARD):
        # A reference to a multiple choice may be worded freely.
        told = truths[name][~np.isnan(truths[name])]
        silent = 0 if name in ("multiple_choice", "instruments") else (told < 1).sum()
        yield table.line(
            "factual",
            name,
            unanswered=int((answered[name] == 0).sum()) if name in answered else 0,
            unscorable=int(silent),
        )
    for kind in sorted({row.kind for row in table.rows}):
        yield table.line("kind", kind)
    for section in ("honest", "legacy"):
        for name in wording.HONEST if section == "honest" else wording.LEGACY:
            absent = parts.absent.get(f"{section}.{name}")
            if absent is not None:
                yield table.missing(section, name, absent)
            else:
                yield table.line(section, name)


class _Table:
    """All scores of all systems, and what they sum to in every resample."""

    def __init__(
        self,
        rows: Sequence[AnsweredQuestion],
        scores: Mapping[str, Mapping[str, Float[np.ndarray, "rows ..."]]],
        seed: int,
    ):
        self.rows = rows
        self._scores, self._seed = scores, seed
        self._clips = np.array([row.clip for row in rows])
        self._controls = [system for system in scores if system != OWN]
        columns: list[Scores] = []
        # (score, system) → the rows that count, and where its columns begin. A score
        # has two: itself, with 0 for what is lacking, and 1 where it is there, so that
        # a mean is a ratio of sums.
        self._there: dict[tuple[str, str], Bool[np.ndarray, " rows"]] = {}
        self._places: dict[tuple[str, str], int] = {}
        for system, found in scores.items():
            for name, values in found.items():
                # A control counts where both have a score, and so does what it is
                # compared with.
                both = ~np.isnan(values) & ~np.isnan(scores[OWN].get(name, values))
                self._add(columns, name, system, values, both)
                if system != OWN and name in scores[OWN]:
                    self._add(columns, name, f"-{system}", scores[OWN][name], both)
        stacked = np.stack(columns, axis=1)
        self._whole = stacked.sum(0)
        self._drawn = intervals.bootstrap_sums(
            stacked, self._clips.tolist(), resamples=RESAMPLES, seed=seed
        )

    def _add(
        self,
        columns: list[Scores],
        name: str,
        system: str,
        values: Float[np.ndarray, "rows ..."],
        there: Bool[np.ndarray, "rows ..."],
    ) -> None:
        self._places[name, system] = len(columns)
        values = np.where(there, values, 0.0)
        if name == COUNTS:
            columns.extend(values.T)
            there = there[:, 0]
        else:
            columns.extend((values, there.astype(np.float64)))
        self._there[name, system] = there

    def line(
        self,
        section: str,
        name: str,
        *,
        unanswered: int | None = None,
        unscorable: int = 0,
    ) -> Line:
        """The line of a score that was computed."""
        score = _Score.of(section, name)
        if not self._has(score, OWN):
            return self.missing(section, name, "no answer has it")
        there = self._there[score.columns, OWN]
        compared = [c for c in self._controls if self._has(score, c)]
        nothing = dict.fromkeys(self._controls)
        return Line(
            section=section,
            name=name,
            rows=int(there.sum()),
            clips=len(set(self._clips[there])),
            own=self._estimate(score, OWN),
            reason=None,
            controls=nothing | {c: self._estimate(score, c) for c in compared},
            gains=nothing | {c: self._gain(score, c) for c in compared},
            unanswered=unanswered,
            unscorable=unscorable,
        )

    def missing(self, section: str, name: str, reason: str) -> Line:
        """The line of a score that could not be computed."""
        nothing = dict.fromkeys(self._controls)
        return Line(section, name, 0, 0, None, reason, nothing, dict(nothing), None, 0)

    def _has(self, score: "_Score", system: str) -> bool:
        there = self._there.get((score.columns, system))
        return there is not None and bool(there.any())

    def _of(
        self, score: "_Score", system: str
    ) -> tuple[float, Float[np.ndarray, " resamples"]]:
        """A score over all clips, and over those of every resample."""
        place = self._places[score.columns, system]
        part = slice(place, place + score.width)
        return float(score(self._whole[part])), score(self._drawn[:, part])

    def _estimate(self, score: "_Score", system: str) -> Estimate:
        """With Wilson's interval where each answer is right or wrong."""
        value, drawn = self._of(score, system)
        there = self._there[score.columns, system]
        clips = self._clips[there].tolist()
        values = self._scores[system][score.columns][there]
        if score.is_share and np.isin(values, (0, 1)).all():
            size = intervals.effective_size(values == 1, clips)
            return Estimate(value, *intervals.wilson_interval(value, size), None)
        return Estimate(value, *_interval(drawn, len(set(clips))))

    def _gain(self, score: "_Score", control: str) -> Gain:
        """Own − control, of the rows that both have."""
        (value, drawn), (own, own_drawn) = (
            self._of(score, system) for system in (control, f"-{control}")
        )
        there = self._there[score.columns, control]
        clips, clip_of_row = np.unique(self._clips[there], return_inverse=True)
        pair = [
            _sums(self._scores[system][score.columns][there], clip_of_row, len(clips))
            for system in (OWN, control)
        ]
        flipped, every = flips.flipped_sums(pair[0] - pair[1], seed=self._seed)
        if score.columns == COUNTS:
            # With d = own − control after a flip: own is (both + d) / 2.
            both = (pair[0] + pair[1]).sum(0)
            found = score((both + flipped) / 2) - score((both - flipped) / 2)
        else:
            found = flipped[:, 0] / there.sum()
        gain = own - value
        return Gain(
            gain,
            *_interval(own_drawn - drawn, len(clips)),
            p_above=flips.p_value(gain, found, all_signs=every),
            p_below=flips.p_value(-gain, -found, all_signs=every),
        )


@dataclass(frozen=True)
class _Score:
    """How a score comes of sums.

    Attributes:
      columns: whose sums it is made of.
      width: how many columns there are.
      name: which BLEU it is, if it is one.
      is_share: whether it can be a share of right answers.
    """

    columns: str
    width: int
    name: str
    is_share: bool

    @classmethod
    def of(cls, section: str, name: str) -> "_Score":
        """Of a line."""
        if section == "honest" and name.startswith("bleu"):
            return cls(COUNTS, 10, name, is_share=False)
        graded = section != "factual" or name in ("key", "instruments")
        return cls(f"{section}.{name}", 2, name, is_share=not graded)

    def __call__(self, sums: Float[np.ndarray, "*many width"]) -> Any:
        """The score of sums: of one set of them, or of many."""
        if self.columns == COUNTS:
            return bleu.corpus_bleu(sums)[self.name]
        with np.errstate(invalid="ignore"):  # A resample without such rows: NaN.
            return sums[..., 0] / sums[..., 1]


def _interval(
    drawn: Float[np.ndarray, " resamples"], clips: int
) -> tuple[float | None, float | None, str | None]:
    """Low, high, and why there are none."""
    found = intervals.percentile_interval(drawn, clips)
    return (None, None, found) if isinstance(found, str) else (*found, None)


def _sums(
    values: Float[np.ndarray, "rows ..."], clip_of_row: Int[np.ndarray, " rows"], n: int
) -> Float[np.ndarray, "clips columns"]:
    sums = np.zeros((n, *values.shape[1:]))
    np.add.at(sums, clip_of_row, values)
    return sums.reshape(n, -1)

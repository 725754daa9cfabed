"""Answers and their controls → a line per score: means, intervals, differences."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from musilingo_jax.metrics import bleu, diversity, facts, intervals, wording
from musilingo_jax.metrics.intervals import FEWEST_CLIPS
from musilingo_jax.metrics.wording import COUNTS, Wording
from musilingo_jax.predictions import Row

OWN = "own"
RESAMPLES = 2000

Scores = Float[np.ndarray, " rows"]


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval, in [0, 1]; a word count is what it is."""

    value: float
    low: float
    high: float


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
    gains: dict[str, Estimate | None]
    unanswered: int | None
    unscorable: int

    @property
    def beaten(self) -> dict[str, bool]:
        """Control → whether the difference is more than chance, as far as one knows."""
        return {
            control: self.clips >= FEWEST_CLIPS and gain.low > 0
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
    rows: list[Row]
    answers: dict[str, list[str | None]]
    scores: dict[str, dict[str, Scores]]
    diversity: dict[str, dict[str, float | None]]
    notes: dict[str, str]


def score(
    rows: Sequence[Row],
    controls: Mapping[str, Sequence[str | None]],
    values: Mapping[str, set[str]],
    parts: wording.Parts,
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
      seed: of the bootstrap.
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
    parts: wording.Parts,
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
        rows: Sequence[Row],
        scores: Mapping[str, Mapping[str, Float[np.ndarray, "rows ..."]]],
        seed: int,
    ):
        self.rows = rows
        self._scores = scores
        self._clips = np.array([row.clip for row in rows])
        self._controls = [system for system in scores if system != OWN]
        columns: list[Scores] = []
        # (score, system) → where its columns begin. A score has two: itself, with 0 for
        # what is lacking, and 1 where it is there, so that a mean is a ratio of sums.
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
        self._bleu: dict[int, list[dict[str, float]]] = {}
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
        else:
            columns.extend((values, there.astype(np.float64)))

    def line(
        self,
        section: str,
        name: str,
        *,
        unanswered: int | None = None,
        unscorable: int = 0,
    ) -> Line:
        """The line of a score that was computed."""
        full = f"{section}.{name}"
        counted = section == "honest" and name.startswith("bleu")
        values = self._scores[OWN].get(COUNTS if counted else full)
        if values is None or np.isnan(values).all():
            return self.missing(section, name, "no answer has it")
        there = ~np.isnan(values)
        there = there[:, 0] if counted else there
        controls, gains = {}, {}
        for control in self._controls:
            systems = control, f"-{control}"  # The second: our own, of the same rows.
            pair = [self._of(section, name, system) for system in systems]
            if any(part is None for part in pair):
                controls[control] = gains[control] = None
                continue
            (value, drawn), (own, own_drawn) = pair
            controls[control] = self._estimate(full, control, value, drawn)
            gains[control] = Estimate(
                own - value, *intervals.percentile_interval(own_drawn - drawn)
            )
        value, drawn = self._of(section, name, OWN)
        return Line(
            section=section,
            name=name,
            rows=int(there.sum()),
            clips=len(set(self._clips[there])),
            own=self._estimate(full, OWN, value, drawn),
            reason=None,
            controls=controls,
            gains=gains,
            unanswered=unanswered,
            unscorable=unscorable,
        )

    def missing(self, section: str, name: str, reason: str) -> Line:
        """The line of a score that could not be computed."""
        nothing = dict.fromkeys(self._controls)
        return Line(section, name, 0, 0, None, reason, nothing, dict(nothing), None, 0)

    def _of(
        self, section: str, name: str, system: str
    ) -> tuple[float, Float[np.ndarray, " resamples"]] | None:
        """A score over all clips, and over those of every resample."""
        if section == "honest" and name.startswith("bleu"):
            place = self._places.get((COUNTS, system))
            if place is None:
                return None
            whole, *drawn = self._bleus(place)
            return whole[name], np.array([found[name] for found in drawn])
        place = self._places.get((f"{section}.{name}", system))
        if place is None or not self._whole[place + 1]:
            return None
        with np.errstate(invalid="ignore"):  # A resample without such rows: NaN.
            drawn = self._drawn[:, place] / self._drawn[:, place + 1]
        return self._whole[place] / self._whole[place + 1], drawn

    def _bleus(self, place: int) -> list[dict[str, float]]:
        """BLEU over all clips, then over those of every resample."""
        if place not in self._bleu:
            sums = np.concatenate([self._whole[None], self._drawn])
            counts = sums[:, place : place + 10].astype(np.int64)
            self._bleu[place] = [bleu.corpus_bleu(row) for row in counts]
        return self._bleu[place]

    def _estimate(
        self, full: str, system: str, value: float, drawn: Float[np.ndarray, " _"]
    ) -> Estimate:
        """With Wilson's interval where each answer is right or wrong."""
        scores = self._scores[system].get(full)
        if scores is not None and full.startswith("factual."):
            there = scores[~np.isnan(scores)]
            graded = full in ("factual.key", "factual.instruments")
            if not graded and np.isin(there, (0, 1)).all():
                low, high = intervals.wilson_interval(int(there.sum()), len(there))
                return Estimate(value, low, high)
        return Estimate(value, *intervals.percentile_interval(drawn))

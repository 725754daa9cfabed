"""Answers, and those of controls → a line per score: mean, interval, differences."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from musilingo_jax.evaluation.answered_questions import AnsweredQuestion
from musilingo_jax.evaluation.estimates import Estimate, Gain
from musilingo_jax.evaluation.metrics import bleu, diversity, facts, wording
from musilingo_jax.evaluation.metrics.wording import COUNTS, Wording, WordingModels
from musilingo_jax.evaluation.score_table import OWN, Measure, ScoreTable, mean
from musilingo_jax.runtime import cli


@dataclass(frozen=True)
class Line:
    """One score over all answers that have it.

    Attributes:
      section: "factual", "legacy", "honest", or "kind" (honest ROUGE-L of one kind of
        question).
      name: the name of the score within its section, or the kind of question.
      rows, clips: the number of answers that have the score, and of their clips.
      own: the score of the answers themselves; None if it could not be computed.
      reason: why it could not be computed.
      controls: control → its score; None if it could not be computed.
      gains: control → own − control, over the rows that both have.
      unanswered: answers that name nothing of the kind; None if that has no meaning.
      unscorable: references that do not state their own value in words that are read.
        An answer in the same words counts as wrong.
      contradicted: of those, references that state another value than their own.
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
    contradicted: int = 0

    @property
    def is_fact(self) -> bool:
        """Whether it is a score of facts as they are read, not by a published rule."""
        return self.section == "factual" and not self.name.endswith(facts.PUBLISHED)

    @property
    def known_gains(self) -> dict[str, Gain]:
        """Control → own − control, of the controls that have the score."""
        return {name: gain for name, gain in self.gains.items() if gain is not None}

    @property
    def beats_controls(self) -> bool:
        """Whether own is significantly above every control, and there is a control."""
        gains = self.known_gains.values()
        return bool(gains) and all(gain.is_above for gain in gains)


@dataclass(frozen=True)
class Scored:
    """All results of an evaluation.

    Attributes:
      lines: all scores.
      rows: the questions, with reference and answer.
      answers: system ("own", or a control) → its answers.
      scores: system → score → its value for each row, NaN where the row has none.
      diversity: system → distinct-1, distinct-2 and words per answer; "reference" has
        those of the references.
      notes: metric → what it was computed with.
    """

    lines: list[Line]
    rows: list[AnsweredQuestion]
    answers: dict[str, list[str | None]]
    scores: dict[str, dict[str, Float[np.ndarray, "rows ..."]]]
    diversity: dict[str, dict[str, float | None]]
    notes: dict[str, str]


def score(
    rows: Sequence[AnsweredQuestion],
    controls: Mapping[str, Sequence[str | None]],
    values: Mapping[str, set[str]],
    models: WordingModels,
    *,
    seed: int,
) -> Scored:
    """Computes every score of answers and controls.

    Args:
      rows: the questions, with reference and answer.
      controls: control → its answers; None for a row that it has no answer to.
      values: `facts.vocabulary` of the corpus.
      models: what some metrics need.
      seed: of the bootstrap, and of the sign flips.
    """
    answers: dict[str, list[str | None]] = {OWN: [row.answer for row in rows]}
    answers |= {control: list(given) for control, given in controls.items()}
    references = [row.reference for row in rows]
    others = [row.others for row in rows]
    scorer = Wording(models)
    scores, answered = {}, {}
    total = len(rows) * len(answers) * scorer.passes
    with cli.progress(total=total, unit="answers", label="scoring") as bar:
        for system, given in answers.items():
            judged = facts.score(rows, given, values)
            answered[system] = judged.answered
            scores[system] = scorer.score(given, references, bar.update, others)
            scores[system] |= {f"factual.{n}": s for n, s in judged.scores.items()}
    kinds = [row.kind for row in rows]
    for kind in sorted(set(kinds)):
        # Not an array of texts, which would drop NUL at their ends.
        is_kind = np.array([each == kind for each in kinds])
        for found in scores.values():
            rouge = found["honest.rouge_l"]
            found[f"kind.{kind}"] = np.where(is_kind, rouge, np.nan)
    table = ScoreTable([row.clip for row in rows], scores, seed=seed)
    of_references = facts.score(rows, references, values).scores
    mistaken = np.array([facts.contradicts(row, values) for row in rows])
    return Scored(
        lines=[
            *_factual(table, answered[OWN], of_references, mistaken),
            *(_line(table, "kind", kind) for kind in sorted(set(kinds))),
            *_worded(table, "honest", wording.HONEST, models.absent),
            *_worded(table, "legacy", wording.LEGACY, models.absent),
        ],
        rows=list(rows),
        answers=answers,
        scores=scores,
        diversity={
            system: diversity.of([text for text in given if text is not None])
            for system, given in {**answers, "reference": references}.items()
        },
        notes=models.notes,
    )


def _factual(
    table: ScoreTable,
    answered: Mapping[str, Float[np.ndarray, " rows"]],
    of_references: Mapping[str, Float[np.ndarray, " rows"]],
    mistaken: Bool[np.ndarray, " rows"],
) -> Iterator[Line]:
    """Scores of what answers say about the music, those with a protocol first.

    Args:
      table: all scores.
      answered: `Facts.answered` of the answers.
      of_references: `Facts.scores` of the references, taken for answers.
      mistaken: which rows `facts.contradicts`.
    """
    standard = [name for name in facts.STANDARD if name in of_references]
    for name in standard + sorted(of_references.keys() - facts.STANDARD):
        scores = of_references[name]
        unscorable = scores < 1  # NaN is not below 1.
        if name.startswith(("multiple_choice", "instruments")):
            unscorable[:] = False  # Their references may be worded freely.
        unanswered = int((answered[name] == 0).sum()) if name in answered else 0
        yield _line(
            table,
            "factual",
            name,
            unanswered=unanswered,
            unscorable=int(unscorable.sum()),
            contradicted=int((unscorable & mistaken).sum()),
        )


def _worded(
    table: ScoreTable, section: str, names: Sequence[str], absent: Mapping[str, str]
) -> Iterator[Line]:
    """Scores of how answers are worded."""
    for name in names:
        reason = absent.get(f"{section}.{name}")
        if reason is not None:
            yield _missing(table, section, name, reason)
        else:
            yield _line(table, section, name)


def _line(
    table: ScoreTable,
    section: str,
    name: str,
    *,
    unanswered: int | None = None,
    unscorable: int = 0,
    contradicted: int = 0,
) -> Line:
    """The line of a score, if any answer has it."""
    measure = _measure(section, name)
    if not table.has(measure, OWN):
        return _missing(table, section, name, "no answer has it")
    rows, clips = table.size(measure, OWN)
    compared = [c for c in table.controls if table.has(measure, c)]
    return Line(
        section=section,
        name=name,
        rows=rows,
        clips=clips,
        own=table.estimate(measure, OWN),
        reason=None,
        controls=dict.fromkeys(table.controls)
        | {control: table.estimate(measure, control) for control in compared},
        gains=dict.fromkeys(table.controls)
        | {control: table.gain(measure, control) for control in compared},
        unanswered=unanswered,
        unscorable=unscorable,
        contradicted=contradicted,
    )


def _missing(table: ScoreTable, section: str, name: str, reason: str) -> Line:
    """The line of a score that could not be computed."""
    return Line(
        section=section,
        name=name,
        rows=0,
        clips=0,
        own=None,
        reason=reason,
        controls=dict.fromkeys(table.controls),
        gains=dict.fromkeys(table.controls),
        unanswered=None,
        unscorable=0,
    )


def _measure(section: str, name: str) -> Measure:
    """How the score of a line is computed."""
    if section == "honest" and name.startswith("bleu"):
        return Measure(
            COUNTS, lambda sums: bleu.corpus_bleu(sums)[name], right_or_wrong=False
        )
    graded = section != "factual" or name.removesuffix(facts.PUBLISHED) in (
        "key",
        "instruments",
    )
    return Measure(f"{section}.{name}", mean, right_or_wrong=not graded)

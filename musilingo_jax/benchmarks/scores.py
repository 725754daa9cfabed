"""What a model said, also under controls → a line for each score.

Answers are read by three rules: the published one, so that a score can stand beside the
published tables; the project's own (`evaluation.metrics`), which reads an answer as a
musician would; and, of a multiple choice, the likelihood of the options, which loses
nothing to the form of an answer.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from musilingo_jax.benchmarks.item import (
    LIKELIHOOD,
    Answers,
    Benchmark,
    Item,
    Score,
)
from musilingo_jax.evaluation import controls
from musilingo_jax.evaluation.estimates import Estimate, Gain
from musilingo_jax.evaluation.metrics import facts
from musilingo_jax.evaluation.metrics.wording import Wording, WordingModels
from musilingo_jax.evaluation.score_table import OWN, Measure, ScoreTable

CONSTANT = "constant"


class Said(NamedTuple):
    """What a system answered, question by question.

    Attributes:
      answers: None where there is none.
      chosen: the likeliest candidate; None where there is none.
    """

    answers: Answers
    chosen: Sequence[int | None]


class Line(NamedTuple):
    """A score over all questions, or over those of a group.

    Attributes:
      score: which one.
      group: "" for all.
      items, clips: the questions that have it, and the songs that they are about.
      own: with the interval.
      controls: control → its score.
      gains: control → own − control, over the questions that both have.
    """

    score: Score
    group: str
    items: int
    clips: int
    own: Estimate
    controls: dict[str, Estimate]
    gains: dict[str, Gain]

    @property
    def beats_controls(self) -> bool:
        """Whether own is significantly above every control, and there is a control."""
        return bool(self.gains) and all(gain.is_above for gain in self.gains.values())


def lines(
    benchmark: Benchmark,
    items: Sequence[Item],
    clips: Sequence[str],
    said: Mapping[str, Said],
    wording: WordingModels | None,
    *,
    seed: int,
) -> list[Line]:
    """All lines: those of all questions, then those of each group.

    Args:
      benchmark: its rules.
      items: the questions.
      clips: the song of each.
      said: system → what it answered; `OWN` is the model with the music.
      wording: what scores of wording need; None if no question wants a caption.
      seed: of the bootstrap and the sign flips.
    """
    own = said[OWN].answers
    everything = dict(said)
    everything[CONSTANT] = _constant(benchmark, items, clips, seed)
    table: dict[str, dict[str, Float[np.ndarray, "rows ..."]]] = {}
    for system, each in everything.items():
        table[system] = _row_scores(benchmark, items, clips, each, wording)
    # A score of a question counts only where the model itself has an answer.
    has_own = np.array([answer is not None for answer in own])
    groups = sorted({group for item in items for group in item.groups})
    wanted = [score for score in benchmark.scores if score.name in table[OWN]]
    for found in table.values():
        for score in wanted:
            if score.name not in found:
                continue
            values = found[score.name]
            values = np.where(_like(has_own, values), values, np.nan)
            found[score.name] = values
            for group in groups:
                inside = np.array([group in item.groups for item in items])
                within = np.where(_like(inside, values), values, np.nan)
                found[_name(score, group)] = within
    names = [_name(score, group) for group in ("", *groups) for score in wanted]
    kept = {
        system: {name: found[name] for name in names if name in found}
        for system, found in table.items()
    }
    made = ScoreTable(clips, kept, seed=seed)
    return [
        line
        for group in ("", *groups)
        for score in wanted
        for line in _line(made, score, group)
    ]


def _name(score: Score, group: str) -> str:
    return f"{score.name}\0{group}" if group else score.name


def _like(
    rows: np.ndarray, values: Float[np.ndarray, "rows ..."]
) -> Float[np.ndarray, "rows ..."]:
    """A truth value for each row, in a shape that broadcasts with values."""
    return rows.reshape(-1, *[1] * (values.ndim - 1))


def _line(table: ScoreTable, score: Score, group: str) -> Iterator[Line]:
    measure = Measure(_name(score, group), score.formula, score.right_or_wrong)
    if not table.has(measure, OWN):
        return
    items, clips = table.size(measure, OWN)
    compared = [name for name in table.controls if table.has(measure, name)]
    yield Line(
        score,
        group,
        items,
        clips,
        table.estimate(measure, OWN),
        {name: table.estimate(measure, name) for name in compared},
        {name: table.gain(measure, name) for name in compared},
    )


def _row_scores(
    benchmark: Benchmark,
    items: Sequence[Item],
    clips: Sequence[str],
    said: Said,
    wording: WordingModels | None,
) -> dict[str, Float[np.ndarray, "rows ..."]]:
    """Name → score of each question, by all rules."""
    rows = [
        item.answered(clip, answer or "")
        for item, clip, answer in zip(items, clips, said.answers, strict=True)
    ]
    values = benchmark.values(items)
    found: dict[str, Float[np.ndarray, "rows ..."]] = {}
    judged = facts.score(rows, said.answers, values)
    found |= judged.scores
    for name, answered in judged.answered.items():
        found[f"{name}_answered"] = answered
    if wording is not None:
        captions = [
            answer if item.is_caption else None
            for item, answer in zip(items, said.answers, strict=True)
        ]
        references = [item.reference for item in items]
        others = [item.others for item in items]
        found |= Wording(wording).score(captions, references, lambda done: None, others)
    found |= benchmark.published(items, said.answers)
    found[LIKELIHOOD] = np.array(
        [
            np.nan if option is None else option == item.right
            for item, option in zip(items, said.chosen, strict=True)
        ]
    )
    return found


def _constant(
    benchmark: Benchmark, items: Sequence[Item], clips: Sequence[str], seed: int
) -> Said:
    """One answer to all questions of a kind."""
    nothing = [None] * len(items)
    if benchmark.constant is not None:
        return Said([benchmark.constant] * len(items), nothing)
    rows = [item.answered(clip, "") for item, clip in zip(items, clips, strict=True)]
    return Said(controls.constant(rows, rows, seed), nothing)

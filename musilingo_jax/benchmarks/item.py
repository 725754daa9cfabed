"""A question of a benchmark, and the form that all benchmarks have."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from musilingo_jax.corpora.clips import Wanted
from musilingo_jax.evaluation.answered_questions import AnsweredQuestion
from musilingo_jax.evaluation.score_table import mean

Answers = Sequence[str | None]
"""The answer to each of some questions; None where there is none."""
RowScores = Mapping[str, Float[np.ndarray, "rows ..."]]
"""Score → its value for each question, NaN where the question does not have it."""


@dataclass(frozen=True)
class Item:
    """A question.

    Attributes:
      id: of the question; no other has it.
      sound: what it is about.
      question: what the model is asked, the options with their letters included.
      reference: the right answer in full.
      attribute, value: what is asked for, and the truth, as in `AnsweredQuestion`.
      options: the texts of a multiple choice, in the order of the letters.
      bare: the question without its options, behind which their likelihood is read.
      candidates: the answers whose likelihood is read: the options, or all classes.
      right: which of the candidates is right; None without candidates.
      others: further references.
      is_caption: whether the answer is compared with references word by word.
      groups: under which names the scores are also given apart.
      about: what the benchmark's own scorer reads of the published row.
    """

    id: str
    sound: Wanted
    question: str
    reference: str
    attribute: str | None = None
    value: str | None = None
    options: tuple[str, ...] = ()
    bare: str = ""
    candidates: tuple[str, ...] = ()
    right: int | None = None
    others: tuple[str, ...] = ()
    is_caption: bool = False
    groups: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    def answered(self, clip: str, answer: str) -> AnsweredQuestion:
        """The question with an answer to it, as metrics of this package read it."""
        return AnsweredQuestion(
            clip=clip,
            question=self.question,
            reference=self.reference,
            answer=answer,
            attribute=self.attribute,
            value=self.value,
            options=self.options,
            record=None,
            inferred=False,
            others=self.others,
        )


class Reading(NamedTuple):
    """How published files become questions.

    Attributes:
      seed: of the orders of options.
      shuffles: how often each multiple choice is asked, each time in another order.
    """

    seed: int
    shuffles: int


class Score(NamedTuple):
    """A score that a benchmark reports.

    Attributes:
      name: its key in `RowScores`.
      label: its name in reports.
      rule: PUBLISHED, HONEST or LIKELIHOOD: by whose rule answers are read.
      says: what it counts, in a sentence without its end.
      right_or_wrong: whether an answer is right (1) or wrong (0).
      formula: summed terms of the rows → the score, as in `Measure`.
      is_evidence: whether a score above the controls shows that the model listens; that
        it answers at all does not.
    """

    name: str
    label: str
    rule: str
    says: str
    right_or_wrong: bool = True
    formula: Callable[[Any], Any] = mean
    is_evidence: bool = True


PUBLISHED, HONEST, LIKELIHOOD = "published", "honest", "likelihood"


class Row(NamedTuple):
    """A score that others report.

    Attributes:
      system: that was tested.
      score: label of the score, as in `Score`; another one if we do not compute it.
      percent: the score.
      source: where it stands.
    """

    system: str
    score: str
    percent: float
    source: str


class Told(NamedTuple):
    """A question with the model's answer, for the file of a benchmark's own scorer.

    Attributes:
      item: the question.
      audio: its sound file, relative to the folder of sound files.
      answer: what the model said.
    """

    item: Item
    audio: str
    answer: str


def no_values(items: Sequence[Item]) -> dict[str, set[str]]:
    """The `values` of a benchmark whose answers are not chosen among classes."""
    return {}


def no_scores(items: Sequence[Item], answers: Answers) -> RowScores:
    """The `published` of a benchmark whose rule is one of `evaluation.metrics`."""
    return {}


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
      name: on the command line.
      title: with its paper.
      data: what `--data` names.
      read: the published files → questions, in their order.
      scores: what is reported, the most important score first.
      rows: what others report.
      published: the scores of answers by its own rule that no other module computes.
      values: attribute → all classes, as in `facts.vocabulary`.
      files: the files that its own scorer reads: name → text.
      constant: an answer that owes nothing to the music; None for the best guess.
    """

    name: str
    title: str
    data: str
    read: Callable[[Path, Reading], list[Item]]
    scores: tuple[Score, ...]
    rows: tuple[Row, ...]
    published: Callable[[Sequence[Item], Answers], RowScores] = no_scores
    values: Callable[[Sequence[Item]], dict[str, set[str]]] = no_values
    files: Callable[[Sequence[Told]], dict[str, str]] = lambda told: {}
    constant: str | None = None

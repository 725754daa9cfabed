"""All scores that compare the words of answers with those of their references."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from musilingo_jax.evaluation.metrics import bertscore, bleu, diversity, rouge, wordnet
from musilingo_jax.evaluation.metrics.bertscore import BertScore
from musilingo_jax.evaluation.metrics.meteor import meteor
from musilingo_jax.evaluation.metrics.wordnet import Absent, Synonyms
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import print_note

# The reported scores, in this order. `legacy` is the arithmetic of MU-LLaMA's script,
# which the numbers of MU-LLaMA, MusiLingo and CMI-Bench were computed with.
LEGACY = ("bleu", "bleu4", "meteor", "rouge_l", "bertscore")
HONEST = (*(f"bleu{n}" for n in bleu.ORDERS), "rouge_l", "meteor", "bertscore")
# Scores of single answers, whose mean is the score of a corpus.
_SINGLE = (
    "legacy.bleu",
    "legacy.bleu4",
    "legacy.meteor",
    "legacy.rouge_l",
    "honest.rouge_l",
    "honest.meteor",
    "length",
)
COUNTS = "counts"  # `bleu.statistics`, which are summed before BLEU is computed.


@dataclass(frozen=True)
class WordingModels:
    """What some metrics need besides the texts.

    Attributes:
      synonyms: for METEOR, if available.
      bert: for BERTScore, if one was named.
      absent: score → why it cannot be computed.
      notes: metric → what it is computed with, for reports.
    """

    synonyms: Synonyms | None
    bert: BertScore | None
    absent: dict[str, str]
    notes: dict[str, str]

    @classmethod
    def load(cls, bertscore_model: str | None, layer: int | None) -> "WordingModels":
        """Finds WordNet, and loads the model of BERTScore if one is named.

        Args:
          bertscore_model: a name on the hub, or a folder.
          layer: the layer of it; None for the one that its authors chose.
        """
        synonyms = bert = None
        absent, notes = {}, {"bleu": bleu.signature()}
        try:
            synonyms = wordnet.find()
            notes["meteor"] = f"nltk, WordNet from {synonyms.source}"
        except Absent as error:
            absent |= dict.fromkeys(("legacy.meteor", "honest.meteor"), str(error))
        try:
            if not bertscore_model:
                raise Absent(bertscore.NOT_NAMED)
            bert = BertScore(bertscore_model, layer)
            notes["bertscore"] = bert.name
            if not bert.published:
                absent["legacy.bertscore"] = (
                    "the published numbers are those of roberta-large, layer 17, not "
                    f"of {bert.name}"
                )
        except Absent as error:
            names = ("legacy.bertscore", "honest.bertscore")
            absent |= dict.fromkeys(names, str(error))
        return cls(synonyms, bert, absent, notes)

    @classmethod
    def require(cls, bertscore_model: str | None, layer: int | None) -> "WordingModels":
        """`load` for a command: prints on stderr what will not be computed.

        Raises:
          UserError: the model of BERTScore was named, but cannot be used.
        """
        models = cls.load(bertscore_model, layer)
        for name, reason in models.absent.items():
            if name == "honest.bertscore":
                if bertscore_model is not None:
                    raise UserError(
                        f"--bertscore={bertscore_model}: {reason}; or leave the flag "
                        "out"
                    )
            elif name.startswith("honest."):
                metric = name.removeprefix("honest.")
                print_note(f"{metric} is not computed: {reason}")
        return models


class Wording:
    """Scores pairs of answer and reference, each different pair once."""

    def __init__(self, models: WordingModels):
        """Takes what some metrics need."""
        self._models = models
        self._known: dict[tuple[str, tuple[str, ...]], list[float]] = {}

    def score(
        self,
        answers: Sequence[str | None],
        references: Sequence[str],
        done: Callable[[int], Any],
        others: Sequence[tuple[str, ...]] | None = None,
    ) -> dict[str, Float[np.ndarray, "rows ..."]]:
        """Name → score of each answer; NaN if there is no answer.

        Args:
          answers: the answers; None for a row without one.
          references: the reference of each.
          done: is called with the number of rows done since the last call, in each of
            `passes`.
          others: further references of each. Legacy scores compare with the first
            alone, as published; honest ones with the best for the answer.

        Returns:
          `_SINGLE`, the two BERTScores, and `COUNTS` [rows, 10], without those that
          are absent.
        """
        table = np.full((len(answers), len(_SINGLE) + 10), np.nan)
        every = [
            (own, *(others[row] if others else ()))
            for row, own in enumerate(references)
        ]
        for row, (answer, own) in enumerate(zip(answers, every, strict=True)):
            if answer is not None:
                pair = answer, own
                if pair not in self._known:
                    self._known[pair] = self._score_one(answer, own)
                table[row] = self._known[pair]
            done(1)
        scores = {name: table[:, column] for column, name in enumerate(_SINGLE)}
        scores[COUNTS] = table[:, len(_SINGLE) :]
        given = {row: text for row, text in enumerate(answers) if text is not None}
        if self._models.bert is not None and given:
            pairs = [(row, each) for row in given for each in every[row]]
            recall, f1 = self._models.bert.score(
                [given[row] for row, _ in pairs], [each for _, each in pairs], done
            )
            scores["legacy.bertscore"] = np.full(len(answers), np.nan)
            scores["honest.bertscore"] = np.full(len(answers), np.nan)
            for place, (row, _) in enumerate(pairs):
                best = scores["honest.bertscore"]
                if np.isnan(best[row]):  # The row's own reference comes first.
                    scores["legacy.bertscore"][row] = recall[place]
                best[row] = np.fmax(best[row], f1[place])
        return {k: v for k, v in scores.items() if k not in self._models.absent}

    @property
    def passes(self) -> int:
        """How often `score` counts each row as done."""
        return 1 + (self._models.bert is not None)

    def _score_one(self, answer: str, references: tuple[str, ...]) -> list[float]:
        """A row of the table: `_SINGLE`, then the counts of BLEU."""
        own = references[0]
        equal, fours = bleu.published(answer, own)
        synonyms = self._models.synonyms
        shared = [
            np.nan if synonyms is None else meteor(answer, reference, synonyms)
            for reference in references
        ]
        return [
            equal,
            fours,
            shared[0],
            rouge.published_recall(answer, own),
            max(rouge.rouge_l(answer, reference) for reference in references),
            max(shared),
            diversity.length(answer),
            *bleu.statistics(answer, *references),
        ]

"""How answers are put: every score that compares their words with the reference's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from musilingo_jax.evaluation.metrics import bertscore, bleu, diversity, rouge, wordnet
from musilingo_jax.evaluation.metrics.bertscore import BertScore
from musilingo_jax.evaluation.metrics.meteor import meteor
from musilingo_jax.evaluation.metrics.wordnet import Absent, Synonyms

# What is reported, in this order. `legacy` is the arithmetic of MU-LLaMA's script, with
# which the numbers of MU-LLaMA, MusiLingo and CMI-Bench were made.
LEGACY = ("bleu", "bleu4", "meteor", "rouge_l", "bertscore")
HONEST = (*(f"bleu{n}" for n in bleu.ORDERS), "rouge_l", "meteor", "bertscore")
# Scores of single answers, of which a corpus has the mean.
_SINGLE = (
    "legacy.bleu",
    "legacy.bleu4",
    "legacy.meteor",
    "legacy.rouge_l",
    "honest.rouge_l",
    "honest.meteor",
    "length",
)
COUNTS = "counts"  # Columns that BLEU of words is made of, once they are summed.


@dataclass(frozen=True)
class WordingModels:
    """What some metrics need besides the texts.

    Attributes:
      synonyms: for METEOR, if there are any.
      bert: for BERTScore, if there is one.
      absent: metric → why it cannot be computed.
      notes: what was used, for the report.
    """

    synonyms: Synonyms | None
    bert: BertScore | None
    absent: dict[str, str]
    notes: dict[str, str]


def find_parts(model: str | None, layer: int | None) -> WordingModels:
    """Finds WordNet, and loads the model of BERTScore if one is named."""
    synonyms = bert = None
    absent, notes = {}, {"bleu": bleu.signature()}
    try:
        synonyms = wordnet.find()
        notes["meteor"] = f"nltk, WordNet from {synonyms.source}"
    except Absent as error:
        absent |= dict.fromkeys(("legacy.meteor", "honest.meteor"), str(error))
    try:
        if not model:
            raise Absent(bertscore.NOT_NAMED)
        bert = BertScore(model, layer)
        notes["bertscore"] = bert.name
        if not bert.published:
            absent["legacy.bertscore"] = (
                f"the published numbers are by roberta-large, layer 17, not {bert.name}"
            )
    except Absent as error:
        names = ("legacy.bertscore", "honest.bertscore")
        absent |= dict.fromkeys(names, str(error))
    return WordingModels(synonyms, bert, absent, notes)


class Wording:
    """Scores texts, each pair of answer and reference once."""

    def __init__(self, parts: WordingModels):
        """Takes what some metrics need."""
        self._parts = parts
        self._known: dict[tuple[str, str], list[float]] = {}

    def score(
        self,
        answers: Sequence[str | None],
        references: Sequence[str],
        done: Callable[[int], Any],
    ) -> dict[str, Float[np.ndarray, "rows ..."]]:
        """Name → score of each answer; NaN where there is no answer.

        Args:
          answers: what was said.
          references: what should be.
          done: told of every so many rows.

        Returns:
          `_SINGLE`, the two BERTScores, and `COUNTS` [rows, 10]; without what is
          absent.
        """
        pairs = list(zip(answers, references, strict=True))
        there = [i for i, (answer, _) in enumerate(pairs) if answer is not None]
        width = len(_SINGLE) + 10
        table = np.full((len(pairs), width), np.nan)
        for i, pair in enumerate(pairs):
            if pair[0] is not None:
                if pair not in self._known:
                    self._known[pair] = self._one(*pair)
                table[i] = self._known[pair]
            done(1)
        scores = {name: table[:, place] for place, name in enumerate(_SINGLE)}
        scores[COUNTS] = table[:, len(_SINGLE) :]
        if self._parts.bert is not None and there:
            found = np.full((2, len(pairs)), np.nan)
            said, wanted = zip(*(pairs[i] for i in there), strict=True)
            found[:, there] = self._parts.bert.score(said, wanted, done)
            scores["legacy.bertscore"], scores["honest.bertscore"] = found
        return {k: v for k, v in scores.items() if k not in self._parts.absent}

    @property
    def rounds(self) -> int:
        """How often each row is gone through."""
        return 1 + (self._parts.bert is not None)

    def _one(self, answer: str, reference: str) -> list[float]:
        """A row of the table: `_SINGLE`, then the counts of BLEU."""
        equal, fours = bleu.published(answer, reference)
        synonyms = self._parts.synonyms
        found = np.nan if synonyms is None else meteor(answer, reference, synonyms)
        return [
            equal,
            fours,
            found,
            rouge.published_recall(answer, reference),
            rouge.rouge_l(answer, reference),
            found,
            diversity.length(answer),
            *bleu.statistics(answer, reference),
        ]

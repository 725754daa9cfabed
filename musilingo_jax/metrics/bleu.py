"""BLEU (Papineni et al. 2002): n-grams of the answer that the reference has too.

The published numbers of music captioning are called BLEU, but count *characters*: their
script gives nltk strings where lists of words belong. Any two English texts share most
of their characters, in pairs too, so that such a BLEU is high whatever was heard.
"""

import functools
import warnings

import numpy as np
from jaxtyping import Int
from nltk.translate.bleu_score import sentence_bleu
from sacrebleu.metrics import BLEU

ORDERS = (1, 2, 3, 4)
_FOURS = (0.0, 0.0, 0.0, 1.0)
_EQUAL = (0.25, 0.25, 0.25, 0.25)


def published(answer: str, reference: str) -> tuple[float, float]:
    """BLEU of characters, as published: of 1 to 4 of them, and of 4 alone.

    `sentence_bleu` of nltk on strings, without smoothing. Where an order has no match
    nltk takes the smallest positive number for its share, so that the score is nearly
    0, and warns, which is of no use here.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        equal, fours = sentence_bleu([reference], answer, weights=[_EQUAL, _FOURS])
    return float(equal), float(fours)


def statistics(answer: str, reference: str) -> Int[np.ndarray, "10"]:
    """What one answer adds to the BLEU of a corpus of words.

    Returns:
      Matching n-grams and all n-grams of the answer, n = 1 to 4 each, and the lengths
      of answer and reference. Those of a corpus are the sums.
    """
    counted = _sacrebleu().sentence_score(answer, [reference])
    lengths = [counted.sys_len, counted.ref_len]
    return np.array([*counted.counts, *counted.totals, *lengths], np.int64)


def corpus_bleu(counts: Int[np.ndarray, "10"]) -> dict[str, float]:
    """BLEU-1 to BLEU-4 of a corpus, in [0, 1], from its summed `statistics`.

    BLEU-n is the geometric mean of the shares of matching 1- to n-grams, less for
    answers that are shorter than the references in all.
    """
    correct, total = counts[:4].tolist(), counts[4:8].tolist()
    answered, wanted = counts[8:].tolist()
    found = {
        order: BLEU.compute_bleu(
            correct[:order],
            total[:order],
            answered,
            wanted,
            smooth_method="none",
            max_ngram_order=order,
        ).score
        for order in ORDERS
    }
    # The library's logarithms round 100 to a little more.
    return {f"bleu{n}": min(1.0, score / 100) for n, score in found.items()}


def signature() -> str:
    """How sacrebleu counts, in its own words."""
    return "sacrebleu, tok:13a, case:mixed, smooth:none"


@functools.cache
def _sacrebleu() -> BLEU:
    # An effective order is what sacrebleu wants for single sentences. Counts stay.
    return BLEU(tokenize="13a", smooth_method="none", effective_order=True)

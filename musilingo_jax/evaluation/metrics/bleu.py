"""BLEU (Papineni et al. 2002): n-grams of the answer that the reference has too.

The published numbers of music captioning are called BLEU, but count *characters*: their
script gives nltk strings where lists of words belong. Any two English texts share most
of their characters, in pairs too, so that such a BLEU is high whatever was heard.
"""

import functools
import warnings

import numpy as np
from jaxtyping import Float, Int, Num
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


def corpus_bleu(
    counts: Num[np.ndarray, "*corpora 10"],
) -> dict[str, Float[np.ndarray, "*corpora"]]:
    """BLEU-1 to BLEU-4 of corpora, in [0, 1], from their summed `statistics`.

    BLEU-n is the geometric mean of the shares of matching 1- to n-grams, times
    exp(1 − references' length / answers' length) where the answers are shorter in all.
    It is 0 where an order has no match. A corpus without answers counts as 0 too:
    whether there are any is for the caller to know.
    """
    correct, total = counts[..., :4], counts[..., 4:8]
    answered, wanted = counts[..., 8], counts[..., 9]
    # Zeros stand for what has no match: a logarithm of −∞, and so a score of 0.
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.where(total > 0, correct / total, 0.0))
        shorter = np.where(answered > 0, 1 - wanted / answered, -np.inf)
    means = np.cumsum(logs, axis=-1) / ORDERS
    scores = np.exp(means + np.minimum(0.0, shorter)[..., None])
    return {f"bleu{n}": scores[..., n - 1] for n in ORDERS}


def signature() -> str:
    """How sacrebleu counts, in its own words."""
    return "sacrebleu, tok:13a, case:mixed, smooth:none"


@functools.cache
def _sacrebleu() -> BLEU:
    # An effective order is what sacrebleu wants for single sentences. Counts stay.
    return BLEU(tokenize="13a", smooth_method="none", effective_order=True)

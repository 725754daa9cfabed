"""BLEU (Papineni et al. 2002): the share of an answer's n-grams that the reference has.

The published numbers of music captioning are called BLEU but count *characters*: their
script passes strings to nltk where it expects lists of words. Any two English texts
share most of their characters and many pairs of them, so that this score is high
whatever the music.
"""

import functools
import warnings
from collections.abc import Sequence
from typing import cast

import numpy as np
from jaxtyping import Float, Int, Num
from nltk.translate.bleu_score import sentence_bleu
from sacrebleu.metrics.bleu import BLEU

ORDERS = (1, 2, 3, 4)
_FOURS = (0.0, 0.0, 0.0, 1.0)
_EQUAL = (0.25, 0.25, 0.25, 0.25)


def published(answer: str, reference: str) -> tuple[float, float]:
    """BLEU of characters, as published: of 1 to 4 characters, and of 4 alone.

    nltk's `sentence_bleu` on strings, without smoothing. For an order without matches
    nltk takes the smallest positive number, so that the score is nearly 0, and warns.
    The warning is suppressed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # With several weights it returns a list, which its annotation does not say.
        scores = sentence_bleu([reference], answer, weights=[_EQUAL, _FOURS])
    equal, fours = cast(Sequence[float], scores)
    return float(equal), float(fours)


def statistics(answer: str, *references: str) -> Int[np.ndarray, "10"]:
    """What one answer adds to the BLEU of words of a corpus.

    An n-gram matches as often as the reference that has it most often; the length is
    that of the reference that is nearest in length.

    Returns:
      Matching n-grams and all n-grams of the answer, n = 1 to 4 each, and the lengths
      of answer and reference. The statistics of a corpus are the sums.
    """
    counted = _sacrebleu().sentence_score(answer, list(references))
    lengths = [counted.sys_len, counted.ref_len]
    return np.array([*counted.counts, *counted.totals, *lengths], np.int64)


def corpus_bleu(
    counts: Num[np.ndarray, "*corpora 10"],
) -> dict[str, Float[np.ndarray, "*corpora"]]:
    """BLEU-1 to BLEU-4 of corpora, in [0, 1], from their summed `statistics`.

    BLEU-n is the geometric mean of the shares of matching 1- to n-grams, times
    exp(1 − length of references / length of answers) if the answers are shorter in all.
    It is 0 if an order has no match, and for a corpus without answers: whether there
    are any is for the caller to check.
    """
    correct, total = counts[..., :4], counts[..., 4:8]
    answered, referred = counts[..., 8], counts[..., 9]
    # An order without matches has the logarithm −∞, and so the score 0.
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.where(total > 0, correct / total, 0.0))
        shorter = np.where(answered > 0, 1 - referred / answered, -np.inf)
    means = np.cumsum(logs, axis=-1) / ORDERS
    scores = np.exp(means + np.minimum(0.0, shorter)[..., None])
    return {f"bleu{n}": scores[..., n - 1] for n in ORDERS}


def signature() -> str:
    """How sacrebleu counts, in the format of its own signatures."""
    return "sacrebleu, tok:13a, case:mixed, smooth:none"


@functools.cache
def _sacrebleu() -> BLEU:
    # sacrebleu warns about single sentences without `effective_order`, which changes
    # its score but not the counts.
    return BLEU(tokenize="13a", smooth_method="none", effective_order=True)

"""ROUGE-L (Lin 2004): how much of two texts stands in both in the same order."""

import functools
from collections.abc import Sequence

import numpy as np
from rouge_score import tokenize

from musilingo_jax.evaluation.metrics.words import Stemmer, stems


def common_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, all rows of the table at once.

    The textbook fills a table of len(first) · len(second) numbers, each equal to its
    upper neighbour or one more. Here one row is one integer, whose bit j is 0 where the
    row steps up at j (Hyyrö 2004, "Bit-parallel LCS-length computation revisited"), so
    that two texts of 5,000 words take milliseconds.

        first   slow piano tunes           row after "a"       1 1 1   (bit 0 right)
        second  a slow sad piano           row after "slow"    1 1 0   one step up
                                           row after "piano"   1 0 0   two: the length
    """
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    every = (1 << len(first)) - 1
    row = every
    for word in second:
        steps = row & places.get(word, 0)
        row = ((row + steps) | (row - steps)) & every
    return len(first) - row.bit_count()


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L F1 of one answer, on stems of words in any script, in [0, 1].

    The common subsequence over the length of the answer (precision) and of the
    reference (recall), combined as their harmonic mean. On plain English it equals
    `rouge_score`; elsewhere that library drops every letter but a to z.
    """
    said, wanted = stems(answer), stems(reference)
    if not said or not wanted:
        return 0.0
    # 2PR / (P + R), with P = common / len(said) and R = common / len(wanted).
    return 2 * common_length(said, wanted) / (len(said) + len(wanted))


def published_recall(answer: str, reference: str) -> float:
    """ROUGE-L recall as published: `rouge_score` with a stemmer, its recall only.

    A longer answer can only gain by it. What is not a to z or 0 to 9 is dropped.
    """
    said, wanted = _published_tokens(answer), _published_tokens(reference)
    if not said or not wanted:
        return 0.0
    return common_length(said, wanted) / len(wanted)


def most_typical(answers: Sequence[str]) -> str:
    """The answer with the highest mean ROUGE-L to the others; the first of equals."""
    scores = [
        sum(rouge_l(answer, other) for j, other in enumerate(answers) if i != j)
        for i, answer in enumerate(answers)
    ]
    return answers[int(np.argmax(scores))]


@functools.lru_cache(maxsize=1 << 14)
def _published_tokens(text: str) -> tuple[str, ...]:
    return tuple(tokenize.tokenize(text, Stemmer))

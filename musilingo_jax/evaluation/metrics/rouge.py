"""ROUGE-L (Lin 2004): how many words two texts have in common, in the same order."""

import functools
from collections.abc import Sequence

import numpy as np
from rouge_score import tokenize

from musilingo_jax.evaluation.metrics.words import Stemmer, stems


def common_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, a whole row of the table at a time.

    The textbook fills a table of len(first) · len(second) numbers, where each entry of
    a row equals its left neighbour or is one more. Here a row is one integer, whose bit
    j is 0 where the row steps up at j (Hyyrö 2004, "Bit-parallel LCS-length computation
    revisited"), so that two texts of 5,000 words take milliseconds.

        first   slow piano tunes           row after "a"       1 1 1   (bit 0 right)
        second  a slow sad piano           row after "slow"    1 1 0   one step up
                                           row after "piano"   1 0 0   two: the length
    """
    positions: dict[str, int] = {}  # As the bits of an integer.
    for position, word in enumerate(first):
        positions[word] = positions.get(word, 0) | 1 << position
    every = (1 << len(first)) - 1
    row = every
    for word in second:
        steps = row & positions.get(word, 0)
        row = ((row + steps) | (row - steps)) & every
    return len(first) - row.bit_count()


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L F1 of one answer, on stems of words in any script, in [0, 1].

    The harmonic mean of precision (the length of the common subsequence over that of
    the answer) and recall (over that of the reference). For plain English it equals
    `rouge_score`, which ignores all letters other than a to z.
    """
    answered, referred = stems(answer), stems(reference)
    if not answered or not referred:
        return 0.0
    # 2PR / (P + R), with P = common / len(answered) and R = common / len(referred).
    common = common_length(answered, referred)
    return 2 * common / (len(answered) + len(referred))


def published_recall(answer: str, reference: str) -> float:
    """ROUGE-L recall as published: `rouge_score` with a stemmer, its recall only.

    Making an answer longer never lowers it. All characters other than a to z and 0 to 9
    are ignored.
    """
    answered, referred = _published_tokens(answer), _published_tokens(reference)
    if not answered or not referred:
        return 0.0
    return common_length(answered, referred) / len(referred)


def most_typical(answers: Sequence[str]) -> str:
    """The answer with the highest mean ROUGE-L to the others; the first if several."""
    scores = [
        sum(rouge_l(answer, other) for j, other in enumerate(answers) if i != j)
        for i, answer in enumerate(answers)
    ]
    return answers[int(np.argmax(scores))]


@functools.lru_cache(maxsize=1 << 14)
def _published_tokens(text: str) -> tuple[str, ...]:
    return tuple(tokenize.tokenize(text, Stemmer))

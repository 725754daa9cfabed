"""What an answer is worth: the value that it names, its words, and how sure we are.

All functions here are pure and know nothing of models or files. Scores of single
answers come first, the uncertainty of their means after.
"""

import functools
import re
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float
from rouge_score import rouge_scorer

# The 97.5th percentile of the normal distribution: two-sided 95 % intervals.
Z_95 = 1.959964
# With fewer clips not even a unanimous sign test reaches 5 % (2 · 0.5⁵ = 0.0625), and
# a bootstrap over so few is blind to it: it never sees a clip that it has not drawn.
FEWEST_CLIPS = 6

# "#", "♯" and "♭" belong to a note's name: "F" is not named by "F# minor".
_WORD = r"[\w#♯♭]"
# Takes the place of matched text. Neither a word character nor white space, so that
# the words left and right of it never join to something that the answer does not say.
_GAP = "\0"


def named_value(answer: str, values: Iterable[str]) -> str | None:
    """The one value of `values` that an answer names; None if none or several.

    Longer values are looked for first and the matched text is removed, so that an
    answer "bass guitar" does not also name "guitar". Values match at word boundaries.
    A value with a capital letter is matched as written, for "A minor" is a key and "a
    minor" is not; the others are matched in any case.

        values: {"guitar", "bass guitar", "flute"}
        "A bass guitar leads."               → "bass guitar"
        "The guitar, yes, the guitar."       → "guitar"      (one distinct value)
        "A flute and a guitar."              → None          (two: no answer at all)
        "Something with strings."            → None

    Args:
      answer: what the model said.
      values: all values that the attribute takes.
    """
    named = set()
    for value in sorted(set(values), key=lambda value: (-len(value), value)):
        answer, matches = _pattern(value).subn(_GAP, answer)
        if matches:
            named.add(value)
    return named.pop() if len(named) == 1 else None


@functools.cache
def _pattern(value: str) -> re.Pattern[str]:
    words = r"\s+".join(re.escape(word) for word in value.split())
    flags = 0 if any(letter.isupper() for letter in value) else re.IGNORECASE
    return re.compile(rf"(?<!{_WORD}){words}(?!{_WORD})", flags)


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L F1 of one answer (Lin 2004), lower-cased and Porter-stemmed, in [0, 1].

    The longest common subsequence of words, over the length of the answer (precision)
    and of the reference (recall), combined as their harmonic mean. The numbers that
    the literature calls ROUGE-L for these tasks are often its recall: not comparable.
    """
    return _rouge().score(reference, answer)["rougeL"].fmeasure


@functools.cache
def _rouge() -> rouge_scorer.RougeScorer:
    return rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)


def most_typical(answers: Sequence[str]) -> str:
    """The answer with the highest mean ROUGE-L to the others; the first of equals."""
    scores = [
        sum(rouge_l(answer, other) for j, other in enumerate(answers) if i != j)
        for i, answer in enumerate(answers)
    ]
    return answers[int(np.argmax(scores))]


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927); stays inside [0, 1]."""
    rate, z = correct / total, Z_95
    centre = rate + z**2 / (2 * total)
    reach = z * np.sqrt(rate * (1 - rate) / total + z**2 / (4 * total**2))
    scale = 1 + z**2 / total
    return max(0.0, (centre - reach) / scale), min(1.0, (centre + reach) / scale)


def bootstrap_interval(
    scores: Float[np.ndarray, " rows"],
    clips: Sequence[str],
    *,
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    """95 % percentile interval of the mean score, resampling clips with their rows.

    Rows about one clip share its difficulty, so clips are drawn with replacement, not
    rows. Give it the differences between two systems on the same rows and it is the
    paired bootstrap (Efron & Tibshirani 1993, chapter 13; Koehn 2004).

    Args:
      scores: one score (or difference of scores) per row.
      clips: the clip of each row.
      resamples: how many times all clips are drawn.
      seed: of the draws.
    """
    ids, clip_of_row = np.unique(np.asarray(clips), return_inverse=True)
    sums = np.bincount(clip_of_row, weights=scores, minlength=len(ids))
    rows = np.bincount(clip_of_row, minlength=len(ids))
    # draws[r, c]: how often resample r took clip c.
    draws = np.random.default_rng(seed).multinomial(
        len(ids), np.full(len(ids), 1 / len(ids)), size=resamples
    )
    low, high = np.quantile((draws @ sums) / (draws @ rows), [0.025, 0.975])
    return float(low), float(high)

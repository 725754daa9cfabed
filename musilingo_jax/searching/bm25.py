"""How well each of some texts fits some words: BM25 (Robertson and Zaragoza 2009).

    score(text) = Σ over words w of   idf(w) · f (k + 1) / (f + k (1 − b + b n / n̄))

    f        how often w is in the text
    n, n̄     words of the text, and of the mean text
    idf(w)   log(1 + (N − N_w + ½) / (N_w + ½)), of N texts of which N_w have w

Words are compared without case, accents and the plural's s. There is no understanding:
"no drums" fits the word "drums".
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import regex
from jaxtyping import Float

from musilingo_jax.corpora.statements.negation import plain

# The usual values; scores depend on them little.
_K, _B = 1.2, 0.75
_WORD = regex.compile(r"[\p{L}\p{N}]+[#♯♭]?")


def scores(texts: Sequence[str], query: str) -> Float[np.ndarray, " texts"]:
    """The score of each text; 0 if it has none of the words.

    Args:
      texts: any number of them.
      query: words; those that are there twice count once.
    """
    counts = [Counter(words(text)) for text in texts]
    lengths = np.array([count.total() for count in counts], np.float64)
    mean = lengths.mean() if lengths.any() else 1.0
    scale = _K * (1 - _B + _B * lengths / mean)
    total = np.zeros(len(texts))
    for word in sorted(set(words(query))):
        found = np.array([count[word] for count in counts], np.float64)
        having = np.count_nonzero(found)
        idf = np.log1p((len(texts) - having + 0.5) / (having + 0.5))
        total += idf * found * (_K + 1) / (found + scale)
    return total


def words(text: str) -> list[str]:
    """The words of a text, as they are compared."""
    return [_singular(word) for word in _WORD.findall(plain(text).casefold())]


def _singular(word: str) -> str:
    is_plural = len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us"))
    return word[:-1] if is_plural else word

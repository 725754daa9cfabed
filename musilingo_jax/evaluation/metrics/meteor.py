"""METEOR (Lavie & Agarwal 2007): words, stems and synonyms that two texts share."""

from typing import Any

from nltk.tokenize import wordpunct_tokenize
from nltk.translate.meteor_score import meteor_score

from musilingo_jax.evaluation.metrics.wordnet import Synonyms
from musilingo_jax.evaluation.metrics.words import Stemmer


def meteor(answer: str, reference: str, synonyms: Synonyms) -> float:
    """METEOR of one answer by nltk, in [0, 1], tokenised as published.

    For `wordpunct_tokenize` a word is a run of letters or a run of punctuation, so that
    in a script without spaces a sentence is one word. nltk looks up the synonyms of
    *stems*, so that it finds fewer than the authors of METEOR do; so did the published
    numbers.
    """
    # nltk calls `stem` and `synsets` alone, but its annotations name whole classes.
    stemmer: Any = Stemmer
    wordnet: Any = synonyms
    return meteor_score(
        [wordpunct_tokenize(reference)],
        wordpunct_tokenize(answer),
        stemmer=stemmer,
        wordnet=wordnet,
    )

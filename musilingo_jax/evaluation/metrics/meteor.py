"""METEOR (Lavie & Agarwal 2007): words, stems and synonyms that both texts have."""

from nltk.tokenize import wordpunct_tokenize
from nltk.translate.meteor_score import meteor_score

from musilingo_jax.evaluation.metrics.wordnet import Synonyms
from musilingo_jax.evaluation.metrics.words import Stemmer


def meteor(answer: str, reference: str, synonyms: Synonyms) -> float:
    """METEOR of one answer by nltk, in [0, 1], tokenised as published.

    `wordpunct_tokenize` takes runs of letters, and runs of punctuation, for words. A
    script without spaces becomes one word per sentence. nltk looks for synonyms of
    *stems*, so that it finds fewer than METEOR's authors would; so did the published
    numbers.
    """
    return meteor_score(
        [wordpunct_tokenize(reference)],
        wordpunct_tokenize(answer),
        stemmer=Stemmer,
        wordnet=synonyms,
    )

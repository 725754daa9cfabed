"""BM25: by hand, and what it must not depend on."""

import math

import numpy as np
import pytest

from musilingo_jax.searching import bm25

TEXTS = ["a calm piano piece", "a loud piano and a calm guitar, loud", "drums"]


def test_scores_by_hand():
    lengths, mean = (4, 8, 1), 13 / 3

    def part(count, length, having):
        idf = math.log(1 + (3 - having + 0.5) / (having + 0.5))
        return idf * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * length / mean))

    expected = [
        part(1, lengths[0], 2),
        part(1, lengths[1], 2) + part(2, lengths[1], 1),
        0,
    ]
    np.testing.assert_allclose(bm25.scores(TEXTS, "piano LOUD loud"), expected)


@pytest.mark.parametrize("query", ["pianos", "Piano!", "pïano", "piano piano"])
def test_spellings_of_a_word_are_one(query):
    np.testing.assert_array_equal(
        bm25.scores(TEXTS, query), bm25.scores(TEXTS, "piano")
    )


def test_words_that_are_nowhere_and_texts_without_words():
    assert not bm25.scores(TEXTS, "tuba").any()
    assert not bm25.scores(["", "…"], "tuba").any()
    assert bm25.scores([], "tuba").shape == (0,)
    assert bm25.words("F# minor, drum'n'bass; 4/4 glass bus") == [
        *("f#", "minor", "drum", "n", "bass", "4", "4", "glass", "bus")
    ]


def test_rare_words_count_more_and_long_texts_less():
    texts = ["calm piano", "calm tuba", "calm piano", "calm piano " + "and so on " * 9]
    scores = bm25.scores(texts, "tuba piano")
    assert scores[1] > scores[0] > scores[3] > 0

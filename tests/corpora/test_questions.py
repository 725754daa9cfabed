"""Every text names the right values, and only those, in exactly the scored words."""

import re

import numpy as np
import pytest

from musilingo_jax.corpora import questions
from musilingo_jax.corpora.synthetic import ATTRIBUTES, compose


def named(text: str, attribute: str) -> set[str]:
    """The values of an attribute that a text names, the longest first."""
    found = set()
    for value in sorted(ATTRIBUTES[attribute], key=len, reverse=True):
        exact = 0 if any(c.isupper() for c in value) else re.IGNORECASE
        pattern = re.compile(rf"\b{re.escape(value)}\b", exact)
        if pattern.search(text):
            found.add(value)
            text = pattern.sub("|", text)  # "no drums" is not also "drums"
    return found


@pytest.fixture(scope="module")
def texts():
    """(piece, its captions, short rows, long rows) of 500 pieces."""
    rows = []
    for index in range(500):
        piece = compose(np.random.default_rng([4, index]), duration=1.0)
        rng = np.random.default_rng(index)
        captions = [questions.caption(piece, rng) for _ in range(3)]
        rows.append(
            (piece, captions, questions.short(piece, rng), questions.long(piece, rng))
        )
    return rows


def test_the_scorer_of_these_tests():
    assert named("Yes, there are drums.", "drums") == {"drums"}
    assert named("No drums here.", "drums") == {"no drums"}
    assert named("It is in A flat minor.", "key") == {"A flat minor"}
    assert named("in a minor key", "key") == set()
    assert named("a waltz, a march", "style") == {"waltz", "march"}


def test_short_answers_name_exactly_their_value(texts):
    for piece, _, rows, _ in texts:
        assert [row[2] for row in rows] == list(ATTRIBUTES)
        for _, answer, attribute, value in rows:
            assert value == piece.labels()[attribute]
            assert named(answer, attribute) == {value}
            assert 1 <= len(answer.split()) <= 8


def test_captions_name_every_value(texts):
    for piece, captions, _, _ in texts:
        for caption in captions:
            for attribute, value in piece.labels().items():
                assert named(caption, attribute) == {value}, caption
            assert len(caption.split()) <= 22
            assert caption[0].isupper() and caption.endswith(".")


def test_no_text_names_a_wrong_value(texts):
    for piece, captions, short, long in texts:
        answers = captions + [row[1] for row in (*short, *long)]
        for answer in answers:
            for attribute, value in piece.labels().items():
                assert named(answer, attribute) <= {value}, answer


def test_long_answers_are_two_to_four_sentences(texts):
    for _, _, _, rows in texts:
        assert len(rows) == len(questions.LONG)
        for _, answer in rows:
            assert 2 <= answer.count(".") <= 4
            assert len(answer.split()) <= 60


def test_articles_are_right_and_nothing_is_left_to_fill(texts):
    for _, captions, short, long in texts:
        for text in captions + [part for row in (*short, *long) for part in row[:2]]:
            assert not re.search(r"\b[Aa] [aeiou]", text), text
            assert not re.search(r"\b[Aa]n [^aeiou]", text), text
            assert not re.search(r"[{}]|  ", text), text


def test_questions_do_not_give_the_answer_away(texts):
    """A question names no value, or all of them ("major or minor?")."""
    asked = {q for _, _, short, long in texts for q in [r[0] for r in (*short, *long)]}
    for question in asked:
        for attribute, values in ATTRIBUTES.items():
            hits = named(question, attribute) - {"drums"}
            assert len(hits) in (0, len(values) - (attribute == "drums")), question


def test_texts_vary_but_their_words_are_few(texts):
    captions = {caption for _, three, _, _ in texts for caption in three}
    assert len(captions) > 1200
    words = {
        word
        for _, three, short, long in texts
        for text in three + [part for row in (*short, *long) for part in row[:2]]
        for word in re.findall(r"\w+", text.lower())
    }
    assert len(words) < 250

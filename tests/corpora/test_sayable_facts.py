"""What can be said about a recording, and in which words."""

import math

import numpy as np
import pytest

from musilingo_jax.corpora import fact_questions, facts
from musilingo_jax.corpora.facts import BEATS, FACTS, UNSURE
from musilingo_jax.evaluation.metrics.naming import named_value


def test_the_grid_of_tempi_is_fine_enough_and_covers_two_octaves():
    numbers = [int(beats) for beats in BEATS]
    steps = [math.log(b / a) for a, b in zip(numbers, numbers[1:], strict=False)]
    # A tempo is called right within four hundredths.
    assert max(steps) / 2 < 0.03 and min(steps) > 0.02
    assert numbers[-1] > 4 * numbers[0]


@pytest.mark.parametrize(
    "bpm, said", [(120, "118"), (50, "50"), (170, "169"), (30, "61"), (400, "197")]
)
def test_a_tempo_is_said_as_the_nearest_of_the_grid_or_an_octave_from_it(bpm, said):
    assert facts.beats_of(bpm) == said


def test_a_tempo_that_is_none_is_refused():
    with pytest.raises(ValueError, match="-3"):
        facts.beats_of(-3)
    with pytest.raises(ValueError, match="nan"):
        facts.beats_of(math.nan)


@pytest.mark.parametrize("fact", fact_questions.OF_RECORDINGS)
def test_an_answer_names_the_value_and_no_other_of_the_fact(fact):
    rng = np.random.default_rng(0)
    for value in FACTS[fact]:
        for _ in range(20):
            question, answer, named = fact_questions.short({fact: value}, fact, rng)
            assert named == value
            assert fact_questions.stated_value(answer, fact) == value
            assert len(question.split()) <= 12 >= len(answer.split())
            assert "{" not in question + answer


@pytest.mark.parametrize("fact", fact_questions.OF_RECORDINGS)
def test_what_is_not_known_is_not_said(fact):
    rng = np.random.default_rng(1)
    _, answer, value = fact_questions.short({}, fact, rng)
    assert answer == f"{UNSURE}." and value is None


def test_of_what_is_no_music_nothing_else_is_said():
    rng = np.random.default_rng(2)
    known = {"sound": "speech"}
    for fact in fact_questions.OF_RECORDINGS:
        _, answer, _ = fact_questions.short(known, fact, rng)
        assert fact_questions.stated_value(answer, "sound") == "speech"
    assert "speech" in fact_questions.caption(known, rng)
    assert all("speech" in answer for _, answer in fact_questions.long(known, rng))


@pytest.mark.parametrize(
    "answer, fact, value",
    [
        ("There is no music here, but noise.", "sound", "noise"),
        ("I can't tell.", "piano", None),
        ("No, there is no piano.", "piano", "no piano"),
        ("It is rock or jazz.", "family", None),
        ("It is in a minor key.", "key", None),
    ],
)
def test_what_an_answer_denies_is_not_what_it_states(answer, fact, value):
    assert fact_questions.stated_value(answer, fact) == value


def test_a_caption_names_all_that_is_known_and_nothing_else():
    rng = np.random.default_rng(3)
    for _ in range(200):
        known = {"sound": "music"}
        for fact in fact_questions.OF_RECORDINGS:
            if fact not in ("sound", "mode", "beats") and rng.random() < 0.5:
                known[fact] = str(rng.choice(FACTS[fact]))
        caption = fact_questions.caption(known, rng)
        for fact in known.keys() - {"sound"}:
            assert named_value(caption, set(FACTS[fact])) == known[fact], caption
        for fact in ("family", "manner", "energy", "tempo", *facts.INSTRUMENTS):
            if fact not in known:
                assert named_value(caption, set(FACTS[fact])) is None, caption

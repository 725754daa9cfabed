"""Answers that owe nothing to the music."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from musilingo_jax.corpora.records import Record
from musilingo_jax.evaluation import controls
from musilingo_jax.evaluation.answered_questions import AnsweredQuestion
from musilingo_jax.runtime.errors import UserError


def row(clip, question, answer, *, reference="", attribute=None, value=None):
    return AnsweredQuestion(
        clip, question, reference, answer, attribute, value, (), None, False
    )


def test_derangement_is_one_seeded_circle():
    clips = [f"{i}.wav" for i in range(9)] * 2
    other_of = controls.derangement(clips, seed=0)
    assert all(clip != other for clip, other in other_of.items())
    assert sorted(other_of) == sorted(other_of.values()) == sorted(set(clips))
    assert other_of == controls.derangement(clips[::-1], seed=0)
    assert other_of != controls.derangement(clips, seed=1)
    with pytest.raises(UserError, match="at least two"):
        controls.derangement(["a.wav", "a.wav"], seed=0)


def test_shuffled_answers_are_of_other_clips_and_of_the_same_question():
    rows = [
        row(clip, question, f"{clip} {question}")
        for clip in "abcdef"
        for question in ("How fast?", "How loud?")
    ]
    given = controls.shuffled(rows, seed=0)
    for asked, answer in zip(rows, given, strict=True):
        clip, question = answer.split(" ", 1)
        assert clip != asked.clip and question == asked.question
    assert Counter(given) == Counter(r.answer for r in rows)
    assert given == controls.shuffled(rows, seed=0)
    assert given != controls.shuffled(rows, seed=1)


def test_shuffling_several_rows_per_clip():
    rows = [row(clip, "", f"{clip}{i}") for clip in "aaabbccc" for i in range(2)]
    for seed in range(10):
        given = controls.shuffled(rows, seed=seed)
        assert all(g[0] != r.clip for g, r in zip(given, rows, strict=True))
    # One clip has more than half of the rows: some would get their own answers.
    assert controls.shuffled(rows[:8], seed=0) == [None] * 8
    assert controls.shuffled([row("a", "", "x")], seed=0) == [None]


def test_constant_answers_are_the_most_frequent_and_most_typical():
    def tempo(clip, value, reference):
        return row(clip, "?", "", reference=reference, attribute="tempo", value=value)

    known = [
        tempo("k1", "slow", "It is slow."),
        tempo("k2", "slow", "Quite slow, it is slow."),
        tempo("k3", "slow", "It is slow."),
        tempo("k4", "fast", "It is fast."),
        row("k5", "", "", reference="A calm jazz trio."),
        row("k6", "", "", reference="A jazz trio."),
        row("k6", "", "", reference="A jazz trio."),
        row("k7", "", "", reference="Drums!"),
    ]
    rows = [tempo("a", "fast", ""), row("b", "", ""), row("c", "Why?", "")]
    given = controls.constant(rows, known, seed=0)
    assert given == ["It is slow.", "A jazz trio.", None]


def test_a_constant_answer_is_never_a_clips_own_reference():
    rows = [
        row(clip, "", "", reference=reference)
        for clip, reference in (
            ("a", "a jazz trio"),
            ("b", "a jazz duo"),
            ("c", "drums"),
        )
    ]
    given = controls.constant(rows, rows, seed=0)
    assert len(set(given)) <= 2
    assert all(g != r.reference for g, r in zip(given, rows, strict=True))
    assert controls.constant(rows[:1], rows[:1], seed=0) == [None]


def test_a_constant_choice_is_a_letter():
    rows = [
        dataclasses.replace(row(str(i), "?", ""), value=value, options=("x", "y", "z"))
        for i, value in enumerate(("y", "B", "z", "B"))
    ]
    assert controls.constant(rows, rows, seed=0) == ["B"] * 4


@pytest.mark.parametrize("name", ["multiple choice", "captions", "other questions"])
def test_attributes_named_like_other_kinds_have_controls_of_their_own(name):
    """So has an attribute that is named like the group of a question."""
    rows = [row(str(i), "", "", reference=f"song {i}") for i in range(4)]
    rows += [row(str(i), "Why?", "", reference=f"because {i}") for i in range(4)]
    choice = {"options": ("x", "y"), "value": "B"}
    rows += [dataclasses.replace(row(str(i), "?", ""), **choice) for i in range(4)]
    for attribute in (name, "“Why?”"):
        rows += [
            row(str(i), "?", "", reference="calm", attribute=attribute, value="calm")
            for i in range(4)
        ]
    given = controls.constant(rows, rows, seed=0)
    assert given[8:] == ["B"] * 4 + ["calm"] * 8
    assert all(answer.startswith("song") for answer in given[:4])
    assert all(answer.startswith("because") for answer in given[4:8])
    kinds = [r.kind for r in rows]
    assert kinds[12] == f"{name} (attribute)"
    assert Counter(kinds).most_common() == [(kind, 4) for kind in dict.fromkeys(kinds)]


def record(clip, question):
    return Record(None, clip, question, "!", "test", None, None)


def test_silence_and_no_audio_are_asked_once_per_question():
    lengths = {"a": 3, "b": 3, "c": 5}
    features = {clip: np.full((n, 2), 7.0) for clip, n in lengths.items()}
    records = [record(clip, q) for clip in "abc" for q in ("", "How fast?")]
    asks = controls.asks(records, features.__getitem__, seed=0)
    assert [ask.heard for ask in asks["no_audio"]] == ["none"] * 6
    assert len(set(asks["no_audio"])) == 2
    assert [ask.heard for ask in asks["silence"]] == (
        ["zeros:a"] * 2 + ["zeros:a"] * 2 + ["zeros:c"] * 2
    )
    assert len(set(asks["silence"])) == 4
    for asked, given in zip(records, asks["shuffled_audio"], strict=True):
        assert given.record == asked and given.heard != asked.clip
    for control in asks.values():
        questions = [ask.record.question for ask in control]
        assert questions == [r.question for r in records]


def test_what_the_controls_hear():
    features = {"a": np.full((3, 2), 7.0, np.float32)}
    hear = controls.heard_features(features.__getitem__, "a")
    assert hear("none").shape == (0, 2)
    silence = hear("zeros:a")
    assert silence.shape == (3, 2) and silence.dtype == np.float32
    assert not silence.any()
    assert hear("a") is features["a"]

"""Scores of facts, each protocol checked by hand."""

import numpy as np
import pytest

from musilingo_jax.evaluation.answered_questions import AnsweredQuestion
from musilingo_jax.evaluation.metrics import choices, facts, instruments, keys, tempo
from musilingo_jax.evaluation.metrics.naming import named_value

INSTRUMENTS = ("guitar", "bass guitar", "flute", "piano")
KEYS = ("A minor", "A major", "F minor", "F# minor", "C# major")


@pytest.mark.parametrize(
    ("answer", "values", "named"),
    [
        ("A bass guitar leads.", INSTRUMENTS, "bass guitar"),
        ("The Guitar, yes, the guitar!", INSTRUMENTS, "guitar"),
        ("A bass guitar and a guitar.", INSTRUMENTS, None),
        ("A flute and a guitar.", INSTRUMENTS, None),
        ("Bass  \n guitar", INSTRUMENTS, "bass guitar"),
        ("Something with strings.", INSTRUMENTS, None),
        ("", INSTRUMENTS, None),
        ("guitarist", INSTRUMENTS, None),
        ("The key is A minor.", KEYS, "A minor"),
        ("It has a minor flaw.", KEYS, None),
        ("The key is F# minor.", KEYS, "F# minor"),
        ("The key is F# minor.", ("F", "A"), None),
        # Removing "bass guitar" must not join "A" and "minor" to a key.
        ("A bass guitar minor", (*INSTRUMENTS, "A minor"), "bass guitar"),
        ("Yes.", ("yes", "no"), "yes"),
        ("No, there are no drums.", ("yes", "no"), "no"),
        ("Notably not.", ("yes", "no"), None),
        ("c++ (1.5)", ("c++ (1.5)", "c"), "c++ (1.5)"),
    ],
)
def test_named_value(answer, values, named):
    assert named_value(answer, values) == named
    assert named_value(answer, tuple(reversed(values))) == named


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("It is in F sharp minor.", "Gb minor"),
        ("F# minor", "Gb minor"),
        ("f♯ MINOR", "Gb minor"),
        ("in the key of B-flat major", "Bb major"),
        ("A♭ Major", "Ab major"),
        ("Cb major", "B major"),
        ("B sharp minor", "C minor"),
        ("D-minor", "D minor"),
        ("the key is a minor.", "A minor"),
        ("a minor", "A minor"),
        ("a minor flaw", None),
        ("It has a minor-key feel.", None),
        ("A minor change in dynamics; the key is E major", "E major"),
        ("Loud. A major element is the drums.", None),
        ("“A minor key.” It is C major.", "C major"),
        ("A minor is its key.", "A minor"),
        ("A minor and 120 BPM", "A minor"),
        ("A minor, slow", "A minor"),
        ("It is an A minor ballad.", "A minor"),
        ("Ab minor ballad", "Ab minor"),
        ("in a minor key, A minor", "A minor"),
        ("C major, not G major", "C major"),
        ("H minor", None),
        ("Gmajor", None),
        ("a minority", None),
        ("", None),
    ],
)
def test_named_key(text, key):
    assert keys.named_key(text) == key


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("C major", 1.0),
        ("It is in G major.", 0.5),  # The fifth above.
        ("F major", 0.0),  # The fifth below.
        ("A minor", 0.3),  # Relative.
        ("C minor", 0.2),  # Parallel.
        ("D major", 0.0),
        ("I do not know.", 0.0),
    ],
)
def test_key_scores_of_mirex(answer, score):
    assert keys.weighted_score(answer, "C major") == score


@pytest.mark.parametrize(
    ("answer", "near", "octave"),
    [
        ("120 BPM", True, True),
        ("about 124.8", True, True),  # 4 % more
        ("124.9 BPM", False, False),
        ("115.2", True, True),
        ("115.1", False, False),
        ("240", False, True),
        ("60", False, True),
        ("360 or 120", False, True),
        ("41.6", False, True),  # a third, and 4 % more
        ("4/4 at 120 BPM", False, False),  # the first number counts
        ("fast", False, False),
        ("9" * 5000, False, False),
    ],
)
def test_tempo_accuracies(answer, near, octave):
    assert tempo.accuracy(answer, 120.0) == (near, octave)


@pytest.mark.parametrize(
    ("text", "bpm"),
    [
        ("It is in 4/4 time at 120 BPM.", "120"),
        ("97.5bpm", "97.5"),
        ("90 beats per minute", "90"),
        (" 120. ", "120"),
        ("120 BPM, yes, 120 bpm", "120"),
        ("It has 2 sections, both slow.", None),
        ("A typical 80s ballad, slow.", None),
        ("90-120 BPM", None),
        ("between 90 and 120 BPM", None),
        ("90 BPM, later 120 BPM", None),
        ("BPM", None),
        ("", None),
    ],
)
def test_stated_tempo(text, bpm):
    assert tempo.stated(text) == bpm


def test_named_keys_are_all_of_them_in_order():
    assert list(keys.named_keys("C major, then a minor bridge in G minor.")) == [
        *("C major", "G minor")
    ]


def test_instruments_by_hand():
    classes = {"piano", "guitar", "bass guitar", "drums", "violin"}
    answer = "Two violins and a piano. There are no drums. No guitar!"
    assert instruments.named(answer, classes) == {"violin", "piano"}
    assert instruments.named("A bass guitar; a Piano", classes) == {
        "bass guitar",
        "piano",
    }
    true = instruments.listed("Piano, bass guitar,drums")
    assert true == {"piano", "bass guitar", "drums"}
    # One of two is right, one of three is found: P = 1/2, R = 1/3.
    assert instruments.f1({"violin", "piano"}, true) == pytest.approx(0.4)
    assert instruments.f1(set(), true) == 0


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ("(B)", 1),
        ("B. a flute", 1),
        ("The answer is C", 2),
        ("I hear A or B: it is a flute.", 1),  # Two letters: by the text.
        ("there is a drum kit", 2),
        ("A or B", None),
        ("no idea", None),
        ("", None),
        ("D", None),  # There are only three.
        ("Choices are A, B. The correct answer is: C", 2),
        ("A flute", 1),  # The whole text comes before the letter in it.
        (" *a FLUTE*.", 1),
        ("The correct answer is: A flute.", 1),
        ("A", 0),
        ("Big sounds of a drum kit", 1),  # MuChoMusic's rule: any capital letter.
    ],
)
def test_multiple_choice(answer, place):
    options = ("a piano", "A flute", "a drum kit")
    assert choices.chosen(answer, options) == place


def test_right_options_by_letter_and_by_text():
    options = ("a piano", "A flute")
    assert choices.right("B", options) == choices.right(" a flute", options) == 1
    assert choices.right("C", options) is None
    # Texts of punctuation alone differ by it.
    assert (
        choices.chosen("!", ("?", "!")) == 1 and choices.chosen("", ("?", "!")) is None
    )


def row(attribute, value, answer, options=()) -> AnsweredQuestion:
    return AnsweredQuestion(
        "clip", "?", "", answer, attribute, value, options, None, False
    )


def test_each_row_is_scored_by_what_it_asks_for():
    rows = [
        row("key", "F# minor", "F sharp minor"),
        row("key", "C major", "A minor"),
        row("key", "atonal", "It is atonal."),
        row("tempo", "120", "60 BPM"),
        row("tempo", "slow", "It is slow."),
        row("instruments", "piano, drums", "A piano."),
        row("genre", "Rock", "this is rock"),
        row("genre", "Jazz", "rock and jazz"),
        row("mood", "calm", "calm"),
        row(None, "B", "(A)", ("x", "y")),
        row(None, None, "A nice song."),
    ]
    values = facts.vocabulary((r.attribute, r.value) for r in rows)
    found = facts.score(rows, [r.answer for r in rows], values)
    means = {name: np.nanmean(column) for name, column in found.scores.items()}
    assert means == {
        "key": pytest.approx((1 + 0.3) / 2),
        "key_exact": 0.5,
        "key_named": 1.0,
        "tempo_acc1": 0.0,
        "tempo_acc2": 1.0,
        "tempo": 1.0,
        "instruments": pytest.approx(2 / 3),
        "genre": 0.5,
        "mood": 1.0,
        "multiple_choice": 0.0,
    }
    assert np.nansum(found.answered["genre"]) == 1
    silent = facts.score(rows, [None] * len(rows), values)
    assert not silent.scores

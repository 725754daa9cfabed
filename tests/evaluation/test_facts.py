"""Scores of facts, each protocol checked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musilingo_jax.corpora.statements.keys import named_key
from musilingo_jax.corpora.statements.tempos import tempo as stated_tempo
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
        ("f♯ MINOR", "Gb minor"),
        ("B sharp minor", "C minor"),
        ("a minor flaw", None),
        ("A minor change in dynamics; the key is E major", "E major"),
        ("A minor is its key.", "A minor"),
        ("not C major but G major", "C major"),
        ("Am", None),
        ("Gmajor", None),
        ("", None),
    ],
)
def test_the_published_rule_for_keys(text, key):
    assert keys.published_key(text) == key


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
    assert keys.weighted_score(named_key(answer), "C major") == score
    assert keys.weighted_score(named_key(answer), "C:maj") == score


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
        ("360 or 120", False, False),
        ("41.6", False, True),  # a third, and 4 % more
        ("4/4 at 120 BPM", True, True),
        ("118 to 122 BPM", True, True),
        ("90 to 120 BPM", False, False),
        ("fast", False, False),
        ("9" * 5000, False, False),
    ],
)
def test_tempo_accuracies(answer, near, octave):
    assert tempo.accuracy(stated_tempo(answer), 120.0) == (near, octave)


def test_the_published_rule_takes_the_first_number():
    for answer, near in (("about 124.8", True), ("4/4 at 120 BPM", False)):
        found = tempo.published_tempo(answer)
        assert tempo.accuracy(found, 120.0) == (near, near)
    assert tempo.published_tempo("9" * 5000) == (math.inf, math.inf)
    assert tempo.published_tempo("fast") is None


def test_instruments_by_hand():
    classes = {"piano", "guitar", "bass guitar", "drums", "violin"}
    answer = "Two violins and a piano. There are no drums. No guitar!"
    assert instruments.named(answer, classes) == {"violin", "piano"}
    assert instruments.published_named(answer, classes) == {"violin", "piano"}
    for text in (
        "A bass guitar; a Piano",
        "bassguitar, pianos",
        "Not drums: piano, Bass-Guitar",
    ):
        assert instruments.named(text, classes) == {"bassguitar", "piano"}, text
    # The published rule ignores the whole sentence.
    answer = "A drum and a piano, but no violin."
    assert instruments.named(answer, classes) == {"drum", "piano"}
    assert instruments.published_named(answer, classes) == set()
    assert instruments.keys_of({"drums"}) == {"drum"}
    for value in ("Piano, bass guitar,drums", "piano and bass guitar; drums"):
        true = instruments.listed(value)
    assert true == {"piano", "bass guitar", "drums"}
    # One of two is right, one of three is found: P = 1/2, R = 1/3.
    assert instruments.f1({"violin", "piano"}, true) == pytest.approx(0.4)
    assert instruments.f1(set(), true) == 0


CHOSEN = (
    ("(B)", 1),
    ("B. a flute", 1),
    ("The answer is C", 2),
    ("I hear A or B: it is a flute.", 1),
    ("there is a drum kit", 2),
    ("A or B", None),
    ("no idea", None),
    ("", None),
    ("D", None),
    ("Choices are A, B. The correct answer is: C", 2),
    ("A flute", 1),
    (" *a FLUTE*.", 1),
    ("The correct answer is: A flute.", 1),
    ("A", 0),
    ("Big sounds of a drum kit", 2),
    ("flute", 1),
    ("(b)", 1),
    ("b", 1),
    ("B)", 1),
    ("Option B", 1),
    ("option (b)", 1),
    ("The answer is B.", 1),
    ("**B**", 1),
    ("[[B]]", 1),
    ("\\boxed{B}", 1),
    ("Answer: B", 1),
    ("B: A flute", 1),
    ("B - a flute", 1),
    ("Not A. The answer is B.", 1),
    ("It is not a piano but a flute.", 1),
    ("A calm song", None),
    ("I think it's B", 1),
    ("The correct option is (C) a drum kit.", 2),
    ("'A flute'", 1),
    ("“A flute”", 1),
    ("It has a flute and a piano", None),
    ("A. a piano", 0),
    ("A: piano", 0),
    ("My choice is A", 0),
    ("I would choose option A because the piano leads", 0),
    ("drumkit", 2),
    ("B\n\nBecause a piano is not heard", 1),
    ("The correct answer is B) A flute. It is not a piano.", 1),
)


@pytest.mark.parametrize(("answer", "place"), CHOSEN)
def test_multiple_choice(answer, place):
    options = ("a piano", "A flute", "a drum kit")
    assert choices.chosen(answer, options) == place
    labelled = ("A. a piano", "B. A flute", "C. a drum kit")
    assert choices.chosen(answer, labelled) == place


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ("(B)", 1),
        ("A flute", 0),  # Any capital letter, before any text.
        ("Big sounds of a drum kit", 1),
        ("I hear A or B: it is a flute.", 1),
        ("a piano and a flute", 0),  # The first option that it contains.
        ("Choices are A, B. The correct answer is: C", 2),
        ("no idea", None),
        ("", None),
    ],
)
def test_the_rule_of_muchomusic(answer, place):
    options = ("a piano", "A flute", "a drum kit")
    assert choices.published_choice(answer, options) == place


@given(
    st.text(max_size=60),
    st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=5),
)
@settings(deadline=None)
def test_no_answer_breaks_a_choice(answer, options):
    for found in (
        choices.chosen(answer, options),
        choices.published_choice(answer, options),
    ):
        assert found is None or 0 <= found < len(options)
    choices.right(answer, options)


def test_right_options_by_letter_and_by_text():
    options = ("a piano", "A flute")
    assert choices.right("B", options) == choices.right(" a flute", options) == 1
    assert choices.right("(b)", options) == choices.right("B. a flute", options) == 1
    assert choices.right("(B) y", ("(A) x", "(B) y")) == 1
    assert choices.right("A. a flute", options) is None
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
        "key_published": pytest.approx((1 + 0.3) / 2),
        "key_named": 1.0,
        "tempo_acc1": 0.0,
        "tempo_acc2": 1.0,
        "tempo_acc1_published": 0.0,
        "tempo_acc2_published": 1.0,
        "tempo": 1.0,
        "instruments": pytest.approx(2 / 3),
        "instruments_published": pytest.approx(2 / 3),
        "genre": 0.5,
        "genre_published": 0.5,
        "mood": 1.0,
        "multiple_choice": 0.0,
        "multiple_choice_published": 0.0,
    }
    assert np.nansum(found.answered["genre"]) == 2
    silent = facts.score(rows, [None] * len(rows), values)
    assert not silent.scores


def scores_of(*rows):
    values = facts.vocabulary((r.attribute, r.value) for r in rows)
    found = facts.score(rows, [r.answer for r in rows], values).scores
    return {name: column[~np.isnan(column)].tolist() for name, column in found.items()}


@pytest.mark.parametrize("value", ["F# minor", "F#m", "Gb:min", "fis-Moll", "11A"])
def test_true_keys_in_any_notation(value):
    answers = ["F♯m", "It's in F# minor.", "Gb min", "Am", "A min"]
    found = scores_of(*(row("key", value, answer) for answer in answers))
    assert found["key"] == found["key_exact"] == [1, 1, 1, 0, 0]
    assert found["key_published"] == [0, 1, 0, 0, 0]


def test_other_names_of_attributes_with_a_protocol():
    found = scores_of(row("Key", "Am", "A minor"), row("BPM", "about 120", "120 BPM"))
    assert found["key"] == found["tempo_acc1"] == [1]


def test_genres_in_any_spelling_and_several_in_a_value():
    found = scores_of(
        row("genre", "Hip-Hop", "a hip hop beat"),
        row("genre", "Hip-Hop", "It is hiphop."),
        row("genre", "Rock", "not hip hop but rock"),
        row("genre", "jazz, pop", "It is jazz."),
        row("genre", "jazz, pop", "rock and jazz"),
    )
    assert found["genre"] == [1, 1, 1, 1, 0]
    assert found["genre_published"] == [0, 0, 1, 0, 0]


def test_values_are_named_in_any_case_and_can_follow_from_what_is_there():
    found = scores_of(
        row("mood", "Calm", "It is calm."),
        row("mood", "Wild", "not calm, wild"),
        row("mood", "Wild", "calm or wild"),
        row("drums", "yes", "There are drums."),
        row("drums", "no", "I hear a piano without drums."),
        row("drums", "no", "Yes, drums."),
        row("beat", "drums", "Yes."),
        row("beat", "no drums", "It is played without drums."),
    )
    assert found["mood"] == [1, 1, 0]
    assert found["drums"] == [1, 1, 0]
    assert found["beat"] == [1, 1]


@pytest.mark.parametrize(
    ("attribute", "value", "reference", "is_mistaken"),
    [
        ("key", "F# minor", "It is in Gb minor.", False),
        ("key", "F#m", "It is in A major.", True),
        ("key", "F#m", "It is dark.", False),
        ("tempo", "120", "It has 60 BPM.", False),  # Half of it.
        ("tempo", "120", "It has 90 BPM.", True),
        ("mood", "calm", "It is wild.", True),
        ("mood", "calm", "First calm, then wild.", False),
        ("mood", "calm", "A song.", False),
        ("instruments", "piano", "A violin.", False),
    ],
)
def test_references_that_contradict_their_value(
    attribute, value, reference, is_mistaken
):
    asked = AnsweredQuestion("c", "?", reference, "", attribute, value, (), None, False)
    values = {attribute: {value, "wild"}}
    assert facts.contradicts(asked, values) == is_mistaken

"""Which sentences of a caption contradict the fields of its song."""

import pytest

from musilingo_jax.captioning.contradictions import (
    Facts,
    faults,
    is_sung,
    sentences,
    without,
)
from musilingo_jax.corpora.statements.metres import beats, metres
from musilingo_jax.corpora.statements.modes import modes

PIANO = Facts(112.4, "A minor", 4, False, ("piano",), ("drums",))
SONG = Facts(80.0, "F# major", 3, True, ("acoustic guitar", "drums"), ())


def reasons(caption, facts, *, is_cut=False):
    return [fault.reason for fault in faults(caption, facts, is_cut=is_cut)]


@pytest.mark.parametrize(
    ("facts", "caption", "found"),
    [
        (PIANO, "A calm piano piece in A minor at 112 BPM, in 4/4, without drums.", []),
        (PIANO, "It runs at 140 BPM.", ["tempo"]),
        (PIANO, "It runs at 56 BPM.", ["tempo"]),  # Half is another tempo.
        (PIANO, "It runs at 116 beats per minute.", []),  # 3.2 %
        (PIANO, "It runs at 118 beats per minute.", ["tempo"]),  # 5 %
        (PIANO, "Between 100 and 120 BPM.", ["tempo"]),
        (PIANO, "Not at 140 BPM but at 112 BPM.", []),
        (PIANO, "In the key of C major.", ["key"]),  # The relative key.
        (PIANO, "Written in a major key.", ["mode"]),
        (PIANO, "Written in a minor key.", []),
        (PIANO, "A waltz.", ["metre"]),
        (PIANO, "In 2/4 time.", []),
        (PIANO, "A singer tells a story.", ["vocals"]),
        (PIANO, "No vocals are heard.", []),
        (PIANO, "There are no drums.", []),
        (PIANO, "The drums drive it.", ["drums"]),
        (PIANO, "There is no piano.", ["instruments"]),
        (PIANO, "A flute joins.", []),  # No field says that there is none.
        (SONG, "It is in G flat major, in 6/8.", []),
        (SONG, "An instrumental track.", ["vocals"]),
        (SONG, "An instrumental break leads back.", []),
        (SONG, "It is not instrumental: a woman sings.", []),
        (SONG, "There are no vocals.", ["vocals"]),
        (SONG, "No choir, but a male singer.", []),
        (SONG, "It has no drums and no acoustic guitar.", ["instruments", "drums"]),
        (SONG, "A 4/4 beat at 80 BPM in F# minor.", ["key", "metre"]),
        (SONG, "", ["empty"]),
        (SONG, " \n", ["empty"]),
    ],
)
def test_what_is_said_is_compared_with_the_fields(facts, caption, found):
    assert reasons(caption, facts) == found


def test_a_fault_says_what_contradicts_what():
    (fault,) = faults("Calm. It runs at 140 BPM.", PIANO, is_cut=False)
    assert fault == ("tempo", "It runs at 140 BPM.", "140 BPM", "112.4 BPM")


def test_what_is_not_known_is_contradicted_by_nothing():
    unknown = Facts(None, None, None, None, (), ())
    text = "A waltz at 140 BPM in C major with drums. A singer. No vocals."
    assert reasons(text, unknown) == []


def test_a_text_that_was_cut_has_no_end():
    assert reasons("Calm music. It has a", PIANO, is_cut=True) == ["cut"]
    assert reasons("Calm music. It has a", PIANO) == []


def test_faulty_sentences_are_dropped_and_the_others_stay():
    text = "A calm piece at approx. 112 BPM. The drums are loud!  It ends softly."
    assert sentences(text) == [
        "A calm piece at approx. 112 BPM.",
        "The drums are loud!",
        "It ends softly.",
    ]
    found = faults(text, PIANO, is_cut=False)
    left = "A calm piece at approx. 112 BPM. It ends softly."
    assert without(text, found) == left
    assert without("The drums are loud!", found) == ""


@pytest.mark.parametrize(
    ("vocals", "sung"),
    [
        (None, None),
        ("instrumental", False),
        ("No vocals", False),
        ("no", False),
        ("female voice", True),
        ("vocals", True),
        ("yes", True),
    ],
)
def test_who_sings(vocals, sung):
    assert is_sung(vocals) is sung


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("in 4/4, then 7/8", ["4/4", "7/8"]),
        ("a six-eight groove, not a waltz", ["6/8"]),
        ("in common time", ["4/4"]),
        ("3/4 of the song, on 12/31/1999", []),
        ("recorded at 24/96", []),
    ],
)
def test_metres_of_a_text(text, found):
    assert metres(text) == found


def test_bars_are_of_threes_or_of_fours():
    named = ("3/4", "6/8", "9/8", "2/4", "4/4", "12/8", "5/4")
    assert [beats(name) for name in named] == [3, 3, 3, 4, 4, 4, 5]


def test_modes_of_a_text():
    assert modes("It is in a minor key, not in a major mode.") == ["minor"]
    assert modes("The mode is major.") == ["major"]
    assert modes("A minor flaw of a major label.") == []

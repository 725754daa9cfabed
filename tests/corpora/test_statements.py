"""The ways in which people, tags and models state the same fact, and what they state.

The forms are those of public outputs and annotations: answers of audio-language models
in public benchmarks, Beatport's and GiantSteps' keys, mir_eval's and Essentia's
notation, DJs' wheels, tags of MTG-Jamendo, GTZAN's labels.
"""

import re
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musilingo_jax.corpora.statements import keys, tempos, values
from musilingo_jax.corpora.statements.negation import Denials, plain

KEYS = (
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
    ("Gmajor", "G major"),
    ("a minority", None),
    ("", None),
    ("F♯m", "Gb minor"),
    ("Am", "A minor"),
    ("A min", "A minor"),
    ("Db:min", "Db minor"),
    ("It's in Em.", "E minor"),
    ("The song is in A min.", "A minor"),
    ("G Major", "G major"),
    ("C#:maj", "Db major"),
    ("F Maj", "F major"),
    ("C#Min", "Db minor"),
    ("Bbm", "Bb minor"),
    ("B♭m", "Bb minor"),
    ("f#m", "Gb minor"),
    ("am", "A minor"),
    ("G", "G major"),
    ("The key is G.", "G major"),
    ("in the key of D♭", "Db major"),
    ("H-Dur", "B major"),
    ("h-Moll", "B minor"),
    ("B-Dur", "Bb major"),
    ("fis-Moll", "Gb minor"),
    ("Es-Dur", "Eb major"),
    ("as-Moll", "Ab minor"),
    ("cis moll", "Db minor"),
    ("la mineur", "A minor"),
    ("Si bémol majeur", "Bb major"),
    ("Fa# menor", "Gb minor"),
    ("Do mayor", "C major"),
    ("la menor duda", None),
    ("8A", "A minor"),
    ("8B", "C major"),
    ("Camelot 11A", "Gb minor"),
    ("1d", "C major"),
    ("1m", "A minor"),
    ("12A", "Db minor"),
    ("Key: A, scale: minor", "A minor"),
    ('{"key": "F#", "scale": "minor"}', "Gb minor"),
    ("the minor key of A", "A minor"),
    ("C#/Db minor", "Db minor"),
    ("F♯/G♭ major", "Gb major"),
    ("not G major but E minor", "E minor"),
    ("Am, F, C, G", None),
    ("The chords are Am and F", None),
    ("The first chord is Am.", None),
    ("The chords are C, G, Am and F. The key is C major.", "C major"),
    ("a B flat major chord with", None),
    ("Ｆ＃ minor", "Gb minor"),
    ("E MINOR", "E minor"),
    ("EB MAJOR", "Eb major"),
    ("E natural minor", "E minor"),
    ("A harmonic minor scale", "A minor"),
    ("D dorian", None),
    (
        "The key of the audio is not specified, so we cannot determine the exact key.",
        None,
    ),
    ("**A minor**", "A minor"),
    ("The musical key is Bb Major.", "Bb major"),
    ("It starts on a G major run. The key is D major.", "D major"),
    ("F double sharp minor", "G minor"),
    ("in A slow tempo", None),
    ("I hear a bass in D and drums in time.", None),
    ("Answer: Gm", "G minor"),
    ("key=F#m", "Gb minor"),
    ("Ebm key", "Eb minor"),
    ("It sounds like F#m", "Gb minor"),
    ("F♯︎ minor", "Gb minor"),
    ("a-moll", "A minor"),
    ("A-flat-minor", "Ab minor"),
    ("Fsharp minor", "Gb minor"),
    ("Eflat major", "Eb major"),
    ("C♮ minor", None),
    ("The key is probably Dm.", "D minor"),
    ("I'm sure", None),
    ("I am in", None),
    ("a maj", "A major"),
    ("A. C major.", "C major"),
    ("A. C major, B. C minor", "C major"),
    ("A.", "A major"),
    ("This audio clip sounds like it is played in the key of C.", "C major"),
    ("Musical genre: World music; Key: C", "C major"),
    ("The key of this track is most likely F.", "F major"),
    ("It is in C Major. It could be in another key, such as G Major.", "C major"),
)
TEMPOS = (
    ("It is in 4/4 time at 120 BPM.", 120),
    ("97.5bpm", 97.5),
    ("90 beats per minute", 90),
    (" 120. ", 120),
    ("120 BPM, yes, 120 bpm", 120),
    ("It has 2 sections, both slow.", None),
    ("A typical 80s ballad, slow.", None),
    ("90-120 BPM", (90, 120)),
    ("between 90 and 120 BPM", (90, 120)),
    ("BPM", None),
    ("", None),
    ("In 4/4, at 120", 120),
    ("about 124.8", 124.8),
    ("fast", None),
    ("around one hundred and twenty BPM", 120),
    ("one-twenty bpm", 120),
    ("BPM: 120", 120),
    ("The BPM is 120.", 120),
    ("a tempo of around 120", 120),
    ("♩ = 120", 120),
    ("♩=120", 120),
    ("quarter note = 96", 96),
    ("120 b.p.m.", 120),
    ("120 beats/min", 120),
    ("2 beats per second", 120),
    ("not 60 but 120 beats a minute", 120),
    ("The track from the 1990s is at 96 bpm", 96),
    ("16 bars at 120", 120),
    ("a tempo of 4/4", None),
    ("120,5 BPM", 120.5),
    ("１２０ BPM", 120),
    ("approximately 118–122 BPM", (118, 122)),
    ("ninety five beats per minute", 95),
    ("two hundred bpm", 200),
    ("Tempo: 128.00 BPM", 128),
    ('{"bpm": 128}', 128),
    ("The tempo is 120 bpm, and the time signature is 4/4", 120),
    ("The estimated tempo (BPM) is 140.", 140),
    ("BPM of 75", 75),
    ("a hundred BPM", 100),
    ("120 (BPM)", 120),
    ("It's 1985", None),
    ("the tempo changes 3 times", None),
    ("the 3rd at 140", 140),
    ("120-ish", None),
    ("BPM=~120", 120),
    ("about 120 bpm or so", 120),
    ("10 drums", None),
    ("tempo 120", 120),
    ("at one hundred thirty-two beats per minute", 132),
    ("1 200 BPM", 200),
)
GENRES = ("Rock", "Hip-Hop", "rock and roll", "R&B", "pop", "lo-fi", "jazz", "forró")
STATED = (
    ("a hip hop beat", {"hiphop"}),
    ("It is hiphop.", {"hiphop"}),
    ("Genre: Hip-hop", {"hiphop"}),
    ("hip_hop", {"hiphop"}),
    ("HIP HOP", {"hiphop"}),
    ("hip\u2010hop", {"hiphop"}),
    ("the kids hip. Hop on", set()),
    ("[1.1] pop", {"pop"}),
    ("“Rock”", {"rock"}),
    ("rocking", set()),
    ("r&b", {"randb"}),
    ("RnB", {"randb"}),
    ("R 'n' B", {"randb"}),
    ("rhythm and blues", {"randb"}),
    ("rock 'n' roll", {"rockandroll"}),
    ("rock-n-roll", {"rockandroll"}),
    ("lofi", {"lofi"}),
    ("Forro\u0301", {"forro"}),
    ("ｒｏｃｋ", {"rock"}),
    ("jazz and pop", {"jazz", "pop"}),
    ("It is not rock but jazz.", {"jazz"}),
    ("Not rock or pop, but jazz", {"jazz"}),
    ("It isn't rock, it is jazz.", {"jazz"}),
    ("jazz rather than rock", {"jazz"}),
    ("no pop, just jazz", {"jazz"}),
    ("not only rock but pop", {"rock", "pop"}),
    ("no doubt: rock", {"rock"}),
    ("pop is absent", set()),
    ("This audio clip does not contain any of the given genres: pop", {"pop"}),
    ("", set()),
)


@pytest.mark.parametrize(("text", "key"), KEYS)
def test_a_key_in_any_notation(text, key):
    assert keys.named_key(text) == key


@pytest.mark.parametrize(("text", "bpm"), TEMPOS)
def test_a_tempo_in_any_words(text, bpm):
    found = tempos.tempo(text)
    low, high = bpm if isinstance(bpm, tuple) else (bpm, bpm)
    assert found == (None if bpm is None else (low, high))


@pytest.mark.parametrize(("text", "stated"), STATED)
def test_a_value_in_any_spelling(text, stated):
    assert {found.key for found in values.stated(text, GENRES)} == stated


@pytest.mark.parametrize(
    ("text", "among", "stated"),
    [
        ("in tense silence", ("intense",), set()),
        ("K-Pop", ("kpop",), {"kpop"}),
        ("kpop", ("K Pop",), {"kpop"}),
        ("3/4 time", ("4/4", "3/4"), {"3/4"}),
        ("68 BPM", ("6/8",), set()),
        ("A minor", ("A minor",), {"aminor"}),
        ("a minor flaw", ("A minor",), set()),
        ("F# minor", ("F", "A"), set()),
        ("これはジャズです", ("ジャズ",), {"ジャズ"}),
        ("There are no drums.", ("drums", "no drums"), {"nodrums"}),
        ("c++ (1.5)", ("c++ (1.5)", "c"), {"c++(1.5)"}),
        ("A bass guitar", ("guitar", "bass guitar"), {"bassguitar"}),
    ],
)
def test_values_that_share_words_or_are_not_words(text, among, stated):
    assert {found.key for found in values.stated(text, among)} == stated


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("There are drums.", True),
        ("Yes.", True),
        ("A drum kit plays.", True),
        ("No.", False),
        ("without a drum", False),
        ("The drums are not present.", False),
        ("A piano plays.", None),
    ],
)
def test_whether_something_is_there(text, there):
    assert values.presence(text, "drums") is there


def test_denials_reach_to_the_end_of_their_clause():
    text = "no drums, bass or guitar; a piano, without strings and a flute"
    denied = {
        word[0] for word in re.finditer(r"\w+", text) if word.span() in Denials(text)
    }
    assert denied == {"drums", "bass", "or", "guitar", "strings", "and"} - {"and"}


@pytest.mark.parametrize(
    ("text", "there"),
    [
        # As people wrote in MusicCaps.
        ("Brass, strings, no voice and drums.", True),
        ("Brass, strings, no drums and no voice.", False),
        ("Brass and strings, with no voice and drums.", False),
        ("It is a piano alone: no voice and drums.", False),
        ("A tune first without and then with drums.", True),
        ("If it were not for the poor quality of the drums, one could dance.", True),
        ("It is not for drums.", False),
        ("It has non-lexical singing over drums.", True),
        ("It is a non-drum piece.", False),
        ("Low quality, lacking high frequencies and drums.", True),
    ],
)
def test_a_denial_that_is_an_entry_of_a_list_leaves_the_last_entry_alone(text, there):
    assert values.presence(f"Here: {text}", "drums") is there


def test_all_keys_in_their_order():
    text = "C major, then a minor bridge in G minor, not in F."
    assert list(keys.named_keys(text)) == ["C major", "G minor"]


@pytest.mark.parametrize(
    ("text", "bpm"),
    [
        ("It is in 4/4 time at 120 BPM.", 120),
        ("120 BPM, yes, 120 bpm", 120),
        ("90-120 BPM", None),
        ("90 BPM, later 120 BPM", None),
        ("It has 2 sections, both slow.", None),
        ("0", None),
    ],
)
def test_a_reference_must_state_exactly_one_tempo(text, bpm):
    assert tempos.single_tempo(text) == bpm


NOTATIONS = st.sampled_from(
    [
        "{note} {mode}",
        "The key is {note} {mode}.",
        "{note}:{short}",
        "{note} {short}.",
        "in the key of {note} {mode}",
        "{note}-{mode}",
        "Key: {note}, scale: {mode}",
        "not in D major but in {note} {mode}",
    ]
)
SPELLINGS = {"C#": "C♯", "Db": "D♭", "F#": "F sharp", "Bb": "B-flat", "Eb": "E flat"}


@given(
    semitone=st.integers(0, 11),
    mode=st.sampled_from(keys.MODES),
    notation=NOTATIONS,
    respelt=st.booleans(),
)
@settings(deadline=None, max_examples=200)
def test_a_key_survives_every_notation(semitone, mode, notation, respelt):
    note = keys.NOTES[semitone]
    name = f"{note} {mode}"
    spelt = SPELLINGS.get(note, note) if respelt else note
    text = notation.format(note=spelt, mode=mode, short=mode[:3])
    assert keys.named_key(text) == name
    assert keys.named_key(f"  {text}\n") == name
    if note != "A" and "flat" not in spelt:
        assert keys.named_key(text.upper()) == name


@given(
    bpm=st.integers(20, 399),
    form=st.sampled_from(
        [
            "{} BPM",
            "{}bpm",
            "about {} beats per minute",
            "In 4/4, at {} bpm.",
            "{}",
            "BPM: {}",
            "a tempo of {}",
            "The 1990s song has {} beats a minute",
        ]
    ),
)
@settings(deadline=None, max_examples=200)
def test_a_tempo_survives_every_form(bpm, form):
    assert tempos.tempo(form.format(bpm)) == (bpm, bpm)
    assert tempos.tempo(form.format(bpm).upper()) == (bpm, bpm)


@given(st.text(max_size=80), st.lists(st.text(max_size=12), max_size=4))
@settings(deadline=None, max_examples=300)
def test_no_text_breaks_the_readers_and_unicode_forms_are_one(text, among):
    for form in ("NFC", "NFD"):
        other = unicodedata.normalize(form, text)
        assert keys.named_key(other) == keys.named_key(text)
        assert tempos.tempo(other) == tempos.tempo(text)
        found = [each.key for each in values.stated(other, among)]
        assert found == [each.key for each in values.stated(text, among)]
    assert plain(plain(text)) == plain(text)


@given(st.sampled_from(GENRES), st.sampled_from(["{}", "It is {}.", "a {} beat"]))
@settings(deadline=None)
def test_values_in_any_case_and_with_any_separator(value, form):
    for text in (
        value,
        value.upper(),
        value.replace("-", " "),
        value.replace(" ", "-"),
    ):
        found = [each.key for each in values.stated(form.format(text), GENRES)]
        assert found == [values.key_of(value)]


def test_long_answers_are_read_in_time():
    start = time.process_time()
    for part in (
        "9",
        "9 ",
        "one ",
        "A ",
        "in A, ",
        "key ",
        "no, ",
        "chord Am ",
        "rock ",
    ):
        text = part * 5000
        keys.named_key(text)
        tempos.tempo(text)
        values.stated(text, GENRES)
    assert time.process_time() - start < 20


def test_what_is_denied_is_what_is_not_stated():
    among = ("rock", "jazz", "drums", "bass guitar", "guitar")
    text = "Not rock, but jazz with a guitar, without drums or bass guitar."
    stated = [each.key for each in values.stated(text, among)]
    denied = [each.key for each in values.denied(text, among)]
    assert (stated, denied) == (["jazz", "guitar"], ["rock", "drums", "bassguitar"])
    assert values.denied(text, ()) == []

"""Values of fields: from files, taggers, answers, and chosen among tags."""

import json
from pathlib import Path

import numpy as np
import pytest

from musilingo_jax.annotation import tags
from musilingo_jax.captioning import (
    fields,
    known,
    short_answers,
    teachers,
    vocabulary,
)
from musilingo_jax.corpora.records import Record
from musilingo_jax.models.taggers.musicnn import TAGS
from musilingo_jax.runtime.errors import UserError


def write(folder, text):
    path = folder / "tags.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_vocabulary_has_fields_and_tags(tmp_path):
    text = "# mine\nmood: calm, dark\n\nlo-fi\nGenre:rock,hip hop\nmood: happy\nnight\n"
    assert vocabulary.read(write(tmp_path, "\ufeff" + text)) == {
        "genre": ("rock", "hip hop"),
        "mood": ("calm", "dark", "happy"),
        "tags": ("lo-fi", "night"),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\n", "holds no tags; write one on each line"),
        ("bpm: 120, 130", r"tags.txt:1: 'bpm' is no field that has tags; those are"),
        ("a\ngenre: rock,, pop", "tags.txt:2: there is no tag before or after a comma"),
        ("genre:", "there is no tag before or after"),
        ("a\nHip-Hop\nb\nhiphop", "tags.txt:4: 'hiphop' is 'Hip-Hop' again, in the"),
        ("mood: calm\na, b", "the field mood has the single tag 'calm', which every"),
    ],
)
def test_a_vocabulary_that_cannot_be_meant_is_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        vocabulary.read(write(tmp_path, text))


def test_a_vocabulary_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"none.txt: cannot be read \(No such file"):
        vocabulary.read(tmp_path / "none.txt")
    (tmp_path / "tags.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(UserError, match="is not UTF-8 text"):
        vocabulary.read(tmp_path / "tags.txt")


def record(attribute, value, clip="a.ogg"):
    return Record(Path(clip), clip, "", "", "test", attribute, value)


def test_values_of_the_file_are_taken_and_the_others_told():
    found, unused = known.of_records(
        [
            record("tempo", "120 BPM"),
            record("key", "F# minor"),
            record("instruments", "piano, flute"),
            record("meter", "6/8"),
            record("style", "jazz"),
            record("genre", "rock"),
            record("tempo", "fast", "b.ogg"),
            record("lead", "piano", "b.ogg"),
            record(None, None, "c.ogg"),
        ],
        "songs.jsonl",
    )
    values = {
        clip: {name: field["value"] for name, field in each.items()}
        for clip, each in found.items()
    }
    assert values == {
        "a.ogg": {
            "bpm": 120.0,
            "key": "F# minor",
            "instruments": ["piano", "flute"],
            "timesignature": "6/8",
            "genre": "jazz",
        }
    }
    assert unused == [
        "genre = rock of a.ogg, beside jazz",
        "tempo = fast",
        "lead = piano",
    ]
    assert found["a.ogg"]["bpm"] == {
        "value": 120.0,
        "confidence": None,
        "source": "file",
        "name": "songs.jsonl",
        "version": "",
    }


def test_annotations_are_measured_fields(tmp_path):
    made = {"source": "beats", "version": "1", "confidence": 0.9}
    rows = [
        {"id": "a", "tempo": {"value": 99.5, **made}, "metre": {"value": 3, **made}},
        {"id": "b", "key": {"value": None, **made}, "chords": {}},
    ]
    path = tmp_path / "annotations.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = known.of_annotations(path)
    assert found["a"].keys() == {"bpm", "timesignature"}
    assert found["a"]["timesignature"]["value"] == "3/4"
    assert found["a"]["bpm"] == {
        **made,
        "value": 99.5,
        "source": "estimator",
        "name": "beats",
    }
    assert found["b"]["key"]["value"] is None
    path.write_text('{"id": "a", "tempo": 120}\n')
    with pytest.raises(UserError, match="line 1: is no row of `musilingo annotate`"):
        known.of_annotations(path)


def annotation(**likely):
    found = [
        {"tag": tag.replace("_", " "), "confidence": value, "by": "MTT_musicnn"}
        for tag, value in sorted(likely.items(), key=lambda pair: -pair[1])
    ]
    return {"value": found, "source": tags.__name__, "version": tags.VERSION}


def test_taggers_fill_the_fields():
    found = teachers.taught(
        annotation(rock=0.5, metal=0.2, guitar=0.9, drums=0.31, piano=0.1, slow=0.4)
        | {"version": "1"}
    )
    assert {name: each["value"] for name, each in found.items()} == {
        "genre": "rock",
        "instruments": ["guitar", "drums"],
        "mood": ["slow"],
        "vocals": None,
        "tags": ["guitar", "rock", "slow", "drums", "metal", "piano"],
    }
    assert found["genre"]["confidence"] == 0.5
    assert found["instruments"]["confidence"] == [0.9, 0.31]
    assert {each["source"] for each in found.values()} == {"teacher"}
    assert found["mood"]["name"] == "musilingo_jax.annotation.tags"


def test_the_likelier_of_voices_and_no_voices_counts():
    sung = teachers.taught(annotation(no_vocals=0.2, female_vocalist=0.3, vocal=0.25))
    assert sung["vocals"]["value"] == "female voice"
    silent = teachers.taught(annotation(no_vocals=0.4, female_vocalist=0.3))
    assert silent["vocals"]["value"] == "instrumental"


def test_all_tags_of_fields_are_tags_of_the_taggers():
    known_tags = {tag.lower() for each in TAGS.values() for tag in each}
    named = [*teachers._TAGS.values(), *teachers._VOCALS.values()]
    assert {tag for each in named for tag in each} <= known_tags


def test_the_best_tag_is_chosen_and_of_a_list_those_near_it():
    options, shares = ("a", "b", "c", "d"), np.array([0.2, 0.39, 0.21, 0.2])
    assert short_answers.chosen("genre", options, shares) == ("b", 0.39)
    assert short_answers.chosen("tags", options, shares) == (
        ("b", "c", "a", "d"),
        (0.39, 0.21, 0.2, 0.2),
    )
    assert short_answers.chosen("mood", ("a", "b"), np.array([0.9, 0.1])) == (
        ("a",),
        (0.9,),
    )
    many = tuple("abcdefgh")
    value, _ = short_answers.chosen("tags", many, np.full(8, 0.125))
    assert value == tuple("abcde")


def test_tags_are_put_into_a_sentence():
    assert short_answers.options_of("genre", ("rock", "{}")) == (
        "The genre is rock.",
        "The genre is {}.",
    )
    assert short_answers.options_of("tags", ("lo-fi",)) == ("lo-fi",)


def read(**answers):
    asked = {short_answers.QUESTIONS[name]: text for name, text in answers.items()}
    asked[short_answers.DRUMS] = answers.pop("drums", "It is hard to say.")
    return short_answers.read([*answers], asked, "tiny", "1")


def test_answers_become_words_of_a_list():
    found = read(
        genre="This is Hip-Hop, or rap.",
        instruments="A piano, two violins, but no flute.",
        mood="It feels quite calm.",
        vocals="No, it is instrumental.",
        tags="A calm jazz piece.",
    )
    assert {name: each["value"] for name, each in found.items()} == {
        "genre": "hip hop",
        "instruments": ["piano", "violin"],
        "mood": ["calm"],
        "vocals": "instrumental",
        "tags": ["calm", "jazz"],
    }
    assert found["instruments"]["absent"] == ["flute"]
    assert found["genre"]["answer"] == "This is Hip-Hop, or rap."
    assert found["genre"]["source"] == fields.MODEL


def test_what_an_answer_does_not_say_is_unknown():
    found = read(genre="Something new.", instruments="Lovely.", vocals="Who knows.")
    values = {name: each["value"] for name, each in found.items()}
    assert values == {"genre": None, "instruments": [], "vocals": None}
    assert "absent" not in found["instruments"]


@pytest.mark.parametrize(
    ("answer", "value", "absent"),
    [
        ("Yes, it has drums.", ["piano", "drums"], []),
        ("The piece has no drums.", ["piano"], ["drums"]),
        ("Hard to say.", ["drums", "piano"], []),
    ],
)
def test_drums_are_asked_for(answer, value, absent):
    asked = {
        short_answers.QUESTIONS["instruments"]: "Drums and a piano.",
        short_answers.DRUMS: answer,
    }
    assert short_answers.questions_of(["instruments"]) == list(asked)
    field = short_answers.read(["instruments"], asked, "tiny", "1")["instruments"]
    assert (field["value"], field.get("absent", [])) == (value, absent)
    assert short_answers.questions_of(["genre"]) == ["What is the genre of this piece?"]

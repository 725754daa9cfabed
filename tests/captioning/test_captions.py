"""Rows of songs: their fields, and what becomes of captions with faults."""

import dataclasses
import functools
import pickle

import numpy as np
import pytest
import soundfile
from helpers import fake_asker
from helpers.fake_asker import FakeAsker

from musilingo_jax.annotation import tags
from musilingo_jax.annotation.windows import Stretch
from musilingo_jax.answering.model import CAPTION
from musilingo_jax.audio.cache.clips import Clip
from musilingo_jax.captioning import captions, fields, short_answers, truth
from musilingo_jax.captioning.asker import Asker, Sources
from musilingo_jax.captioning.captions import Item, Settings
from musilingo_jax.captioning.contradictions import Facts
from musilingo_jax.captioning.truth import Drawing
from musilingo_jax.corpora.records import clip_id
from musilingo_jax.models.taggers import musicnn
from musilingo_jax.runtime.errors import UserError

SAID = {
    "What is the genre of this piece?": "It is techno.",
    "Which instruments do you hear?": "A piano.",
    "What is the mood of this music?": "Calm.",
    "Are there vocals?": "No.",
    "Which words describe this music?": "Calm techno.",
    "Do you hear drums?": "No, I hear no drums.",
}
VALUES = {"bpm": 120.0, "key": "A minor", "timesignature": "4/4"}


def known(**values):
    return {
        name: fields.field(value, "file", "songs.jsonl", "")
        for name, value in values.items()
    }


KNOWN = known(**VALUES)
GOOD = "A piano in A minor. It runs at 120 BPM."
CAPTIONS = [
    [GOOD],
    ["It runs at 90 BPM.", "It runs at 60 BPM.", "It runs at 121 BPM."],
    ["The drums are loud. Soft. A singer.", "Drums. In C major. In 3/4. A calm one."],
    ["A singer tells of love.", ""],
    ["A calm piece. It has…", "A waltz. A singer.", "In C major."],
]


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    folder = tmp_path_factory.mktemp("songs")
    made = []
    for number in range(len(CAPTIONS)):
        path = folder / f"{number}.wav"
        soundfile.write(path, fake_asker.tone(number), fake_asker.RATE)
        stretch = Stretch(Clip(clip_id(path, folder), path), path.name)
        made.append(Item(stretch, KNOWN))
    return made


def settings(vocabulary=None, tries=2):
    return Settings(
        Sources("tiny", None, None),
        vocabulary or {},
        None,
        Drawing(tries, 0.7, 0),
        None,
    )


def made(asker, items, **changes):
    return list(captions.rows(asker, None, settings(**changes), "1f2e", items))


@pytest.fixture(scope="module")
def rows(items):
    return [result.row for result in made(FakeAsker(CAPTIONS, SAID), items)]


def test_a_row_has_all_fields_each_with_its_source(rows):
    row = rows[0]
    assert tuple(row) == ("audio", "seconds", *fields.FIELDS)
    assert (row["audio"], row["seconds"]) == ("0.wav", 1.0)
    values = {name: row[name]["value"] for name in fields.FIELDS}
    assert values == {
        **VALUES,
        "caption": GOOD,
        "genre": "techno",
        "instruments": ["piano"],
        "mood": ["calm"],
        "vocals": "instrumental",
        "tags": ["calm", "techno"],
    }
    assert row["instruments"]["absent"] == ["drums"]
    for name in fields.FIELDS:
        by_file = name in KNOWN
        assert row[name]["source"] == ("file" if by_file else "model")
        assert row[name]["name"] == ("songs.jsonl" if by_file else "tiny")
        assert row[name]["version"] == ("" if by_file else "1f2e")


def test_captions_with_faults_are_drawn_again_shortened_or_dropped(rows):
    checks = [row["caption"]["check"] for row in rows]
    outcomes = [(check["outcome"], check["tries"]) for check in checks]
    assert outcomes == [
        ("kept", 0),
        ("regenerated", 2),
        ("shortened", 2),
        ("dropped", 2),
        ("shortened", 2),
    ]
    values = [row["caption"]["value"] for row in rows]
    # Of the third, the model's own caption has fewer faulty sentences.
    assert values == [GOOD, "It runs at 121 BPM.", "Soft.", None, "A calm piece."]
    assert [check["own"] for check in checks] == [
        texts[0].removesuffix("…") for texts in CAPTIONS
    ]
    faults = [[fault["reason"] for fault in check["faults"]] for check in checks]
    assert faults == [[], ["tempo"], ["drums", "vocals"], ["vocals"], ["cut"]]


def test_only_captions_with_faults_are_drawn_and_each_try_has_a_seed(items):
    asker = FakeAsker(CAPTIONS, SAID)
    made(asker, items)
    drawn = [(number, seed) for number, _, seed in asker.asked if seed is not None]
    assert drawn == [(n, 0) for n in (1, 2, 3, 4)] + [(n, 1) for n in (1, 2, 3, 4)]
    assert {asked for _, asked, seed in asker.asked if seed is not None} == {CAPTION}
    asker = FakeAsker(CAPTIONS, SAID)
    results = made(asker, items, tries=0)
    assert all(seed is None for _, _, seed in asker.asked)
    assert results[1].row["caption"]["check"]["outcome"] == "dropped"


def test_a_row_does_not_depend_on_its_neighbours(items, rows):
    for number, item in enumerate(items):
        (alone,) = made(FakeAsker(CAPTIONS, SAID), [item])
        assert alone.row == rows[number]


def test_a_song_that_cannot_be_read_has_a_reason_and_the_others_rows(items, rows):
    path = items[0].stretch.clip.path.with_name("bad.wav")
    path.write_bytes(b"no sound")
    bad = Item(Stretch(Clip("bad.wav", path), "bad.wav"), {})
    results = made(FakeAsker(CAPTIONS, SAID), [items[0], bad, items[1]])
    assert [results[0].row, results[2].row] == rows[:2]
    assert isinstance(results[1].row, UserError)
    assert str(path) in str(results[1].row) and results[1].seconds == 0
    assert results[0].seconds == 1.0


def test_words_are_chosen_among_the_allowed_ones_and_the_rest_is_asked(items):
    vocabulary = {"genre": ("rock", "A minor"), "tags": ("BPM", "x", "piano")}
    asker = FakeAsker(CAPTIONS, SAID)
    row = made(asker, items[:1], vocabulary=vocabulary)[0].row
    assert (row["genre"]["value"], row["genre"]["source"]) == ("A minor", "model")
    share = 1 / (1 + np.exp(-1))
    assert row["genre"]["confidence"] == pytest.approx(share, abs=1e-3)
    assert row["tags"]["value"] == ["BPM", "piano"]
    assert row["mood"]["value"] == ["calm"] and "answer" not in row["tags"]
    asked = [question for _, question, _ in asker.asked]
    assert sorted(asked) == sorted(
        [CAPTION, *short_answers.QUESTIONS.values(), short_answers.DRUMS]
    )


def test_what_the_file_knows_is_not_asked(items):
    given = known(**VALUES, genre="jazz", instruments=("flute",))
    item = items[0]._replace(known=given)
    assert item.id != items[0].id and item.id.startswith(item.stretch.clip.id)
    assert items[0]._replace(known={}).id == items[0].stretch.clip.id
    asker = FakeAsker(CAPTIONS, SAID)
    vocabulary = {"genre": ("rock", "pop")}
    (result,) = made(asker, [item], vocabulary=vocabulary)
    assert result.row["genre"]["value"] == "jazz"
    assert result.row["instruments"]["value"] == ["flute"]
    asked = {question for _, question, _ in asker.asked}
    assert not asked & {
        short_answers.QUESTIONS["genre"],
        short_answers.QUESTIONS["instruments"],
        short_answers.DRUMS,
    }


def test_taggers_give_what_no_vocabulary_has(items, monkeypatch):
    def annotate(taggers, waveform):
        assert (taggers, len(waveform)) == ("taggers", musicnn.RATE)
        found = [{"tag": "rock", "confidence": 0.5}, {"tag": "sad", "confidence": 0.4}]
        return {"value": found, "source": "tagger", "version": "1"}

    monkeypatch.setattr(tags, "annotate", annotate)
    asker = FakeAsker(CAPTIONS, SAID)
    taught = dataclasses.replace(settings({"mood": ("A", "zz")}), teachers="wheel")
    item = items[0]._replace(known=known(**VALUES, vocals="vocals"))
    (result,) = captions.rows(asker, "taggers", taught, "1f2e", [item])
    found = {name: result.row[name] for name in fields.TAGGED}
    assert {name: each["source"] for name, each in found.items()} == {
        "genre": "teacher",
        "instruments": "teacher",
        "mood": "model",
        "vocals": "file",
        "tags": "teacher",
    }
    assert found["genre"]["value"] == "rock" and found["mood"]["value"] == ["A"]
    assert [question for _, question, _ in asker.asked if question != CAPTION] == [
        short_answers.QUESTIONS["mood"]
    ]


def test_what_makes_rows_can_be_sent_to_other_processes(items):
    load = functools.partial(captions.load, settings({"genre": ("a", "b")}))
    sent = pickle.loads(pickle.dumps((load, items)))
    assert sent[0].args == load.args and sent[1] == items


def test_silence_is_told(tmp_path):
    path = tmp_path / "silent.wav"
    soundfile.write(path, np.zeros(3 * fake_asker.RATE), fake_asker.RATE)
    item = Item(Stretch(Clip("silent.wav", path), "silent.wav"), {})
    captioned = {-1: ["Nothing."]}
    (result,) = made(FakeAsker(captioned, SAID), [item])
    assert result.row["notices"] == ["is silent: expect no sensible caption"]
    assert result.row["bpm"]["value"] is None and result.row["key"]["value"] is None
    assert result.row["bpm"]["source"] == "estimator"


def test_what_is_left_after_a_sentence_is_dropped_is_looked_at_again():
    facts = Facts(None, None, None, False, (), ())
    asker = FakeAsker([["Words. A singer."], ["A singer."]])
    features = [np.full((1, 2), number, np.float32) for number in range(2)]
    found = truth.check(
        asker,
        features,
        [facts] * 2,
        asker.answers([(each, CAPTION) for each in features]),
        Drawing(1, 0.7, 0),
    )
    assert [each.text for each in found] == ["Words.", None]
    assert [each.outcome for each in found] == ["shortened", "dropped"]


def test_the_fake_is_an_asker():
    assert isinstance(FakeAsker([]), Asker)


def test_the_plan_of_a_field_is_told():
    chosen = settings({"genre": ("rock", "pop")})
    assert chosen.plan_of("genre") == "chosen among 2 tags"
    assert chosen.plan_of("bpm") == "measured"
    assert chosen.plan_of("mood") == "the model's answer"
    assert chosen.answered == ("instruments", "mood", "vocals", "tags")
    taught = dataclasses.replace(chosen, teachers="wheel")
    assert taught.plan_of("mood") == "musicnn 0.1.0" and taught.answered == ()
    assert taught.plan_of("caption") == "the model's answer"

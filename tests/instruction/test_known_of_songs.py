"""What files say of clips: each kind of file, what is not used, and what is refused."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import soundfile

from musilingo_jax.instruction import sources
from musilingo_jax.runtime.errors import UserError

RATE = 4000


def sound(path, seconds=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = np.sin(np.arange(int(seconds * RATE)) / 9)
    soundfile.write(path, wave.astype(np.float32), RATE)
    return path


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_songs_file_gives_captions_and_values(tmp_path):
    for name in ("a.wav", "deep/b.wav"):
        sound(tmp_path / name)
    path = lines(
        tmp_path / "songs.jsonl",
        {"audio": "a.wav", "answer": "A slow song."},
        {"audio": "a.wav", "answer": "A song."},
        {"audio": "a.wav", "question": "Key?", "answer": "A minor.", "attribute": "key"}
        | {"value": "A minor"},
        {
            "audio": "a.wav",
            "question": "Who?",
            "answer": "A piano.",
            "attribute": "lead",
        }
        | {"value": "piano"},
        {
            "audio": "a.wav",
            "question": "Who?",
            "answer": "A flute.",
            "attribute": "lead",
        }
        | {"value": "flute"},
        {"audio": "deep/b.wav", "question": "Why?", "answer": "Because.", "start": 0.5},
        {"audio": "deep/b.wav", "answer": "Another.", "split": "test", "start": 0.25},
    )
    known = sources.read(path, None)
    first, second = known.subjects
    assert first.captions == ("A slow song.", "A song.")
    assert first.facts == {"key": "A minor", "lead": "piano, flute"}
    assert (first.name, first.audio, first.split) == (
        "a.wav",
        tmp_path / "a.wav",
        "train",
    )
    assert (second.name, second.start, second.split) == ("deep/b.wav", 0.25, "test")
    assert known.unused.keys() == {
        "questions without attribute and value",
        "clips of which nothing is known",
    }
    with pytest.raises(UserError, match="names its own sound files; leave out --audio"):
        sources.read(path, str(tmp_path))
    with pytest.raises(UserError, match="names its own sound files; leave out --audio"):
        sources.read("musilingo-tiny-corpus", str(tmp_path))
    with pytest.raises(UserError, match="gone: there is no such file"):
        sources.read(str(tmp_path / "gone"), str(tmp_path))


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_captions_and_tags_beside_sound(tmp_path, kind):
    sound(tmp_path / "audio/a.wav", 3)
    rows = [
        {
            "audio": "a.wav",
            "caption": "A song. ",
            "tags": "Slow, piano",
            "split": "test",
        },
        {
            "audio": "a.wav",
            "caption": "Or so.",
            "tags": "['slow', 'calm']",
            "split": "",
        },
        {"audio": "a.wav", "caption": "A part.", "tags": "", "split": "", "start": "1"}
        | {"end": "2"},
        {"audio": "gone.wav", "caption": "Gone.", "tags": "", "split": ""},
        {"audio": "a.wav", "caption": " ", "tags": "", "split": ""},
    ]
    path = tmp_path / f"captions.{kind}"
    if kind == "jsonl":
        lines(path, *rows)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0], "start", "end"], restval="")
            writer.writeheader()
            writer.writerows(rows)
    whole, part = sources.read(str(path), str(tmp_path / "audio")).subjects
    assert whole.captions == ("A song.", "Or so.") and whole.split == "test"
    assert whole.tags == ("slow", "piano", "calm") and whole.start is None
    assert (part.captions, part.start, part.end) == (("A part.",), 1.0, 2.0)
    unused = sources.read(str(path), str(tmp_path / "audio")).unused
    assert {why: count for why, (count, _) in unused.items()} == {
        "missing audio": 1,
        "rows without caption and tags": 1,
    }


def test_musiccaps_with_its_sound_and_without(tmp_path):
    path = tmp_path / "musiccaps-public.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["ytid", "start_s", "end_s", "aspect_list", "caption", "is_audioset_eval"]
        )
        writer.writerow(["-a", 30, 40, "['calm piano', 'slow']", "A song.", "False"])
        writer.writerow(["b", 0, 10, "[]", "Another.", "True"])
    one, two = sources.read(str(path), None).subjects
    assert (one.name, one.tags, one.audio) == ("-a", ("calm piano", "slow"), None)
    assert (one.start, one.end, one.split) == (30, 40, "train")
    assert two.split == "test" and two.captions == ("Another.",)
    sound(tmp_path / "audio/-a.wav", 10)
    known = sources.read(str(path), str(tmp_path / "audio"))
    (one,) = known.subjects
    assert one.audio == tmp_path / "audio/-a.wav" and one.end is None
    assert known.unused == {
        "missing audio": (1, f"no b in any format in {tmp_path / 'audio'}")
    }


def annotation(**fields):
    row = {"id": "a.wav:1", "audio": "a.wav", "seconds": 6.0}
    return row | {
        name: {"value": value, "source": "here", "version": "1"}
        for name, value in fields.items()
    }


def test_annotations(tmp_path):
    row = annotation(
        tempo=112.4,
        beats=[0.1, 0.6],
        metre=3,
        key="F# minor",
        chords=[
            {"start": 0, "end": 1, "chord": "no chord"},
            {"start": 1, "end": 2, "chord": "A minor"},
        ],
        loudness={"lufs": -14.0, "range_lu": 3.0, "peak_db": -1.0},
        sections=[{"start": 0, "end": 3, "label": "A"}],
        tags=[
            {"tag": "rock", "confidence": 0.7, "by": "x"},
            {"tag": "pop", "confidence": 0.2, "by": "x"},
        ],
    )
    nothing = annotation(key=None, tempo=None) | {"id": "b.wav:1", "audio": "b.wav"}
    path = lines(tmp_path / "annotations.jsonl", row, nothing)
    known = sources.read(path, None)
    (one,) = known.subjects
    assert one.facts == {
        "tempo": "112.4",
        "key": "F# minor",
        "mode": "minor",
        "metre": "3",
        "loudness": "-14 LUFS",
    }
    assert (one.chords, one.sections, one.tags) == (("A minor",), ("A",), ("rock",))
    assert one.audio is None and known.unused["rows without a value"][0] == 1
    sound(tmp_path / "sound/a.wav")
    (one,) = sources.read(path, str(tmp_path / "sound")).subjects
    assert one.audio == tmp_path / "sound/a.wav"


def test_a_row_of_annotations_that_is_damaged_is_told(tmp_path):
    path = lines(tmp_path / "a.jsonl", annotation(key="A minor"), annotation(key=7))
    with pytest.raises(
        UserError, match=r"a\.jsonl:2: is not a row that `musilingo ann"
    ):
        sources.read(path, None)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"audio": "a.wav", "tags": 7}, "its tags must be texts, not 7"),
        ({"audio": "a.wav", "tags": "[x"}, "its tags are not a list"),
        ({"audio": "a.wav", "caption": 7}, "'caption' must be text"),
        ({"audio": "a.wav", "caption": "x", "end": -1}, "'end' must be 0 or more"),
        ({"audio": "a.wav", "caption": ""}, "says nothing of any clip; rows without"),
        ({"audio": "b.wav", "caption": "x"}, "missing audio, such as no b.wav in any"),
    ],
)
def test_a_row_that_cannot_be_used_is_told(tmp_path, row, message):
    sound(tmp_path / "a.wav")
    path = lines(tmp_path / "captions.jsonl", row)
    with pytest.raises(UserError, match=message):
        sources.read(path, None)


def test_another_caption_is_another_item(tmp_path):
    sound(tmp_path / "a.wav")
    digests = set()
    for caption in ("One.", "Two."):
        path = lines(tmp_path / "c.jsonl", {"audio": "a.wav", "caption": caption})
        (subject,) = sources.read(path, None).subjects
        digests.add(subject.digest)
    assert len(digests) == 2
    moved = dataclasses.replace(subject, audio=tmp_path / "elsewhere/a.wav")
    assert moved.digest == subject.digest

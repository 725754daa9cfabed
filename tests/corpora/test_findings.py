"""What would teach or test something else than was meant is told with its place."""

import json

import pytest

from musilingo_jax.corpora import findings, songs
from musilingo_jax.corpora.own_songs import OwnSongs
from musilingo_jax.runtime.errors import UserError


def write(folder, *rows):
    for row in rows:
        sound = folder / row["audio"]
        sound.parent.mkdir(exist_ok=True)
        if not sound.exists():
            sound.write_text(row.get("sound", row["audio"]))
        row.pop("sound", None)
    path = folder / "songs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def song(audio, answer="A song.", **more):
    return {"audio": audio, "answer": answer} | more


@pytest.mark.parametrize(
    ("rows", "kind", "lines"),
    [
        ([song("a.wav"), song("a.wav", split="test")], "songs in several", (1, 2)),
        (
            [song("a.wav", sound="x"), song("b.mp3", split="test", sound="x")],
            "songs in several splits",
            (1, 2),
        ),
        (
            [song("a.wav", start=0, end=5), song("a.wav", start=5, split="test")],
            "songs in several splits",
            (1, 2),
        ),
        (
            [song("Café.wav"), song("cafe\u0301.FLAC", split="test")],
            "songs named like one in another split",
            (1, 2),
        ),
        (
            [song("a.wav", split="Test"), song("b.wav", split="test")],
            "names of splits",
            (1, 2),
        ),
        (
            [
                song(
                    "a.wav",
                    "It is fast.",
                    question="Speed?",
                    attribute="t",
                    value="fast",
                ),
                song(
                    "a.wav",
                    "It is slow.",
                    question="Speed?",
                    attribute="t",
                    value="slow",
                ),
            ],
            "rows with another value",
            (1, 2),
        ),
        (
            [
                song("a.wav", "Slow.", attribute="t", value="slow"),
                song("b.wav", "It is slow.", attribute="t", value="fast"),
            ],
            "answers that state another value",
            (2,),
        ),
        (
            [song("a.wav", "In A minor.", attribute="key", value="F#m")],
            "answers that state another value",
            (1,),
        ),
        (
            [song("a.wav", "It has 90 BPM.", attribute="tempo", value="120")],
            "answers that state another value",
            (1,),
        ),
        (
            [song("a.wav", " what is it? ", question="What is it?")],
            "answers that repeat their question",
            (1,),
        ),
    ],
)
def test_mistakes_are_told_with_their_lines(tmp_path, capsys, rows, kind, lines):
    path = write(tmp_path, *rows)
    assert len(songs.load(path)) == len(rows)
    told = capsys.readouterr().err
    assert told.startswith(f"{path}: {kind}") and told.count("\n") == 1
    for line in lines:
        assert f"{path}:{line}" in told
    songs.load(path)
    assert capsys.readouterr().err == ""  # Once is enough.


@pytest.mark.parametrize(
    "rows",
    [
        [song("a.wav"), song("b.wav", split="test")],
        [song("a.wav", "One."), song("a.wav", "Another.")],
        [song("a.wav", "Db minor.", attribute="key", value="C#:min")],
        [song("a.wav", "It is 119 BPM.", attribute="tempo", value="120")],
        [song("a.wav", "Yes.", attribute="drums", value="drums")],
        [song("a.wav", "not wild", attribute="mood", value="calm")],
        [song("train/a.wav"), song("test/a.wav", split="test")],
    ],
)
def test_what_is_right_is_not_told(tmp_path, capsys, rows):
    songs.load(write(tmp_path, *rows))
    assert capsys.readouterr().err == ""


def test_the_survey_counts_and_lists_them(tmp_path):
    rows = [song("a.wav"), song("a.wav", split="test"), song("a.wav", split="test")]
    write(tmp_path, *rows)
    made = OwnSongs(source=tmp_path, audio=tmp_path, data_dir=tmp_path / "out/x")
    assert made.survey.summary()["findings"] == {
        "songs in several splits": 1,
        "rows that are in the same split twice": 1,
    }
    assert "found: songs in several splits: 1, such as" in made.survey.table()
    listed = made.write_report() / "findings.jsonl"
    first, second = map(json.loads, listed.open())
    assert first["where"].endswith("songs.jsonl:2") and second["other"].endswith(":2")
    assert {first["kind"], second["kind"]} <= findings.KINDS.keys()


def test_several_answers_are_a_remark_and_all_are_records(tmp_path):
    path = write(tmp_path, song("a.wav", ["Calm.", "Slow."], question="How is it?"))
    assert [record.answer for record in songs.load(path)] == ["Calm.", "Slow."]
    made = OwnSongs(source=tmp_path, audio=tmp_path, data_dir=tmp_path / "out/x")
    assert made.survey.summary()["findings"] == {"questions with several answers": 1}


def test_a_key_twice_in_a_line_is_refused(tmp_path):
    path = write(tmp_path, song("a.wav"))
    path.write_text('{"audio": "a.wav", "answer": "A.", "audio": "b.wav"}\n')
    with pytest.raises(UserError, match=r"songs\.jsonl:1: .*the key 'audio' twice"):
        songs.load(path)

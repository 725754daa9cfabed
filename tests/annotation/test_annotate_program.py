"""`musilingo annotate`: a folder, a list, windows, tasks, songs that cannot be read."""

import json

import pytest
import soundfile
from helpers import four_chords, programs
from helpers.letter_job import files

from musilingo_jax import annotate
from musilingo_jax.runtime.errors import UsageError

pytestmark = pytest.mark.medium


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("songs")
    for number in range(3):
        wave = four_chords.song(bars=4 + number)
        soundfile.write(folder / f"{number}.wav", wave, four_chords.RATE)
    return folder


def run(folder, *words):
    return programs.run("annotate", *words, cwd=folder)


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_folder_is_annotated_and_what_cannot_be_read_is_told(folder, tmp_path):
    songs = tmp_path / "songs"
    songs.mkdir()
    for path in folder.glob("*.wav"):
        (songs / path.name).write_bytes(path.read_bytes())
    (songs / "1.wav").write_bytes(b"no sound")
    done = run(tmp_path, "songs", "--out=out", "--fields=tempo,key")
    assert done.returncode == 1
    assert "1 of 3 cannot be annotated; all others are done. Put right" in done.stderr
    assert "1.wav: " in done.stderr and "out/annotations.jsonl: 2 rows" in done.stdout
    rows = rows_of(tmp_path / "out/annotations.jsonl")
    assert [row["audio"] for row in rows] == ["0.wav", "2.wav"]
    assert rows[0].keys() == {"id", "audio", "seconds", "tempo", "key"}
    assert rows[0]["seconds"] == pytest.approx(8.1, abs=0.01)
    allowed = run(
        tmp_path, "songs", "--out=out", "--fields=tempo,key", "--allow-missing"
    )
    assert allowed.returncode == 0 and "1 of 3 cannot be annotated:\n" in allowed.stdout
    (songs / "1.wav").write_bytes((folder / "1.wav").read_bytes())
    repaired = run(tmp_path, "songs", "--out=out", "--fields=tempo,key")
    assert repaired.returncode == 0, (
        repaired.stderr
    )  # Another id: the file has changed.
    assert len(rows_of(tmp_path / "out/annotations.jsonl")) == 3
    other = run(tmp_path, "songs", "--out=out", "--fields=tempo")
    assert other.returncode == 1
    assert "these annotations were made with key 1, librosa" in other.stderr


def test_tasks_make_the_same_file(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(annotate, "_SHARD", 1)

    def job(name, *words):
        out = f"--out={tmp_path / name}"
        given = annotate.parser().parse_args(
            [str(folder), out, "--fields=loudness,sections", *words]
        )
        annotate.main(given)

    job("one")
    for task in (1, 0):
        job("two", f"--task={task}", "--tasks=2")
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert len(list((tmp_path / "one").glob("0*.jsonl"))) == 3


def test_a_list_of_stretches_in_windows(folder, tmp_path):
    lines = [{"audio": "0.wav", "answer": "Ignored."}, {"audio": "2.wav", "start": 2.0}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "list.jsonl").write_text(text)
    out = tmp_path / "out"
    words = ["list.jsonl", f"--out={out}", "--fields=key", "--window=4"]
    done = run(folder, *words, "--limit=4")
    assert done.returncode == 0, done.stderr
    assert "--limit: 4 of 4 rows" not in done.stderr
    rows = rows_of(out / "annotations.jsonl")
    stretches = [(row["audio"], row["start"], row["end"]) for row in rows]
    assert stretches == [
        ("0.wav", 0.0, 4.0),
        ("0.wav", 4.0, 8.1),
        ("2.wav", 2.0, 6.0),
        ("2.wav", 6.0, 12.1),
    ]
    limited = run(folder, *words, "--limit=1")
    assert "--limit: 1 of 4 rows" in limited.stderr
    assert "3 rows of what is not asked for stay" in limited.stderr
    assert len(rows_of(out / "annotations.jsonl")) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fields=tempo,mood"], "there is no mood; choose among tempo, beats,"),
        (["--fields=tempo,"], "there is no field without name"),
        (["--fields=tags"], "get them with `make teachers`, and give --tags="),
        (["--window=1"], "--window=1: must be 3 seconds at least"),
        (["--window=nan"], "must be 3 seconds at least"),
        (["--actors=3"], "--actors is for --engine=ray"),
    ],
)
def test_what_cannot_be_meant_is_refused(folder, tmp_path, words, message):
    with pytest.raises(UsageError, match=message):
        given = annotate.parser().parse_args(
            [str(folder), f"--out={tmp_path / 'out'}", *words]
        )
        annotate.main(given)
    assert not (tmp_path / "out").exists()


def test_without_songs_there_is_a_sentence(tmp_path):
    done = run(tmp_path, "nothing", "--out=out")
    assert done.returncode == 1 and "there is no such file" in done.stderr
    done = run(tmp_path, ".", "--out=")
    assert done.returncode == 2 and "--out: is empty" in done.stderr

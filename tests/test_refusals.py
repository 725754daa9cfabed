"""Mistakes of users, made where users make them: at the command line.

Each ends with one sentence on stderr and the right exit status, never with a traceback,
and changes no existing file.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import programs
from helpers.programs import ROOT

pytestmark = pytest.mark.medium


def program(name: str, *arguments: str) -> tuple[int, str]:
    """Exit status and last line on stderr of `python -m musilingo_jax.<name> …`."""
    done = programs.run(name, *arguments)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr.strip().splitlines()[-1]


@pytest.fixture
def songs(tmp_path):
    """A folder with one good song and a songs.jsonl about it."""
    folder = tmp_path / "songs"
    folder.mkdir()
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(36_000) / 24_000)
    soundfile.write(folder / "good.wav", tone, 24_000)
    row = {
        "audio": "good.wav",
        "question": "What is the tempo?",
        "answer": "It is slow.",
    }
    (folder / "songs.jsonl").write_text(json.dumps(row) + "\n")
    return folder


def add_row(folder: Path, **row: str) -> None:
    with (folder / "songs.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def train_on(folder: Path, *arguments: str) -> tuple[int, str]:
    return program(
        "train",
        f"--config=configs/own_songs.py:{folder / 'songs.jsonl'}",
        f"--config.run={folder.parent / 'run'}",
        *arguments,
    )


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("chat", [], "name a song"),
        ("chat", ["song.ogg", "--aks=Why?"], "Unknown command line flag 'aks'"),
        ("train", [], "--config is missing: name a config"),
        (
            "train",
            ["--config=configs/tinny.py"],
            "--config=configs/tinny.py: there is no file 'configs/tinny.py'",
        ),
        (
            "train",
            ["--config=configs/tiny.py", "--config.stage1.stps=3"],
            "stage1.stps",
        ),
        (
            "train",
            ["--config=configs/tiny.py", "--processes=2"],
            "--process=I belong together",
        ),
        ("evaluate", ["--config=configs/tiny.py", "--config.seed=x"], "config.seed"),
        ("cache", [], "--config"),
    ],
)
def test_a_wrong_command_line_exits_with_2(name, arguments, message):
    status, line = program(name, *arguments)
    assert status == 2
    assert line.startswith("error: ") and message in line


def test_a_missing_song(tmp_path):
    missing = str(tmp_path / "nowhere.ogg")
    assert program("chat", missing, "--ask", "Why?") == (
        1,
        f"error: {missing}: there is no such file",
    )


def test_a_file_that_is_not_a_song(tmp_path):
    (tmp_path / "song.mp3").write_text("la la la")
    status, line = program("chat", str(tmp_path / "song.mp3"), "--ask", "Why?")
    assert status == 1
    assert line.startswith("error: ") and "song.mp3" in line


def test_an_empty_folder(tmp_path):
    folder = tmp_path / "songs"
    folder.mkdir()
    status, line = train_on(folder)
    assert status == 1
    assert "songs.jsonl" in line and "there is no such file" in line
    (folder / "songs.jsonl").touch()
    status, line = train_on(folder)
    assert status == 1
    assert "contains no songs" in line


def test_a_missing_answer_is_named_by_its_line(songs):
    add_row(songs, audio="good.wav", question="What is the style?")
    status, line = train_on(songs)
    assert status == 1
    assert "songs.jsonl:2" in line and "answer" in line


def test_an_unreadable_song_among_good_ones(songs):
    (songs / "bad.ogg").write_bytes(b"OggS" + bytes(100))
    add_row(songs, audio="bad.ogg", question="What is the tempo?", answer="It is fast.")
    status, line = train_on(songs)
    assert status == 1
    assert "bad.ogg" in line
    # The good one is encoded and kept.
    index = (songs.parent / "run" / "cache" / "index.jsonl").read_text()
    assert "good.wav" in index


def test_output_that_cannot_be_written(songs):
    occupied = songs.parent / "run"
    occupied.write_text("a file, not a folder")
    status, line = train_on(songs)
    assert status == 1
    assert f"nothing can be written to {occupied}" in line
    assert occupied.read_text() == "a file, not a folder"


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_done(tmp_path):
    occupied = tmp_path / "text.mp3"
    occupied.write_text("la la la")
    mine, tiny = f"--out={tmp_path}/a.jsonl", "--config=configs/tiny.py"
    messages = {
        ("generate", f"--out={tmp_path}"): "is a folder: name a file in it",
        ("generate", f"--out={occupied}/x.jsonl"): f"({occupied}: Not a directory)",
        ("generate", "--out=/proc/x.jsonl"): "--out=/proc/x.jsonl cannot be written",
        ("generate", mine, "--config.run=/nowhere"): "there is no trained adapter",
        (
            "evaluate",
            "--adapter=musilingo-tiny",
            f"--out={occupied}",
        ): f"--out={occupied} cannot be written",
        ("evaluate", "--json=/proc/x.jsonl"): "--json=/proc/x.jsonl cannot be written",
    }
    for (name, *flags), message in messages.items():
        status, line = program(name, tiny, *flags)
        assert status == 1
        assert line.startswith("error: ") and message in line
    assert sorted(tmp_path.iterdir()) == [occupied]


def test_numbers_out_of_bounds(tmp_path):
    flags = ["--config=configs/tiny.py", "--adapter=musilingo-tiny"]
    messages = {
        "max_new_tokens=2000000000": "lower it",
        "max_new_tokens=3000000": "lower it",
        "beams=100000": "knows only 800 tokens",
        "length_penalty=nan": "generate.length_penalty is nan",
        "temperature=nan": "generate.temperature is nan",
        "repetition_penalty=inf": "generate.repetition_penalty is inf",
    }
    out = tmp_path / "out" / "a.jsonl"
    for number, message in messages.items():
        flag = f"--config.generate.{number}"
        status, line = program("generate", *flags, f"--out={out}", flag)
        assert status == 1
        assert line.startswith("error: ") and message in line
    assert not out.parent.exists()


def test_predictions_and_flags_that_contradict_them(tmp_path):
    row = {"clip": "a", "question": "How?", "reference": "So.", "answer": "Thus."}
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text(json.dumps(row) + "\n")
    bad.write_text(json.dumps(row | {"answer": 3}) + "\n")
    messages = {
        (f"--predictions={bad}",): (1, "bad.jsonl:1: answer must be text"),
        (f"--predictions={tmp_path}/no",): (1, "no cannot be read"),
        (f"--predictions={good}", "--adapter=x"): (2, "--adapter goes with --config"),
        (f"--predictions={good}", "--processes=2"): (2, "--processes goes with"),
        (f"--predictions={good}", "--config=configs/tiny.py"): (2, "either --config"),
        (f"--predictions={good}", "--bertscore_layer=3"): (2, "give both"),
        (f"--predictions={good}", "--bertscore_layer=0"): (2, "bertscore_layer"),
        (f"--predictions={good}", "--bertscore=no/such"): (1, "--bertscore=no/such"),
        (f"--predictions={good}", f"--out={good}"): (1, f"--out={good} cannot be"),
    }
    for flags, (expected, message) in messages.items():
        status, line = program("evaluate", *flags)
        assert (status, line.startswith("error: ")) == (expected, True)
        assert message in line
    assert sorted(tmp_path.iterdir()) == [bad, good]


@pytest.mark.parametrize("name", ["train", "evaluate", "cache", "generate"])
def test_no_program_works_in_a_run_without_a_name(name):
    status, line = program(
        name, f"--config={ROOT / 'configs/tiny.py'}", "--config.run="
    )
    assert status == 2
    assert line.startswith("error: --config.run is empty")

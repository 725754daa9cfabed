"""Mistakes of people at the keyboard, made as they make them: at the command line.

Each ends in one sentence on stderr and the right exit status, never in a traceback, and
leaves what was there.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parent.parent


def program(name: str, *arguments: str) -> tuple[int, str]:
    """Exit status and last line on stderr of `python -m musilingo_jax.<name> …`."""
    done = subprocess.run(
        [sys.executable, "-m", f"musilingo_jax.{name}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )
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
    ("name", "arguments", "told"),
    [
        ("chat", [], "name a song"),
        ("chat", ["song.ogg", "--aks=Why?"], "Unknown command line flag 'aks'"),
        ("train", [], "say what to train"),
        (
            "train",
            ["--config=configs/tinny.py"],
            "configs/tinny.py: there is no such file",
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
def test_a_wrong_command_line_exits_with_2(name, arguments, told):
    status, said = program(name, *arguments)
    assert status == 2
    assert said.startswith("error: ") and told in said


def test_a_song_that_is_not_there(tmp_path):
    missing = str(tmp_path / "nowhere.ogg")
    assert program("chat", missing, "--ask", "Why?") == (
        1,
        f"error: {missing}: there is no such file",
    )


def test_a_song_that_is_none(tmp_path):
    (tmp_path / "song.mp3").write_text("la la la")
    status, said = program("chat", str(tmp_path / "song.mp3"), "--ask", "Why?")
    assert status == 1
    assert said.startswith("error: ") and "song.mp3" in said


def test_an_empty_folder(tmp_path):
    folder = tmp_path / "songs"
    folder.mkdir()
    status, said = train_on(folder)
    assert status == 1
    assert "songs.jsonl" in said and "there is no such file" in said
    (folder / "songs.jsonl").touch()
    status, said = train_on(folder)
    assert status == 1
    assert "holds no songs" in said


def test_a_missing_answer_is_told_by_line(songs):
    add_row(songs, audio="good.wav", question="What is the style?")
    status, said = train_on(songs)
    assert status == 1
    assert "songs.jsonl:2" in said and "answer" in said


def test_an_unreadable_song_among_good_ones(songs):
    (songs / "bad.ogg").write_bytes(b"OggS" + bytes(100))
    add_row(songs, audio="bad.ogg", question="What is the tempo?", answer="It is fast.")
    status, said = train_on(songs)
    assert status == 1
    assert "bad.ogg" in said
    # The good one is encoded and kept.
    index = (songs.parent / "run" / "cache" / "index.jsonl").read_text()
    assert "good.wav" in index


def test_output_that_cannot_be_written(songs):
    occupied = songs.parent / "run"
    occupied.write_text("a file, not a folder")
    status, said = train_on(songs)
    assert status == 1
    assert f"nothing can be written to {occupied}" in said
    assert occupied.read_text() == "a file, not a folder"

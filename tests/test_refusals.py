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


# Runs command lines one after the other, each in a process of its own that need not
# import everything again.
_ONE_AFTER_THE_OTHER = """
import json, os, runpy, sys, warnings
import musilingo_jax.chat, musilingo_jax.evaluate
warnings.simplefilter("ignore")
results = []
for number, (name, *arguments) in enumerate(json.loads(sys.argv[1])):
    with open(f"{sys.argv[2]}/{number}", "w+") as said:
        if (child := os.fork()) == 0:
            os.dup2(said.fileno(), 2)
            sys.argv = [name, *arguments]
            runpy.run_module(f"musilingo_jax.{name}", None, "__main__", alter_sys=True)
            sys.exit()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        results.append((status, said.read()))
print(json.dumps(results))
"""


def programs(tmp_path: Path, *lines: list[str]) -> list[tuple[int, str]]:
    """`program`, for several command lines."""
    done = subprocess.run(
        [sys.executable, "-c", _ONE_AFTER_THE_OTHER, json.dumps(lines), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    for _, said in results:
        assert "Traceback" not in said, said
    return [(status, said.strip().splitlines()[-1]) for status, said in results]


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
        ("train", [], "name what to train"),
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
    assert "contains no songs" in said


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


def test_where_nothing_can_be_written_is_told_before_anything_is_done(tmp_path):
    occupied = tmp_path / "text.mp3"
    occupied.write_text("la la la")
    logs = tmp_path / "logs"
    logs.mkdir()
    mine, tiny = f"--out={tmp_path}/a.jsonl", "--config=configs/tiny.py"
    said = programs(
        logs,
        ["generate", tiny, f"--out={tmp_path}"],
        ["generate", tiny, f"--out={occupied}/x.jsonl"],
        ["generate", tiny, "--out=/proc/x.jsonl"],
        ["generate", tiny, mine, "--config.run=/nowhere"],
        ["evaluate", tiny, "--adapter=musilingo-tiny", f"--out={occupied}"],
        ["evaluate", tiny, "--json=/proc/x.jsonl"],
    )
    assert [status for status, _ in said] == [1] * 6
    told = [
        "is a folder: name a file in it",
        f"({occupied}: Not a directory)",
        "--out=/proc/x.jsonl cannot be written",
        "there is no trained adapter",
        f"--out={occupied} cannot be written",
        "--json=/proc/x.jsonl cannot be written",
    ]
    for (_, line), part in zip(said, told, strict=True):
        assert line.startswith("error: ") and part in line
    assert sorted(tmp_path.iterdir()) == [logs, occupied]


def test_numbers_that_nothing_can_hold(tmp_path):
    flags = ["--config=configs/tiny.py", "--adapter=musilingo-tiny"]
    told = {
        "max_new_tokens=2000000000": "lower it",
        "max_new_tokens=3000000": "lower it",
        "beams=100000": "knows only 700 tokens",
        "length_penalty=nan": "generate.length_penalty is nan",
        "temperature=nan": "generate.temperature is nan",
        "repetition_penalty=inf": "generate.repetition_penalty is inf",
    }
    out = tmp_path / "out" / "a.jsonl"
    said = programs(
        tmp_path,
        *(
            ["generate", *flags, f"--out={out}", f"--config.generate.{number}"]
            for number in told
        ),
    )
    for (status, line), part in zip(said, told.values(), strict=True):
        assert status == 1
        assert line.startswith("error: ") and part in line
    assert not out.parent.exists()


def test_predictions_and_flags_that_contradict(tmp_path):
    row = {"clip": "a", "question": "How?", "reference": "So.", "answer": "Thus."}
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text(json.dumps(row) + "\n")
    bad.write_text(json.dumps(row | {"answer": 3}) + "\n")
    logs = tmp_path / "logs"
    logs.mkdir()
    told = {
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
    said = programs(logs, *(["evaluate", *flags] for flags in told))
    for (status, line), (expected, part) in zip(said, told.values(), strict=True):
        assert (status, line.startswith("error: ")) == (expected, True)
        assert part in line
    assert sorted(tmp_path.iterdir()) == [bad, good, logs]


def test_no_program_works_in_a_run_without_a_name(tmp_path):
    asked = [f"--config={ROOT / 'configs/tiny.py'}", "--config.run="]
    names = ("train", "evaluate", "cache", "generate")
    for status, line in programs(tmp_path, *([name, *asked] for name in names)):
        assert status == 2
        assert line.startswith("error: --config.run is empty")

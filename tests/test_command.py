"""`musilingo`: the commands as a user runs them."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import programs
from helpers import tiny_model as tiny
from helpers.programs import ROOT

from musilingo_jax import caption, command
from musilingo_jax.answering.model import Model
from musilingo_jax.answering.timeline import Line, Timeline, as_srt, as_vtt
from musilingo_jax.runtime.shell_completion import SHELLS, words_of

pytestmark = pytest.mark.medium

FAST, LOUD = "How fast is it?", "How loud is it?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.save_model(folder, tiny.llama())
    for name, seconds in {"short": 1.2, "long": 7.0}.items():
        time = np.arange(int(tiny.RATE * seconds)) / tiny.RATE
        tone = 0.5 * np.sin(2 * np.pi * 40 * np.sqrt(1 + time) * time)
        soundfile.write(folder / f"{name}.wav", tone, tiny.RATE)
    return folder


@pytest.fixture(scope="module")
def model(folder) -> Model:
    return Model.load(folder)


def musilingo(folder, *words, stdin=""):
    return programs.run("command", *words, cwd=folder, stdin=stdin)


def test_questions_are_answered_a_line_each(folder, model):
    expected = [
        answer.text + model.decoding().cut_mark
        for answer in model.answers(folder / "short.wav", [FAST, LOUD])
    ]
    lines = "".join(" ".join(text.split()) + "\n" for text in expected)
    done = musilingo(folder, "ask", "short.wav", FAST, LOUD, "--model=.")
    assert (done.returncode, done.stdout) == (0, lines)
    note, heard = done.stderr.splitlines()
    assert "does not record what it was trained with" in note
    assert heard == "short.wav: heard 00:00–00:01 of 00:01"
    piped = musilingo(
        folder, "ask", "short.wav", "--model=.", stdin=f"{FAST}\n\n{LOUD}"
    )
    assert (piped.returncode, piped.stdout) == (0, lines)


def test_flags_may_stand_anywhere():
    parse = command.parser().parse_args
    expected = parse(["ask", "a.ogg", "Why?", "How?", "--json", "--seed=1"])
    assert (expected.song, expected.question) == ("a.ogg", ["Why?", "How?"])
    assert parse(["ask", "--json", "a.ogg", "Why?", "--seed", "1", "How?"]) == expected
    assert parse(["ask", "a.ogg", "--json"]).question == []


def test_json_tells_more(folder, model):
    done = musilingo(
        folder, "ask", "long.wav", FAST, "--model=.", "--json", "--temperature=0",
        "--seed=3", "--max-new-tokens=4", "--start=2", "--seconds=1", "--stop=zzz",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    excerpt = model.hear(folder / "long.wav", 2.0, 1.0)
    settings = {"temperature": 0.0, "seed": 3, "max_new_tokens": 4, "stop": ["zzz"]}
    assert row["answer"] == model.ask(excerpt, FAST, **settings)
    assert (row["song"], row["question"], row["cut"]) == ("long.wav", FAST, True)
    assert row["answer_tokens"] == 4
    assert row["prompt_tokens"] == model.prompt_length(excerpt, FAST)


def test_a_song_is_captioned_and_embedded(folder, model):
    done = musilingo(folder, "caption", "short.wav", "--model=.", "--json")
    assert json.loads(done.stdout)["caption"] == model.caption(folder / "short.wav")
    done = musilingo(folder, "embed", "long.wav", "--model=.", "--out=x.npy")
    assert done.stdout == "x.npy: 18 windows of 0.40 s, width 16\n"
    # The program has one device and these tests have eight, which split sums otherwise.
    np.testing.assert_allclose(
        np.load(folder / "x.npy"), model.embed(folder / "long.wav"), atol=1e-5
    )


def test_a_timeline_walks_through_the_whole_song(folder, model):
    walk = Timeline(model, folder / "long.wav")
    lines = list(walk.lines())
    assert [round(line.start, 3) for line in lines] == [0.0, 1.6, 3.2, 4.8, 6.4]
    assert lines[-1].stop == pytest.approx(7.0)
    for line in lines[:2]:
        part = model.hear(folder / "long.wav", line.start, line.stop - line.start)
        assert line.text == model.caption(part)
    done = musilingo(folder, "caption", "long.wav", "--model=.", "--timeline", "--json")
    found = json.loads(done.stdout)
    assert [line["text"] for line in found["lines"]] == [line.text for line in lines]
    assert found["summary"] == walk.summary()


def test_subtitles():
    lines = [Line(0.0, 34.5, "A <slow>\npiece."), Line(3725.5, 3730.0, "Its end.")]
    assert as_srt(lines, "All.") == (
        "1\n00:00:00,000 --> 00:00:34,500\nA <slow> piece.\n\n"
        "2\n01:02:05,500 --> 01:02:10,000\nIts end.\n"
    )
    assert as_vtt(lines, "All\n\n--> of it.") == (
        "WEBVTT\n\nNOTE All → of it.\n\n"
        "00:00:00.000 --> 00:00:34.500\nA &lt;slow&gt; piece.\n\n"
        "01:02:05.500 --> 01:02:10.000\nIts end.\n"
    )


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["ask", "nowhere.wav", FAST], 1, "nowhere.wav: there is no such file"),
        (["ask", "config.json", FAST], 1, "config.json"),
        (["ask", "short.wav", FAST, "--model=nowhere"], 1, "nowhere"),
        (["ask", "short.wav", FAST, "--model=.", "--top-p=2"], 1, "generate.top_p"),
        (["ask", "short.wav", "Why?###", "--model=."], 1, "contains '###'"),
        (["ask"], 2, "song"),
        (["sing"], 2, "invalid choice: 'sing'"),
        ([], 2, "COMMAND"),
        (["ask", "short.wav", FAST, "--colour=red"], 2, "--colour"),
        (["caption", "short.wav", "--format=srt"], 2, "add --timeline"),
        (["caption", "short.wav", "--timeline", "--start=1"], 2, "the whole song"),
        (["embed", "short.wav"], 2, "--out"),
        (["embed", "short.wav", "--out=long.wav/x.npy"], 1, "long.wav/x.npy"),
        (["embed", "short.wav", "--out=./short.wav"], 1, "is the song itself"),
        (["recipes", "soup"], 2, "name a recipe"),
    ],
)
def test_mistakes_are_one_sentence(folder, words, status, message):
    done = musilingo(folder, *words)
    assert done.returncode == status and done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert "Traceback" not in done.stderr


def test_other_programs_have_the_same_names(folder):
    done = musilingo(folder, "chat", "nowhere.wav", "--ask=Why?")
    assert (done.returncode, done.stderr) == (
        1,
        "error: nowhere.wav: there is no such file\n",
    )
    for name in command.PROGRAMS:
        done = musilingo(folder, name, "--help")
        assert done.returncode == 0
        assert done.stdout.startswith(f"usage: python -m musilingo_jax.{name} ")
    assert musilingo(folder, "recipes", "render", "--help").returncode == 0


def test_help_and_version(folder):
    done = musilingo(folder, "--help")
    assert done.returncode == 0
    for name in ("ask", "caption", "embed", "completion", "train", "recipes"):
        assert re.search(rf"^    {name}\s+\w", done.stdout, re.M)
    version = musilingo(folder, "--version").stdout
    assert version == f"musilingo {command.musilingo_jax.__version__}\n"
    for words in re.findall(
        r"^ {4}musilingo (.*?)(?:  #.*| [<>].*)?$", done.stdout, re.M
    ):
        typed = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', words)]
        program = command.program_of(typed)
        if program is None:
            command.parser().parse_args(typed)
        elif program == command.CAPTION:
            caption.parser().parse_args(typed[1:])


def test_it_is_installed_under_its_name():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"musilingo": "musilingo_jax.command:main"}


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_every_command_and_flag(folder, shell):
    done = musilingo(folder, "completion", shell)
    assert done.returncode == 0
    for name, words in words_of(command.parser()).items():
        for word in [name, *words]:
            if shell == "fish":  # Which has them as `-l json`.
                word = word.lstrip("-")
            assert word in done.stdout


def test_bash_completes():
    script = subprocess.run(
        [sys.executable, "-m", "musilingo_jax.command", "completion", "bash"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    ask = (
        "COMP_WORDS=(musilingo {}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); "
        'COMPREPLY=(); _musilingo; echo "${{COMPREPLY[*]}}"'
    )
    for typed, expected in [
        ("c", "caption completion chat cache convert"),
        ("caption --f", "--format"),
        ("completion z", "zsh"),
    ]:
        done = subprocess.run(
            ["bash", "-c", script + ask.format(typed)], capture_output=True, text=True
        )
        assert done.stdout.split() == expected.split(), done.stderr

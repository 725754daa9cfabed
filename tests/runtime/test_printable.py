"""Names in downloads cannot send commands to the terminal, or end a program."""

import os
import re
import subprocess
import sys

import pytest
from helpers import programs
from helpers.programs import ROOT

from musilingo_jax.convert import __main__ as convert
from musilingo_jax.corpora import findings
from musilingo_jax.runtime import cli
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import printable

pytestmark = pytest.mark.medium


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("model.norm.weight", "model.norm.weight"),
        ("für Elise\u00a0♪ \U0001f3b5", "für Elise\u00a0♪ \U0001f3b5"),
        ("two\n\tlines", "two\n\tlines"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\rb\x9b2J", r"a\rb\x9b2J"),
        ("song-\udcff.wav", r"song-\udcff.wav"),
        # It would show the rest of the line from right to left.
        ("a\u202egpj.exe", r"a\u202egpj.exe"),
    ],
)
def test_unsafe_characters_are_escaped(text, printed):
    assert printable(text) == printed
    printed.encode()


def test_messages_are_escaped(capsys):
    assert cli._explain(UserError("\x1b[2J is missing"))[0] == 1
    assert capsys.readouterr().err == "error: \\x1b[2J is missing\n"


def test_labels_of_progress_bars_are_escaped(capsys):
    for _ in cli.progress(range(2), total=2, unit="B", label="\x1b[31mx\nerror: y"):
        pass
    told = capsys.readouterr().err
    assert r"\x1b[31mx\nerror: y: 100%" in told
    assert "\x1b" not in told and "\nerror" not in told


def test_notes_are_escaped(capsys):
    findings.tell("\x1b[2J.wav is in two splits")
    assert capsys.readouterr().err == "\\x1b[2J.wav is in two splits\n"


def test_nothing_is_printed_on_stderr_as_it_is():
    package = ROOT / "musilingo_jax"
    used = [
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if re.search(r"file=sys\.stderr|sys\.stderr\.write", path.read_text("utf-8"))
    ]
    # That of the bar, and that of `print_note`.
    assert sorted(used) == ["runtime/cli.py", "runtime/printable.py"]


def test_an_inspection_is_escaped(monkeypatch, capsys):
    monkeypatch.setattr(convert.inspection, "inspect", lambda source: [])
    monkeypatch.setattr(convert.inspection, "table", lambda reports: "\x1b[2J\ud800")
    convert.main(convert.parser().parse(["convert", "--inspect", "x"]))
    assert capsys.readouterr().out == "\\x1b[2J\\ud800\n"


FOREIGN = """
import sys
from musilingo_jax.runtime import cli

def main(argv):
    print("\\x1b]0;pwned\\x07", "song-\\udcff", "\\u266a", sep="\\t", flush=True)
    sys.stdout.write("no line end\\r")

cli.run(main)
"""


@pytest.mark.parametrize(
    ("encoding", "note"), [("utf-8", "\u266a"), ("ascii", r"\u266a")]
)
def test_whatever_a_program_prints_is_escaped(encoding, note):
    done = subprocess.run(
        [sys.executable, "-c", FOREIGN],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
    )
    printed = done.stdout.decode()
    assert done.returncode == 0, done.stderr
    assert printed == f"\\x1b]0;pwned\\x07\tsong-\\udcff\t{note}\nno line end\\r"


@pytest.mark.parametrize(
    "words",
    [
        ["--\x1b]0;pwned\x07"],
        ["--config=\x1b[2J"],
        ["--config=tiny", "--config.\x1b[2J=1"],
        ["--config=tiny", "--config.seed=\x1b[2J"],
        ["--config=tiny", "\x1b[2J"],
        ["--config=tiny", "--process=\x1b[2J"],
        ["--config=tiny", "--profile=\x1b[2J", "--config.run={}"],
        ["--config=tiny", "--config.corpus.path=\x1b[2J\udcff", "--config.run={}"],
        ["--config=tiny", "--config.model.adapter=\x1b[2J", "--config.run={}"],
    ],
)
def test_refusals_echo_what_was_typed_safely(tmp_path, words):
    words = [word.format(tmp_path / "run") for word in words]
    done = programs.run("train", *words)
    assert done.returncode in (1, 2)
    assert re.search(r"\\x1b|U\+001B", done.stderr) and "Traceback" not in done.stderr
    assert not re.search("[\x00-\x08\x0b-\x1f]", done.stderr)
    assert done.stdout == ""


@pytest.mark.parametrize("command", [["split", "\x1b[2J", "--out=x"], ["\x1b[2J"]])
def test_refusals_of_subcommands_echo_it_safely(command):
    done = programs.run("convert", *command)
    assert done.returncode in (1, 2)
    assert "\\x1b" in done.stderr and "\x1b" not in done.stderr

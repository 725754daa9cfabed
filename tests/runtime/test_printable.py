"""Names in downloads cannot send commands to the terminal, or end a program."""

import pytest

from musilingo_jax.convert import __main__ as convert
from musilingo_jax.runtime import cli
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import printable


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("model.norm.weight", "model.norm.weight"),
        ("für Elise\u00a0♪ \U0001f3b5", "für Elise\u00a0♪ \U0001f3b5"),
        ("two\n\tlines", "two\n\tlines"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\rb\x9b2J", r"a\rb\x9b2J"),
        ("song-\udcff.wav", r"song-\udcff.wav"),
    ],
)
def test_unsafe_characters_are_escaped(text, printed):
    assert printable(text) == printed
    printed.encode()


def test_messages_are_escaped(capsys):
    assert cli._explain(UserError("\x1b[2J is missing"))[0] == 1
    assert capsys.readouterr().err == "error: \\x1b[2J is missing\n"


def test_an_inspection_is_escaped(monkeypatch, capsys):
    monkeypatch.setattr(convert.inspection, "inspect", lambda source: [])
    monkeypatch.setattr(convert.inspection, "table", lambda reports: "\x1b[2J\ud800")
    convert.main(convert.parser().parse(["convert", "--inspect", "x"]))
    assert capsys.readouterr().out == "\\x1b[2J\\ud800\n"

"""Chat: one song, questions, answers; and what is refused."""

import io
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_answerer as tiny

from musilingo_jax import chat, weights
from musilingo_jax.chat import Chat, clock
from musilingo_jax.errors import UsageError, UserError


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.save_model(folder, tiny.llama())
    for name, seconds in {"short": 1.2, "long": 65.0}.items():
        time = np.arange(int(tiny.RATE * seconds)) / tiny.RATE
        tone = np.sin(2 * np.pi * 40 * np.sqrt(1 + time) * time)
        soundfile.write(folder / f"{name}.wav", 0.5 * tone, tiny.RATE)
    soundfile.write(folder / "silent.wav", np.zeros(tiny.RATE), tiny.RATE)
    (folder / "text.wav").write_text("la la la")
    return folder


@pytest.fixture(scope="module")
def loaded(model) -> Chat:
    return Chat.load(model, None)


def typed(monkeypatch, **given):
    """What `main` finds in its flags."""
    values = dict(ask=["Why?"], run=None, model="musilingo-tiny", adapter=None)
    values |= dict(start=None, seconds=30.0) | given
    flags = types.SimpleNamespace(FLAGS=types.SimpleNamespace(**values))
    monkeypatch.setattr(chat, "flags", flags)


def test_the_middle_of_a_long_song_is_heard(loaded, model):
    whole = loaded.hear(model / "short.wav", start=None, seconds=30.0)
    assert (whole.start, whole.stop) == (0.0, 1.2)
    assert str(whole).endswith("short.wav: heard 00:00–00:01 of 00:01")
    middle = loaded.hear(model / "long.wav", start=None, seconds=1.0)
    assert (middle.start, middle.stop) == (32.0, 33.0)
    assert str(middle).endswith("long.wav: heard 00:32–00:33 of 01:05")
    there = loaded.hear(model / "long.wav", start=32.0, seconds=1.0)
    np.testing.assert_array_equal(there.features, middle.features)
    end = loaded.hear(model / "long.wav", start=64.2, seconds=30.0)
    assert (end.start, end.stop) == (64.2, 65.0)


def test_no_more_is_heard_than_in_training(loaded, model):
    # Four windows of ten frames of 40 samples, at 1000 samples per second.
    assert loaded.longest == pytest.approx(1.6)
    heard = loaded.hear(model / "long.wav", start=None, seconds=30.0)
    assert heard.stop - heard.start == pytest.approx(1.6)
    assert len(heard.features) == 4


def test_a_silent_song_is_said_to_be_silent(loaded, model):
    heard = loaded.hear(model / "silent.wav", start=None, seconds=30.0)
    assert "silent" in str(heard)


def test_a_start_beyond_the_end_is_refused(loaded, model):
    with pytest.raises(UserError, match=r"short.wav: lasts 00:01 .*--start"):
        loaded.hear(model / "short.wav", start=1.0, seconds=30.0)


@pytest.mark.parametrize("name", ["missing.wav", "text.wav"])
def test_unreadable_songs_are_refused_by_name(loaded, model, name):
    with pytest.raises(UserError, match=name):
        loaded.hear(model / name, start=None, seconds=30.0)


def test_questions_are_answered_in_order(loaded, model):
    heard = loaded.hear(model / "short.wav", start=None, seconds=30.0)
    answers = loaded.ask(heard, ["Why?", "How fast is it?"])
    assert answers == [loaded.ask(heard, [q])[0] for q in ("Why?", "How fast is it?")]
    assert len(set(answers)) == 2


def test_a_question_longer_than_training_saw_is_refused(loaded, model):
    heard = loaded.hear(model / "short.wav", start=None, seconds=30.0)
    with pytest.raises(UserError, match=r"the question 'why why .*ask a shorter one"):
        loaded.ask(heard, ["why " * 1000])


def test_conversation(loaded, model, monkeypatch, capsys):
    lines = iter(
        [
            "Why?",
            "/help",
            "/open nowhere.wav",
            f"/open {model / 'long.wav'}",
            "Why?",
            "",
        ]
    )
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    heard = loaded.hear(model / "short.wav", start=None, seconds=30.0)
    chat.converse(loaded, heard, 30.0)
    said = capsys.readouterr().out
    assert said.count(chat.HELP) == 2
    assert "nowhere.wav: there is no such file; still listening to" in said
    assert "long.wav: heard 00:32–00:33 of 01:05" in said
    assert loaded.ask(heard, ["Why?"])[0] in said
    assert next(lines, "all read") == "all read"


@pytest.mark.parametrize("end", [EOFError, KeyboardInterrupt])
def test_conversation_ends_with_the_input(loaded, model, monkeypatch, end):
    def stop(prompt):
        raise end

    monkeypatch.setattr("builtins.input", stop)
    heard = loaded.hear(model / "short.wav", start=None, seconds=30.0)
    chat.converse(loaded, heard, 30.0)


@pytest.mark.parametrize(
    ("songs", "given", "reason"),
    [
        ([], {}, "name a song: python -m musilingo_jax.chat"),
        (["a.wav", "b.wav"], {}, "one song at a time"),
        (["a.wav"], {"ask": [" "]}, "--ask is empty"),
        (["a.wav"], {"ask": None}, "give --ask"),
        (["a.wav"], {"seconds": 0.1}, "--seconds must be at least"),
        (["a.wav"], {"seconds": float("nan")}, "--seconds must be at least"),
    ],
)
def test_wrong_command_lines(monkeypatch, songs, given, reason):
    typed(monkeypatch, **given)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(UsageError, match=reason):
        chat.main(["chat", *songs])


def test_a_missing_song_is_refused_before_the_model_is_loaded(monkeypatch):
    typed(monkeypatch, model="nowhere")
    with pytest.raises(UserError, match=r"nothing.ogg: there is no such file"):
        chat.main(["chat", "nothing.ogg"])


def test_a_run_without_config_or_adapter_is_refused(model, tmp_path):
    with pytest.raises(UserError, match="there is no such folder"):
        Chat.load(tmp_path / "nowhere", None)
    (tmp_path / "config.json").write_text((model / "config.json").read_text())
    with pytest.raises(UserError, match="this run has no trained adapter"):
        Chat.load(tmp_path, None)


def test_a_model_that_learnt_no_questions_is_refused(model, tmp_path):
    config = tiny.config(model, corpus="")
    config.stages = ("stage1",)
    (tmp_path / "config.json").write_text(config.to_json_best_effort())
    with pytest.raises(UserError, match="learnt to answer questions"):
        Chat.load(tmp_path, str(model / "adapter"))


def test_another_adapter_answers_otherwise(loaded, model, tmp_path):
    other = tmp_path / "adapter"
    louder = tiny.adapter(32)
    louder.projection.kernel[...] = -3 * louder.projection.kernel[...]
    weights.save_adapter(louder, other, dtype=np.float32, window_frames=10)
    heard = loaded.hear(model / "short.wav", start=None, seconds=30.0)
    changed = Chat.load(model, str(other))
    assert changed.ask(heard, ["Why?"]) != loaded.ask(heard, ["Why?"])


def test_the_program(loaded, model):
    song = model / "short.wav"
    done = subprocess.run(
        [sys.executable, "-m", "musilingo_jax.chat", song, "--ask", "Why?"]
        + ["--run", model, "--ask=How?"],
        capture_output=True,
        text=True,
        check=False,
        env={"JAX_PLATFORMS": "cpu", "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    heard = loaded.hear(song, start=None, seconds=30.0)
    why, how = loaded.ask(heard, ["Why?", "How?"])
    assert done.stdout == f"{heard}\n\nWhy?\n{why}\n\nHow?\n{how}\n"


def test_clock():
    assert [clock(s) for s in (0, 75.2, 59.6, 3725)] == [
        "00:00",
        "01:15",
        "01:00",
        "62:05",
    ]

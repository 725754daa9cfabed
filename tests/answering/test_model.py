"""The Python API: songs, questions, answers, and many threads at once."""

import doctest
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import tiny_model as tiny
from helpers.programs import ROOT

import musilingo_jax
from musilingo_jax.answering.answer import answer
from musilingo_jax.answering.listener import spread
from musilingo_jax.answering.model import Model
from musilingo_jax.audio.array_songs import waveform_of
from musilingo_jax.runtime.errors import UserError

pytestmark = pytest.mark.medium

QUESTIONS = ["How fast is it?", "How loud is it?"]


def tone(seconds: float, pitch: float = 40.0) -> np.ndarray:
    time = np.arange(int(tiny.RATE * seconds)) / tiny.RATE
    return (0.5 * np.sin(2 * np.pi * pitch * np.sqrt(1 + time) * time)).astype("f")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.save_model(folder, tiny.llama())
    for name, (seconds, pitch) in {
        "a": (1.2, 40), "b": (1.5, 90), "long": (10.0, 60)
    }.items():  # fmt: skip
        soundfile.write(
            folder / f"{name}.wav", tone(seconds, pitch), tiny.RATE, subtype="FLOAT"
        )
    return folder


@pytest.fixture(scope="module")
def model(folder) -> Model:
    return musilingo_jax.load(folder)


def test_the_shape_of_what_comes_back_is_that_of_what_was_asked(model, folder):
    a, b = str(folder / "a.wav"), folder / "b.wav"
    one = model.ask(a, QUESTIONS[0])
    assert isinstance(one, str) and one
    assert model.ask(a, QUESTIONS) == [model.ask(a, q) for q in QUESTIONS]
    assert model.ask([a, b], QUESTIONS[0]) == [one, model.ask(b, QUESTIONS[0])]
    both = model.ask([a, b], QUESTIONS)
    assert both == [model.ask(a, QUESTIONS), model.ask(b, QUESTIONS)]
    assert len({text for texts in both for text in texts}) == 4
    assert model.ask(a, []) == [] and model.ask([], QUESTIONS[0]) == []


def test_answers_are_those_of_the_engine(model, folder):
    excerpt = model.hear(folder / "a.wav")
    usage = model.usage
    requests = [(excerpt.features, question) for question in QUESTIONS]
    expected = answer(model.answerer, usage.prompt, requests, usage.generate)
    assert model.ask(excerpt, QUESTIONS) == expected
    drawn = replace(usage.generate, temperature=1.0, top_p=0.9, seed=5, stop=("e",))
    expected = answer(model.answerer, usage.prompt, requests, drawn)
    settings = {"temperature": 1.0, "top_p": 0.9, "seed": 5, "stop": "e"}
    assert model.ask(excerpt, QUESTIONS, **settings) == expected
    pieces = model.stream(excerpt, QUESTIONS[1], **settings)
    assert "".join(pieces) == expected[1]


def test_an_array_is_heard_as_the_file_with_the_same_samples(model, folder):
    array, rate = soundfile.read(folder / "a.wav", dtype="float32")
    expected = model.ask(folder / "a.wav", QUESTIONS)
    assert model.ask((array, rate), QUESTIONS) == expected
    stereo = np.stack([array, array])
    for same in (stereo, stereo.T, stereo.astype(np.float64)):
        np.testing.assert_array_equal(
            model.embed((same, rate)), model.embed(folder / "a.wav")
        )
    whole = (np.round(array * 2**15)).astype(np.int16)
    np.testing.assert_allclose(
        waveform_of(whole, rate, sample_rate=rate), array, atol=2**-15
    )
    assert len(waveform_of(array, 2 * rate, sample_rate=rate)) == len(array) // 2


@pytest.mark.parametrize(
    ("song", "message"),
    [
        ((np.zeros((2, 3, 4)), 1000), r"shape \[2, 3, 4\] is no sound"),
        ((np.array(["a"]), 1000), "is no sound"),
        ((np.zeros(0), 1000), "is no sound"),
        ((np.zeros(5000), 0), "rate of 0 is impossible"),
        ((np.zeros(5000), float("nan")), "rate of nan is impossible"),
        ((np.zeros(100), 1000), r"only 0.10 s of sound"),
        ((np.full(5000, np.nan), 1000), "NaN or infinite"),
        ((np.zeros((300, 400)), 1000), "300 channels"),
        ("nowhere.wav", "nowhere.wav: there is no such file"),
    ],
)
def test_what_is_no_song_is_refused(model, song, message):
    with pytest.raises(UserError, match=message):
        model.ask(song, QUESTIONS[0])


def test_of_a_long_song_windows_are_heard_that_are_spread_over_it(model, folder):
    excerpt = model.hear(folder / "long.wav")
    everything = model.embed(folder / "long.wav")
    assert everything.shape == (25, tiny.MERT.hidden_size)
    assert everything.dtype == np.float32
    # Ten frames of 40 samples; four windows at most.
    places = [3, 9, 15, 21]
    assert spread(25, 4) == places and spread(3, 4) == [0, 1, 2]
    np.testing.assert_array_equal(excerpt.features, everything[places])
    assert excerpt.windows == tuple(
        (pytest.approx(0.4 * p), pytest.approx(0.4 * p + 0.4)) for p in places
    )
    assert str(excerpt).endswith(
        "4 windows of 0.4 s, spread over 00:10: at 00:01, 00:04, 00:06, 00:08"
    )
    part = model.hear(folder / "long.wav", 2.0, 1.0)
    assert (part.start, part.stop, part.windows) == (2.0, 3.0, ())
    middle = model.hear(folder / "long.wav", seconds=1.0)
    assert (middle.start, middle.stop) == (4.5, 5.5)
    short = model.hear(folder / "a.wav")
    assert (short.start, short.stop, short.windows) == (0.0, 1.2, ())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "generate.temperature"),
        ({"max_new_tokens": 0}, "generate.max_new_tokens"),
        ({"max_new_tokens": 9999}, "reads at most 2048 in all"),
        ({"stop": ["", "a"]}, "generate.stop"),
        ({"colour": 1.0}, "no setting 'colour'"),
    ],
)
def test_impossible_settings_are_refused(model, folder, settings, message):
    with pytest.raises(UserError, match=message):
        model.ask(folder / "a.wav", QUESTIONS[0], **settings)


def test_an_empty_question_is_refused(model, folder):
    with pytest.raises(UserError, match="the question is empty"):
        model.ask(folder / "a.wav", [QUESTIONS[0], " "])


def test_threads_share_a_batch(model, folder):
    songs = [model.hear(folder / name) for name in ("a.wav", "b.wav", "long.wav")]
    asked = [
        (songs[n % 3], f"{QUESTIONS[n % 2]} {n}", {"temperature": n % 4 / 4})
        for n in range(24)
    ]
    expected = [model.ask(s, q, **settings) for s, q, settings in asked]
    found: dict[int, str] = {}

    def client(number: int) -> None:
        song, question, settings = asked[number]
        if number % 2:
            found[number] = model.ask(song, question, **settings)
        else:
            found[number] = "".join(model.stream(song, question, **settings))

    threads = [threading.Thread(target=client, args=(n,)) for n in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(24)] == expected


def test_longer_prompts_get_rows_with_more_room(model, folder):
    excerpt = model.hear(folder / "a.wav")
    short = model.ask(excerpt, QUESTIONS[0])
    turns = [(QUESTIONS[0], "It is fast. " * 12)] * 4
    length = model.prompt_length(excerpt, QUESTIONS[1], turns)
    assert length > 512
    pending = model.submit(excerpt, QUESTIONS[1], earlier=turns)
    assert pending.answer().text and pending.prompt_tokens == length
    assert model.ask(excerpt, QUESTIONS[0]) == short


def test_a_closed_model_answers_nothing(folder):
    with musilingo_jax.load(folder, rows=1) as model:
        assert model.caption(folder / "a.wav")
        pending = model.submit(model.hear(folder / "a.wav"), QUESTIONS[0])
    assert pending.finish in ("cancelled", "length", "stop")
    with pytest.raises(RuntimeError, match="closed"):
        model.ask(folder / "a.wav", QUESTIONS[0])
    with pytest.raises(UserError, match="rows is 0"):
        musilingo_jax.load(folder, rows=0)


def test_importing_the_package_imports_nothing_that_takes_time():
    code = """
import sys, musilingo_jax
heavy = {"jax", "numpy", "absl", "flax", "transformers", "soundfile", "scipy"}
print(sorted(heavy & set(sys.modules)), len(sys.modules))
assert "load" in dir(musilingo_jax)
print(musilingo_jax.load.__name__, "jax" in sys.modules)
try:
    musilingo_jax.lode
except AttributeError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    first, second, third = done.stdout.splitlines()
    assert first.startswith("[] ") and int(first.split()[1]) < 200
    assert second == "load True"
    assert third == "module 'musilingo_jax' has no attribute 'lode'"


def test_everything_of_the_api_is_there_and_documented():
    for name in musilingo_jax.__all__:
        assert getattr(musilingo_jax, name).__doc__, name
    for name in ("ask", "stream", "caption", "embed", "hear", "chat", "submit"):
        assert getattr(Model, name).__doc__, name


@pytest.mark.parametrize("module", ["answering.model", "answering.song_names"])
def test_examples_in_docstrings_are_true(module, monkeypatch):
    """Of the embedded model and a clip of its corpus."""
    monkeypatch.chdir(ROOT)
    __import__(f"musilingo_jax.{module}")
    found = doctest.testmod(sys.modules[f"musilingo_jax.{module}"])
    assert found.attempted > 2 and found.failed == 0

"""A small release of MU-LLaMA answers by its folder's name, whole or taken apart."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from helpers import programs
from helpers.model_folders import write as write_plan
from helpers.mu_llama_files import encoder_tensors, tensors, write
from helpers.small_run import load_config, small_tokenizer
from ml_collections import ConfigDict

import musilingo_jax
from musilingo_jax.answering import corpus_answers
from musilingo_jax.answering.conversation import Conversation
from musilingo_jax.convert import musilingo_releases
from musilingo_jax.evaluation import heard_before

pytestmark = pytest.mark.medium


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mu")
    theirs, _ = tensors(vocab=small_tokenizer().size)
    write(folder / "release", theirs | encoder_tensors())
    noise = np.random.default_rng(0).normal(0, 0.2, 24_000)
    soundfile.write(folder / "noise.wav", noise, 24_000)
    tone = 0.5 * np.sin(2 * np.pi * 110 * np.arange(24_000) / 24_000)
    soundfile.write(folder / "tone.wav", tone, 24_000)
    return folder


def answers(source, folder):
    """Greedy texts about two songs, and the vector that each of them becomes."""
    songs = [folder / "noise.wav", folder / "tone.wav"]
    with musilingo_jax.load(source) as model:
        heard = [model.hear(song) for song in songs]
        bridge = model.answerer.bridge
        vectors = [bridge.vector(jnp.asarray(one.features)) for one in heard]
        texts = model.ask(heard, "What is it?", temperature=0.0, max_new_tokens=6)
    return texts, np.asarray(vectors)


def test_a_release_and_its_parts_answer_alike(folder):
    texts, vectors = answers(folder / "release", folder)
    assert all(texts) and np.abs(vectors[0] - vectors[1]).max() > 1e-3
    source = str(folder / "release")
    parts = write_plan(musilingo_releases.split(source), folder / "parts")
    again, same = answers(parts, folder)
    assert again == texts
    np.testing.assert_array_equal(same, vectors)
    # Both learnt from all clips of MusicCaps.
    tested = ConfigDict({"corpus": {"path": "corpora/musiccaps"}})
    for model in (source, str(parts)):
        (note,) = heard_before.notes(tested, model)
        assert "MU-LLaMA learnt from all of MusicCaps" in note


def test_it_is_named_in_a_config(folder):
    source = str(folder / "release")
    config = load_config("mu_llama").get_config(source)
    assert config.model.pretrained == source
    config.model.dtype = "float32"
    adapter = corpus_answers.adapter_of(config, None)
    model = corpus_answers.model_of(config, adapter)
    assert (model.encoder, model.language_model, model.adapter) == (source,) * 3
    assert load_config("mu_llama").get_config().model.pretrained == "mu-llama/MU-LLaMA"


GREEDY = {"temperature": 0.0, "max_new_tokens": 6}


def test_streams_conversations_and_the_server_say_the_same(folder):
    """Every way to ask carries the vector of each song to the layers."""
    pytest.importorskip("fastapi", reason="needs the extra `serve`")
    from helpers.serving import part, question, serving

    from musilingo_jax.serve.engine import Engine

    songs = [folder / "noise.wav", folder / "tone.wav"]
    with musilingo_jax.load(folder / "release", rows=2) as model:
        texts = [model.ask(song, "What is it?", **GREEDY) for song in songs]
        assert all(texts)
        for song, text in zip(songs, texts, strict=True):
            assert "".join(model.stream(song, "What is it?", **GREEDY)).strip() == text
            conversation = Conversation(model, mark_cuts=False)
            for name, value in GREEDY.items():
                conversation.set(name, value)
            conversation.add(song)
            assert conversation.ask("What is it?") == text
            # With the turn before in the prompt, it is another question.
            assert conversation.ask("What is it?")
            assert len(conversation.turns) == 2
        with serving(Engine(model, "release")) as client:
            for song, text in zip(songs, texts, strict=True):
                message = question(part(song.read_bytes()), text="What is it?")
                options = {"temperature": 0.0, "max_tokens": 6}
                body = client.ask(message, **options).json()
                assert body["choices"][0]["message"]["content"] == text
                streamed = client.ask(message, stream=True, **options).text
                assert spelled(streamed) == text


def spelled(stream):
    """The text of a stream of the protocol."""
    events = [line.removeprefix("data: ") for line in stream.split("\n\n") if line]
    assert events.pop() == "[DONE]"
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events]
    return "".join(delta.get("content", "") for delta in deltas)


def test_the_command_asks_it(folder):
    song, question = folder / "tone.wav", "What is it?"
    source = f"--model={folder / 'release'}"
    with musilingo_jax.load(folder / "release") as model:
        text = model.ask(song, question, **GREEDY)
    settings = ("--temperature=0", "--max-new-tokens=6", "--json")
    asked = programs.run("command", "ask", song, question, source, *settings)
    assert asked.returncode == 0, asked.stderr
    assert json.loads(asked.stdout)["answer"] == text

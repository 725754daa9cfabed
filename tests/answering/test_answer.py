"""Answers: that rows do not meet, how they are streamed, and what is refused."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest
from helpers import tiny_model as tiny

from musilingo_jax.answering import beam_search, continuous_batching
from musilingo_jax.answering.answer import (
    Answerer,
    answer,
    answer_each,
    check_question,
    context_of,
    stream,
)
from musilingo_jax.answering.config import GenerateConfig
from musilingo_jax.answering.prompts import encode
from musilingo_jax.pretrained import weights
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.sharding import make_mesh

GREEDY = tiny.GREEDY
SAMPLED = dataclasses.replace(GREEDY, temperature=1.0, top_p=0.9, top_k=200, seed=7)
BEAMS = dataclasses.replace(GREEDY, beams=2)
WAYS = pytest.mark.parametrize(
    "config", [GREEDY, SAMPLED, BEAMS], ids=["greedy", "sampled", "beams"]
)


@WAYS
def test_an_answer_depends_on_its_own_request_only(config):
    model, asked = tiny.speaker(), tiny.requests(6)
    together = answer(model, tiny.PROMPT, asked, config, mesh=None)
    assert len(set(together)) > 3
    backwards = answer(model, tiny.PROMPT, asked[::-1], config, mesh=None)
    assert backwards[::-1] == together
    in_twos = dataclasses.replace(config, batch_size=2)
    assert answer(model, tiny.PROMPT, asked, in_twos, mesh=None) == together
    for index in (1, 4):
        alone = answer(model, tiny.PROMPT, [asked[index]], config, mesh=None)
        assert alone == [together[index]]
    assert answer(model, tiny.PROMPT, [], config, mesh=None) == []


def test_the_seed_changes_what_is_sampled():
    model, asked = tiny.speaker(), tiny.requests(4)
    other = dataclasses.replace(SAMPLED, seed=8)
    first = answer(model, tiny.PROMPT, asked, SAMPLED, mesh=None)
    assert answer(model, tiny.PROMPT, asked, SAMPLED, mesh=None) == first
    assert answer(model, tiny.PROMPT, asked, other, mesh=None) != first


def placed(mesh: jax.sharding.Mesh, folder) -> Answerer:
    tiny.save_model(folder, tiny.llama())
    return Answerer.load(
        str(folder / "language_model"),
        str(folder / "adapter"),
        dtype="float32",
        quantization="",
        mesh=mesh,
    )


@WAYS
def test_eight_devices_say_what_one_says(config, tmp_path):
    asked = tiny.requests(9)
    expected = answer(tiny.speaker(), tiny.PROMPT, asked, config, mesh=None)
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    assert answer(placed(mesh, tmp_path), tiny.PROMPT, asked, config, mesh=mesh) == (
        expected
    )


def test_questions_about_one_clip_and_without_any():
    """What is shared, and what is not there, changes no answer."""
    model, silence = tiny.speaker(), np.zeros((0, tiny.MERT.hidden_size), np.float32)
    clips = [features for features, _ in tiny.requests(3)] + [silence]
    questions = ["How?", "Why? " * 9, "What is it?", "###"]
    asked = [(clip, question) for question in questions for clip in clips]
    together = answer(model, tiny.PROMPT, asked, GREEDY, mesh=None)
    assert together == [
        answer(model, tiny.PROMPT, [request], GREEDY, mesh=None)[0] for request in asked
    ]
    assert len(set(together)) > 10


def test_without_a_template_the_audio_alone_is_the_prompt():
    captions = dataclasses.replace(
        tiny.PROMPT, template="", instruction="", end_sign="\n"
    )
    asked = [(features, "") for features, _ in tiny.requests(5)]
    model = tiny.speaker()
    together = answer(model, captions, asked, GREEDY, mesh=None)
    assert len(set(together)) > 1
    assert answer(model, captions, asked[:1], GREEDY, mesh=None) == together[:1]


def test_answers_come_as_soon_as_they_are_done():
    """A row that stops at once is not held by one that goes on to the end."""
    pieces = ["a", "b", "###"]
    said = [tiny.token(piece) for piece in pieces]
    start = encode(tiny.tokenizer(), tiny.PROMPT, "How?", None, 1).tokens[-1]
    llama = tiny.parrot(said, start=start)
    model = Answerer(tiny.adapter(llama.config.width), llama, tiny.tokenizer())
    short = (np.zeros((1, tiny.MERT.hidden_size), np.float32), "How?")
    each = answer_each(model, tiny.PROMPT, [short] * 9, GREEDY, mesh=None)
    assert next(each)[1] == "ab"
    assert sorted(index for index, _ in each) == list(range(1, 9))


@WAYS
def test_streamed_pieces_are_the_answer(config):
    model = tiny.speaker()
    for request in tiny.requests(2):
        pieces = list(stream(model, tiny.PROMPT, request, config, mesh=None))
        (whole,) = answer(model, tiny.PROMPT, [request], config, mesh=None)
        assert "".join(pieces) == whole
        assert all(pieces)
        assert (len(pieces) > 1) == (config.beams == 1)


def test_a_stream_cuts_no_letter_and_shows_no_stop_text():
    spelled = " ♪ #é".encode()
    table = {text: token for token, text in tiny.tokenizer().texts.items() if text}
    said = [table[bytes([byte])] for byte in spelled] + [tiny.token("###")]
    said = list(dict.fromkeys(said))  # A parrot says each token once.
    start = encode(tiny.tokenizer(), tiny.PROMPT, "How?", None, 1).tokens[-1]
    said = [token for token in said if token != start]
    llama = tiny.parrot(said, start=start)
    model = Answerer(tiny.adapter(llama.config.width), llama, tiny.tokenizer())
    request = (np.zeros((1, tiny.MERT.hidden_size), np.float32), "How?")
    pieces = list(stream(model, tiny.PROMPT, request, GREEDY, mesh=None))
    assert "".join(pieces) == "♪#é"
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_other_texts_may_end_an_answer():
    said = [tiny.token(piece) for piece in ["a", "b", "c", "###"]]
    start = encode(tiny.tokenizer(), tiny.PROMPT, "How?", None, 1).tokens[-1]
    llama = tiny.parrot(said, start=start)
    model = Answerer(tiny.adapter(llama.config.width), llama, tiny.tokenizer())
    request = (np.zeros((1, tiny.MERT.hidden_size), np.float32), "How?")
    stop = dataclasses.replace(GREEDY, stop=("x", "bc"))
    assert answer(model, tiny.PROMPT, [request], stop, mesh=None) == ["a"]
    assert answer(model, tiny.PROMPT, [request], GREEDY, mesh=None) == ["abc"]


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": -1.0},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"repetition_penalty": 0.0},
        {"max_new_tokens": 0},
        {"min_new_tokens": 12},
        {"min_new_tokens": -1},
        {"batch_size": 0},
        {"beams": 0},
        {"beams": 2, "temperature": 1.0},
        {"stop": ("",)},
        {"temperature": math.nan},
        {"top_p": math.nan},
        {"repetition_penalty": math.inf},
        {"repetition_penalty": 1e39},
        {"length_penalty": math.nan},
    ],
)
def test_impossible_decoding_is_refused(changes):
    with pytest.raises(UserError, match=f"generate.{next(iter(changes))}"):
        dataclasses.replace(GREEDY, **changes)


def test_unknown_or_missing_keys_of_decoding_are_refused(tmp_path):
    config = tiny.config(tmp_path, corpus="")
    assert GenerateConfig.from_config(config).max_new_tokens == 6
    config.generate.stop = ["Human:"]
    assert GenerateConfig.from_config(config).stop == ("Human:",)
    config.generate = {**config.generate, "stop": "Human:"}
    with pytest.raises(UserError, match=r"generate\.stop is the text 'Human:'"):
        GenerateConfig.from_config(config)
    config.generate = {"max_new_tokens": 6, "beems": 4}
    with pytest.raises(UserError, match=r"config\.generate.*beems"):
        GenerateConfig.from_config(config)


def test_an_adapter_for_another_language_model_is_refused(tmp_path):
    tiny.save_model(tmp_path, tiny.llama())
    weights.save_adapter(
        tiny.adapter(24), tmp_path / "other", dtype=np.float32, window_frames=10
    )
    with pytest.raises(UserError, match=r"width 24.*reads 32"):
        Answerer.load(
            str(tmp_path / "language_model"),
            str(tmp_path / "other"),
            dtype="float32",
            quantization="",
            mesh=None,
        )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"max_new_tokens": 2_000_000_000}, "max_new_tokens is 2000000000, after up"),
        ({"max_new_tokens": 2_040}, "reads at most 2048 in all"),
        ({"beams": 100_000}, "beams is 100000, but .* knows only"),
    ],
)
def test_what_no_model_can_hold_is_refused_at_once(changes, told):
    config = dataclasses.replace(GREEDY, **changes)
    with pytest.raises(UserError, match=told):
        answer_each(tiny.speaker(), tiny.PROMPT, tiny.requests(1), config, mesh=None)
    with pytest.raises(UserError, match=told):
        next(
            stream(tiny.speaker(), tiny.PROMPT, tiny.requests(1)[0], config, mesh=None)
        )


def test_the_context_is_what_the_language_model_says(tmp_path):
    tiny.save_model(tmp_path, tiny.llama())
    path = tmp_path / "language_model"
    assert context_of(str(path)) == 2048
    said = json.loads((path / "config.json").read_text())
    said["max_position_embeddings"] = 70
    (path / "config.json").write_text(json.dumps(said))
    assert context_of(str(path)) == 70
    model = Answerer.load(
        str(path),
        str(tmp_path / "adapter"),
        dtype="float32",
        quantization="",
        mesh=None,
    )
    with pytest.raises(UserError, match="at most 70 in all"):
        answer(model, tiny.PROMPT, tiny.requests(3), GREEDY, mesh=None)


@WAYS
def test_too_little_memory_is_one_sentence(config, monkeypatch):
    def allocate(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    for place in (continuous_batching, beam_search):
        monkeypatch.setattr(place, "pad", allocate)
    request = tiny.requests(1)
    with pytest.raises(UserError, match="too little memory for generate.batch_size"):
        answer(tiny.speaker(), tiny.PROMPT, request, config, mesh=None)
    with pytest.raises(UserError, match="too little memory for generate.batch_size"):
        list(stream(tiny.speaker(), tiny.PROMPT, request[0], config, mesh=None))


def test_a_question_that_ends_the_conversation_is_refused():
    with pytest.raises(UserError, match="'Is it jazz.###' holds '###'.*ask without it"):
        check_question(tiny.PROMPT, "Is it jazz?###")
    check_question(tiny.PROMPT, "Is it in C##?")

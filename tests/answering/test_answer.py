"""Answers: that rows are independent, how they are streamed, and what is refused."""

import dataclasses
import json
import math
import shutil

import jax
import numpy as np
import pytest
from helpers import tiny_model as tiny

from musilingo_jax.answering import beam_search, row_batch
from musilingo_jax.answering.answer import answer, answer_each, check_question, stream
from musilingo_jax.answering.answerer import Answerer, context_of
from musilingo_jax.answering.config import GenerateConfig
from musilingo_jax.answering.prompts import MODEL_END
from musilingo_jax.models.parts import Parts
from musilingo_jax.pretrained import weights
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.sharding import make_mesh

pytestmark = pytest.mark.medium

GREEDY = tiny.GREEDY
SAMPLED = dataclasses.replace(GREEDY, temperature=1.0, top_p=0.9, top_k=200, seed=7)
BEAMS = dataclasses.replace(GREEDY, beams=2)
WAYS = pytest.mark.parametrize(
    "config", [GREEDY, SAMPLED, BEAMS], ids=["greedy", "sampled", "beams"]
)


@pytest.mark.quick("sampled")
@WAYS
def test_an_answer_depends_on_its_own_request_only(config):
    model, asked = tiny.answerer(), tiny.requests(6)
    together = answer(model, tiny.PROMPT, asked, config)
    assert len(set(together)) > 3
    backwards = answer(model, tiny.PROMPT, asked[::-1], config)
    assert backwards[::-1] == together
    # As many texts as the beams are those of one row.
    one_row = dataclasses.replace(config, batch_size=config.beams)
    assert answer(model, tiny.PROMPT, asked, one_row) == together
    for index in (1, 4):
        alone = answer(model, tiny.PROMPT, [asked[index]], config)
        assert alone == [together[index]]
    assert answer(model, tiny.PROMPT, [], config) == []


def test_the_seed_changes_what_is_sampled():
    model, asked = tiny.answerer(), tiny.requests(4)
    other = dataclasses.replace(SAMPLED, seed=8)
    first = answer(model, tiny.PROMPT, asked, SAMPLED)
    assert answer(model, tiny.PROMPT, asked, SAMPLED) == first
    assert answer(model, tiny.PROMPT, asked, other) != first


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files of a whole model."""
    folder = tmp_path_factory.mktemp("model")
    tiny.save_model(folder, tiny.llama())
    return folder


def load(folder, *, adapter="adapter", mesh=None) -> Answerer:
    return Answerer.load(
        str(folder / "language_model"),
        str(folder / adapter),
        dtype="float32",
        quantization="",
        mesh=mesh,
    )


@pytest.fixture(scope="module")
def spread(folder) -> Answerer:
    """The model on eight devices."""
    return load(folder, mesh=make_mesh(data=2, fsdp=2, tensor=2))


@pytest.mark.quick("greedy")
@WAYS
def test_eight_devices_answer_as_one_does(config, spread):
    asked = tiny.requests(9)
    expected = answer(tiny.answerer(), tiny.PROMPT, asked, config)
    assert answer(spread, tiny.PROMPT, asked, config) == expected


def test_questions_about_one_clip_and_without_any():
    """What is shared, and what is not there, changes no answer."""
    model, silence = tiny.answerer(), np.zeros((0, tiny.MERT.hidden_size), np.float32)
    (one, two, three, *others) = [features for features, _ in tiny.requests(6)]
    questions = ["How?", "Why? " * 3, "What is it?", "###"]
    asked = [(clip, q) for q in questions for clip in (one, two, three, silence)]
    together = answer(model, tiny.PROMPT, asked, GREEDY)
    # Each beside others that share nothing with it, so that all jobs have equal shapes.
    strangers = [(clip, "Why? " * 4) for clip in others]
    alone = [
        answer(model, tiny.PROMPT, [request, *strangers], GREEDY)[0]
        for request in asked
    ]
    assert together == alone
    assert len(set(together)) > 10


def test_without_a_template_the_audio_alone_is_the_prompt():
    captions = dataclasses.replace(
        tiny.PROMPT, template="", instruction="", end_sign="\n"
    )
    asked = [(features, "") for features, _ in tiny.requests(5)]
    model = tiny.answerer()
    together = answer(model, captions, asked, GREEDY)
    assert len(set(together)) > 1
    assert answer(model, captions, asked[:1] * 4, GREEDY) == together[:1] * 4


def test_answers_come_as_soon_as_they_are_done():
    """Not all at the end of the job."""
    model = tiny.parrot_answerer([tiny.token(piece) for piece in ("a", "b", "###")])
    short = (np.zeros((1, tiny.MERT.hidden_size), np.float32), "How?")
    each = answer_each(model, tiny.PROMPT, [short] * 9, GREEDY)
    assert next(each)[1] == ("ab", False)
    assert sorted(index for index, _ in each) == list(range(1, 9))


@WAYS
@pytest.mark.parametrize(
    ("pieces", "is_cut"),
    [
        (("a", "b"), True),
        (("a", "###"), False),
        (("a", "b", "c", "d", "e", "###"), False),  # Its end is the last that fits.
        (("a", "b", "c", "d", "e", "f", "###"), True),
    ],
)
def test_an_answer_that_has_not_ended_is_marked(config, pieces, is_cut):
    model = tiny.parrot_answerer([tiny.token(piece) for piece in pieces])
    config = dataclasses.replace(config, max_new_tokens=6)
    request = (np.zeros((1, tiny.MERT.hidden_size), np.float32), "How?")
    ((_, found),) = answer_each(model, tiny.PROMPT, [request], config)
    assert found.is_cut == is_cut

    def told():
        marks.append((yield from stream(model, tiny.PROMPT, request, config)))

    marks = []
    assert "".join(told()) == found.text
    assert marks == [is_cut]


@WAYS
def test_streamed_pieces_are_the_answer(config):
    model = tiny.answerer()
    for request in tiny.requests(2):
        pieces = list(stream(model, tiny.PROMPT, request, config))
        (whole,) = answer(model, tiny.PROMPT, [request], config)
        assert "".join(pieces) == whole
        assert all(pieces)
        assert (len(pieces) > 1) == (config.beams == 1)


def test_a_stream_cuts_no_letter_and_shows_no_stop_text():
    table = {text: token for token, text in tiny.tokenizer().texts.items() if text}
    script = [table[bytes([byte])] for byte in "♪#é".encode()] + [tiny.token("###")]
    model = tiny.parrot_answerer(script)
    request = (np.zeros((1, tiny.MERT.hidden_size), np.float32), "How?")
    pieces = list(stream(model, tiny.PROMPT, request, GREEDY))
    assert "".join(pieces) == "♪#é"
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_other_texts_may_end_an_answer():
    pieces = ("a", "b", "c", "###")
    model = tiny.parrot_answerer([tiny.token(piece) for piece in pieces])
    request = (np.zeros((1, tiny.MERT.hidden_size), np.float32), "How?")
    stop = dataclasses.replace(GREEDY, stop=("x", "bc"))
    assert answer(model, tiny.PROMPT, [request], stop) == ["a"]
    assert answer(model, tiny.PROMPT, [request], GREEDY) == ["abc"]


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
        {"stopping": "any_beam"},
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
    wrong = r"^config\.generate\.stop is 'Human:': it must be a list, each entry text"
    with pytest.raises(UserError, match=wrong):
        GenerateConfig.from_config(config)
    config.generate = {"max_new_tokens": 6, "beems": 4}
    with pytest.raises(UserError, match=r"config\.generate.*beems.*misspelt"):
        GenerateConfig.from_config(config)


def test_an_adapter_for_another_language_model_is_refused(folder):
    weights.save_adapter(
        Parts(bridge=tiny.adapter(24)),
        folder / "other",
        dtype=np.float32,
        window_frames=10,
        trained_with=None,
    )
    with pytest.raises(UserError, match=r"width 24.*reads 32"):
        load(folder, adapter="other")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_new_tokens": 2_000_000_000}, "max_new_tokens is 2000000000, after up"),
        ({"max_new_tokens": 2_040}, "reads at most 2048 in all"),
        ({"beams": 100_000}, "beams is 100000, but .* knows only"),
    ],
)
def test_what_no_model_can_hold_is_refused_at_once(changes, message):
    config = dataclasses.replace(GREEDY, **changes)
    with pytest.raises(UserError, match=message):
        answer_each(tiny.answerer(), tiny.PROMPT, tiny.requests(1), config)
    with pytest.raises(UserError, match=message):
        next(stream(tiny.answerer(), tiny.PROMPT, tiny.requests(1)[0], config))


def test_the_context_is_that_of_the_language_model(folder, tmp_path):
    path = tmp_path / "language_model"
    shutil.copytree(folder / "language_model", path)
    (tmp_path / "adapter").symlink_to(folder / "adapter")
    assert context_of(str(path)) == 2048
    described = json.loads((path / "config.json").read_text())
    described["max_position_embeddings"] = 70
    (path / "config.json").write_text(json.dumps(described))
    assert context_of(str(path)) == 70
    with pytest.raises(UserError, match="at most 70 in all"):
        answer(load(tmp_path), tiny.PROMPT, tiny.requests(3), GREEDY)


@WAYS
def test_too_little_memory_is_one_sentence(config, monkeypatch):
    def allocate(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    for place in (row_batch, beam_search):
        monkeypatch.setattr(place, "pad", allocate)
    request = tiny.requests(1)
    with pytest.raises(UserError, match="too little memory for generate.batch_size"):
        answer(tiny.answerer(), tiny.PROMPT, request, config)
    with pytest.raises(UserError, match="too little memory for generate.batch_size"):
        list(stream(tiny.answerer(), tiny.PROMPT, request[0], config))


def test_a_question_that_ends_the_conversation_is_refused():
    with pytest.raises(
        UserError, match="'Is it jazz.###' contains '###'.*ask without it"
    ):
        check_question(tiny.PROMPT, "Is it jazz?###")
    check_question(tiny.PROMPT, "Is it in C##?")
    own = dataclasses.replace(tiny.PROMPT, end_sign=MODEL_END)
    check_question(own, f"Is it {MODEL_END}?")

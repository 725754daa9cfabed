"""Options are scored by the loss of training, whoever their neighbours are."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_model as tiny
from helpers.quick_jit import quick_jit

from musilingo_jax.answering.option_scores import (
    OptionRequest,
    OptionScore,
    score_options,
    shares,
)
from musilingo_jax.answering.prompts import encode
from musilingo_jax.models.answer_loss import Batch, answer_loss
from musilingo_jax.models.parts import Parts
from musilingo_jax.runtime.errors import UserError

pytestmark = pytest.mark.medium

# All begin with the same letter, which is no part of the score.
OPTIONS = ("rock", "reel on", "r&b.", "ra")


def requests():
    return [
        OptionRequest(features, question, OPTIONS[: 2 + number])
        for number, (features, question) in enumerate(tiny.requests(3))
    ]


@pytest.fixture(scope="module")
def scores():
    return score_options(tiny.answerer(), tiny.PROMPT, requests(), rows=2)


def training_loss(request, option):
    """Nats and tokens of an answer but its first letter, as training counts them."""
    windows = len(request.features)
    example = encode(tiny.tokenizer(), tiny.PROMPT, request.question, option, windows)
    targets = np.flatnonzero(example.target_mask)[1:]
    # One length for all, so that one program is compiled.
    time, answers, room = 96, 16, 4
    batch = Batch(
        features=jnp.asarray(
            np.pad(request.features, ((0, room - windows), (0, 0)))[None]
        ),
        tokens=jnp.asarray(np.pad(example.tokens, (0, time - len(example.tokens))))[
            None
        ],
        audio_slot=jnp.asarray(
            np.pad(
                example.audio_slot,
                (0, time - len(example.tokens)),
                constant_values=-1,
            )
        )[None],
        segments=jnp.asarray(np.arange(time) < len(example.tokens)).astype(int)[None],
        positions=jnp.arange(time)[None],
        targets=jnp.asarray(
            np.pad(targets, (0, answers - len(targets)), constant_values=-1)
        )[None],
    )
    nats, tokens = quick_jit(answer_loss, static_argnames="remat")(
        Parts(bridge=tiny.adapter(32)),
        Parts(llama=tiny.llama()),
        batch,
        remat="everything",
    )
    return float(nats), int(tokens)


def test_a_score_is_the_loss_of_training(scores):
    assert [len(each) for each in scores] == [2, 3, 4]
    for request, each in zip(requests(), scores, strict=True):
        for option, score in zip(request.options, each, strict=True):
            nats, tokens = training_loss(request, option)
            assert score.tokens == tokens > 1
            assert score.nats == pytest.approx(nats, rel=1e-4)


def test_neighbours_and_order_change_nothing(scores):
    (alone,) = score_options(
        tiny.answerer(),
        tiny.PROMPT,
        [requests()[2]._replace(options=OPTIONS[::-1])],
        rows=2,
    )
    expected = [score.nats for score in scores[2][::-1]]
    np.testing.assert_allclose([s.nats for s in alone], expected, rtol=1e-5)


def test_shares_are_of_means_and_add_up_to_one():
    found = shares([OptionScore(2.0, 2), OptionScore(1.0, 1), OptionScore(9.0, 3)])
    assert found.sum() == pytest.approx(1)
    assert found[0] == found[1]
    assert found[2] / found[0] == pytest.approx(np.exp(-2))


def test_what_has_no_room_is_refused():
    small = dataclasses.replace(tiny.answerer(), context=40)
    with pytest.raises(UserError, match="leaves no room for an option of up to"):
        score_options(small, tiny.PROMPT, requests(), rows=2)
    long = [requests()[0]._replace(options=("a", "la " * 40))]
    with pytest.raises(UserError, match="is longer than any answer in training"):
        score_options(tiny.answerer(), tiny.PROMPT, long, rows=2)
    assert score_options(tiny.answerer(), tiny.PROMPT, [], rows=2) == []


def test_an_option_that_says_nothing_new_is_refused():
    alike = [requests()[0]._replace(options=("rock", "rock"))]
    with pytest.raises(UserError, match="are the same to the language model, or one"):
        score_options(tiny.answerer(), tiny.PROMPT, alike, rows=2)

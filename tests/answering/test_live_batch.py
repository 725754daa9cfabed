"""Requests that join a running batch, and leave it, at any time."""

import dataclasses
import random
import threading
import time

import jax
import numpy as np
import pytest
from helpers import tiny_model as tiny

from musilingo_jax.answering import row_batch
from musilingo_jax.answering.answer import (
    answer_each,
    prompt_tokens,
    seed_of,
    stop_texts_of,
)
from musilingo_jax.answering.live_batch import LiveBatch, QueueFull
from musilingo_jax.runtime.errors import UserError

pytestmark = pytest.mark.medium

GREEDY = tiny.GREEDY


def live(*, model=None, rows=4, queue=64, most=12) -> LiveBatch:
    return LiveBatch(
        model or tiny.answerer(),
        rows=rows,
        windows=4,
        slots=96,
        max_new_tokens=most,
        queue=queue,
    )


def submit(batch, request, config):
    (features, question), model = request, batch._answerer
    return batch.submit(
        prompt_tokens(model, tiny.PROMPT, features, question),
        decoding=config,
        stop_texts=stop_texts_of(tiny.PROMPT, config),
        seed=seed_of(config, features, question),
    )


def alone(request, config, model=None):
    ((_, found),) = answer_each(
        model or tiny.answerer(), tiny.PROMPT, [request], config
    )
    return found


CONFIGS = [
    GREEDY,
    dataclasses.replace(GREEDY, temperature=1.0, top_p=0.9, seed=7),
    dataclasses.replace(GREEDY, temperature=0.8, top_k=20, min_p=0.02, seed=3),
    dataclasses.replace(GREEDY, temperature=1.3, seed=2, max_new_tokens=5),
    dataclasses.replace(GREEDY, repetition_penalty=1.4, min_new_tokens=4),
    dataclasses.replace(GREEDY, temperature=1.0, stop=("i", "Q!", "1", "e")),
    dataclasses.replace(GREEDY, beams=2),
]


@pytest.fixture(scope="module")
def expected():
    """Requests with all kinds of settings, and the answer to each alone."""
    asked = [
        (request, CONFIGS[index % len(CONFIGS)])
        for index, request in enumerate(tiny.requests(14))
    ]
    return [(request, config, alone(request, config)) for request, config in asked]


def test_the_requests_of_this_test_differ(expected):
    texts = [found.text for *_, found in expected]
    assert len(set(texts)) > 10
    assert {found.is_cut for *_, found in expected} == {True, False}


@pytest.mark.quick("0")
@pytest.mark.parametrize("seed", range(3))
def test_answers_are_those_to_each_request_alone(expected, seed):
    """Whoever comes when, with whatever settings, and whoever leaves."""
    order = expected * 2
    random.Random(seed).shuffle(order)
    batch, found = live(), {}

    def client(number, request, config):
        wait = random.Random(f"{seed} {number}")
        time.sleep(0.2 * wait.random())
        pending = submit(batch, request, config)
        if number % 5 == 0:  # Reads a little, and leaves.
            next(pending.pieces(), "")
            pending.cancel()
        elif number % 2:
            found[number] = "".join(pending.pieces())
        else:
            found[number] = pending.answer(timeout=600)

    threads = [
        threading.Thread(target=client, args=(number, request, config))
        for number, (request, config, _) in enumerate(order)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    batch.close(None)
    for number, (_, _, right) in enumerate(order):
        if number % 5:
            assert found[number] == (right.text if number % 2 else right)
    assert batch.load == (0, 0)


def test_what_is_counted_and_why_answers_end():
    script = [tiny.token(piece) for piece in ("a", "b", "c", "###")]
    batch = live(model=tiny.parrot_answerer(script))
    request = (np.zeros((1, tiny.MERT.hidden_size), np.float32), "How?")
    whole = submit(batch, request, GREEDY)
    assert whole.answer() == ("abc", False)
    assert (whole.finish, whole.answer_tokens) == ("stop", 4)
    prompt = prompt_tokens(tiny.answerer(), tiny.PROMPT, *request)
    assert whole.prompt_tokens == len(prompt.tokens)
    cut = submit(batch, request, dataclasses.replace(GREEDY, max_new_tokens=2))
    assert cut.answer() == ("ab", True)
    assert (cut.finish, cut.answer_tokens) == ("length", 2)
    other = submit(batch, request, dataclasses.replace(GREEDY, stop=("b",)))
    assert other.answer() == ("a", False)
    assert other.finish == "stop"
    batch.close()


ENDLESS = dataclasses.replace(GREEDY, min_new_tokens=3_999, max_new_tokens=4_000)


def endless_batch(rows=1, queue=1) -> LiveBatch:
    return LiveBatch(
        tiny.answerer(),
        rows=rows,
        windows=4,
        slots=4_200,
        max_new_tokens=4_000,
        queue=queue,
    )


def test_a_cancelled_request_frees_its_row():
    batch = endless_batch(queue=2)
    running, waiting, last = (
        submit(batch, request, config)
        for request, config in zip(
            tiny.requests(3), [ENDLESS, ENDLESS, GREEDY], strict=True
        )
    )
    pieces = running.pieces()
    next(pieces)
    waiting.cancel()
    assert waiting.answer(timeout=60).text == "" and waiting.finish == "cancelled"
    pieces.close()  # Nobody reads on.
    assert last.answer(timeout=60) == alone(tiny.requests(3)[2], GREEDY)
    assert running.finish == "cancelled" and running.answer().is_cut
    batch.close()


def test_a_full_queue_refuses():
    batch = endless_batch(rows=1, queue=1)
    request = tiny.requests(1)[0]
    running, waiting = (submit(batch, request, ENDLESS) for _ in range(2))
    with pytest.raises(QueueFull, match="1 requests wait already"):
        next(running.pieces())
        submit(batch, request, GREEDY)
    assert batch.load == (1, 1)
    with pytest.raises(TimeoutError):
        waiting.answer(timeout=0.01)
    batch.close(timeout=0.05)
    assert {running.finish, waiting.finish} == {"cancelled"}
    with pytest.raises(RuntimeError, match="closed"):
        submit(batch, request, GREEDY)


def test_closing_lets_answers_finish():
    batch = live()
    asked = tiny.requests(9)
    pending = [submit(batch, request, GREEDY) for request in asked]
    batch.close(None)
    assert all(one.finish for one in pending)
    assert [one.answer(0) for one in pending] == [alone(r, GREEDY) for r in asked]


def test_an_error_reaches_everybody_and_the_next_request_is_answered(monkeypatch):
    batch, asked = live(), tiny.requests(9)

    def fail(*_, **__):
        time.sleep(0.2)  # Until all of them wait.
        raise ValueError("a bug")

    with monkeypatch.context() as broken:
        broken.setattr(row_batch, "decode", fail)
        pending = [submit(batch, request, GREEDY) for request in asked]
        for one in pending:
            with pytest.raises(RuntimeError, match="has failed") as raised:
                one.answer(timeout=60)
            assert str(raised.value.__cause__) == "a bug"
        with pytest.raises(RuntimeError, match="has failed"):
            list(pending[0].pieces())
    assert submit(batch, asked[0], GREEDY).answer(60) == alone(asked[0], GREEDY)
    batch.close()


def test_too_little_memory_is_one_sentence(monkeypatch):
    def allocate(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(row_batch, "pad", allocate)
    batch = live()
    pending = submit(batch, tiny.requests(1)[0], GREEDY)
    with pytest.raises(UserError, match="too little memory for 4 rows of 96 tokens"):
        pending.answer(60)
    batch.close()


def test_what_has_no_room_is_refused_at_once():
    batch, request = live(), tiny.requests(1)[0]
    longer = dataclasses.replace(GREEDY, max_new_tokens=13)
    with pytest.raises(UserError, match="max_new_tokens is 13, .* room for 12"):
        submit(batch, request, longer)
    with pytest.raises(UserError, match="room for 96 in all"):
        submit(batch, (request[0], "why " * 30), GREEDY)
    stop = dataclasses.replace(GREEDY, stop=("x" * 200,))
    with pytest.raises(UserError, match="too long together"):
        submit(batch, request, stop)
    assert batch.load == (0, 0)


def test_settings_compile_nothing():
    """Another temperature, stop text or length is a number of the same programs."""
    batch, asked = live(), tiny.requests(6)
    drawn = dataclasses.replace(GREEDY, temperature=0.7, top_p=0.9)
    submit(batch, asked[0], drawn).answer(60)
    programs = (row_batch.admit, row_batch.decode)
    before = [program._cache_size() for program in programs]
    for number, request in enumerate(asked):
        config = dataclasses.replace(
            drawn,
            temperature=0.5 + number / 7,
            top_k=number,
            stop=("abc"[: number % 4 + 1],),
            max_new_tokens=6 + number,
        )
        submit(batch, request, config).answer(60)
    assert [program._cache_size() for program in programs] == before
    batch.close()


def test_the_thread_ends_with_the_work():
    batch = live()
    submit(batch, tiny.requests(1)[0], GREEDY).answer(60)
    end = time.monotonic() + 10
    while batch._thread is not None and time.monotonic() < end:
        time.sleep(0.01)
    assert batch._thread is None

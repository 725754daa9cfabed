"""`/v1/chat/completions`."""

import asyncio
import contextlib
import json
import secrets
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

import musilingo_jax
from musilingo_jax.answering.excerpt import Excerpt
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.serve import answers, conversations, sounds
from musilingo_jax.serve.answers import Asked
from musilingo_jax.serve.conversations import Placed
from musilingo_jax.serve.errors import Refusal
from musilingo_jax.serve.protocol import ChatRequest
from musilingo_jax.serve.state import State

T = TypeVar("T")


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


async def complete(state: State, request: ChatRequest, http: Request) -> Response:
    """Answers a request, whole or as a stream of events.

    Raises:
      Refusal: it cannot be answered.
      UserError: the question cannot be asked.
    """
    state.check_model(request.model)
    began = time.monotonic()
    conversation = conversations.read(request.messages, most_songs=state.limits.songs)
    async with state.deadlines.limit(began):
        asked = await _until_left(http, _asked(state, conversation, request))
    if request.stream:
        # The response itself notices that its client has left.
        return StreamingResponse(
            _events(state, request, asked, began),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
    try:
        async with state.deadlines.limit(began):
            whole = await _until_left(http, _whole(state, request, asked, began))
    finally:
        asked.cancel()
    return JSONResponse(whole)


async def heard(state: State, placed: list[Placed]) -> list[Excerpt]:
    """What the model hears of songs.

    Raises:
      Refusal: one cannot be heard.
    """
    given_up = threading.Event()

    def hear() -> list[Excerpt]:
        excerpts = []
        for one in placed:
            sound = sounds.content(
                one, allowed_hosts=state.allowed_hosts, limits=state.limits
            )
            excerpt = state.hearing.excerpt(sound, one, given_up.is_set)
            if excerpt is None:
                raise ClientLeft
            excerpts.append(excerpt)
        return excerpts

    try:
        return await state.in_thread(hear)
    finally:
        given_up.set()


async def _asked(
    state: State, conversation: conversations.Conversation, request: ChatRequest
) -> Asked:
    began = time.monotonic()
    songs = await heard(state, list(conversation.songs))
    state.metrics.hearing.observe(time.monotonic() - began)
    # Not in a thread, which could go on asking after its request was cancelled.
    return answers.ask(state.engine, conversation, songs, request)


async def _whole(
    state: State, request: ChatRequest, asked: Asked, began: float
) -> dict[str, Any]:
    texts = [""] * len(asked.pending)
    ends = [""] * len(asked.pending)
    async for piece in _counted(state, asked, began, stream=False):
        texts[piece.choice] += piece.text
        ends[piece.choice] = piece.finish or ""
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            "finish_reason": end,
        }
        for index, (text, end) in enumerate(zip(texts, ends, strict=True))
    ]
    return {
        **_head(request, "chat.completion"),
        "choices": choices,
        "usage": asked.usage,
        "notes": asked.notes,
    }


async def _events(
    state: State, request: ChatRequest, asked: Asked, began: float
) -> AsyncIterator[str]:
    """The answers as server-sent events, `[DONE]` at their end.

    What goes wrong after the first event is an event, too.
    """
    head = _head(request, "chat.completion.chunk")
    options = request.stream_options
    shows_usage = options is not None and options.include_usage

    def event(choices: list[dict[str, Any]], usage: Any = None, **more: Any) -> str:
        chunk = {**head, "choices": choices, **more}
        if shows_usage:
            chunk["usage"] = usage
        return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"

    def choice(index: int, delta: dict[str, str], finish: str | None) -> dict[str, Any]:
        return {
            "index": index,
            "delta": delta,
            "logprobs": None,
            "finish_reason": finish,
        }

    try:
        async with state.deadlines.limit(began):
            for index in range(len(asked.pending)):
                first = {"role": "assistant", "content": ""}
                yield event([choice(index, first, None)])
            async for piece in _counted(state, asked, began, stream=True):
                if piece.finish is None:
                    delta = {"content": piece.text}
                    yield event([choice(piece.choice, delta, None)])
                else:
                    end = choice(piece.choice, {}, piece.finish)
                    yield event([end], notes=asked.notes)
            if shows_usage:
                yield event([], asked.usage)
    except Refusal as refusal:
        yield f"data: {json.dumps(refusal.body)}\n\n"
    except UserError as error:
        yield f"data: {json.dumps(Refusal(500, str(error)).body)}\n\n"
    finally:
        asked.cancel()
    yield "data: [DONE]\n\n"


async def _counted(
    state: State, asked: Asked, began: float, *, stream: bool
) -> AsyncGenerator[answers.Piece]:
    """The pieces, with what is counted of them."""
    metrics, first = state.metrics, True
    ended = 0
    metrics.running.inc(len(asked.pending))
    try:
        arriving = answers.pieces(asked, state.threads, stream=stream)
        async with contextlib.aclosing(arriving):
            async for piece in arriving:
                if first:
                    metrics.first_piece.observe(time.monotonic() - began)
                    first = False
                if piece.finish is not None:
                    ended += 1
                    metrics.answers.labels(piece.finish).inc()
                yield piece
        metrics.whole.observe(time.monotonic() - began)
    finally:
        metrics.running.dec(len(asked.pending))
        metrics.answers.labels("cancelled").inc(len(asked.pending) - ended)
        metrics.tokens.labels("prompt").inc(asked.usage["prompt_tokens"])
        metrics.tokens.labels("answer").inc(asked.usage["completion_tokens"])


async def _until_left(http: Request, work: Awaitable[T]) -> T:
    """The result of some work, unless its client leaves before.

    Raises:
      ClientLeft: it has.
    """

    async def left() -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(left())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeft
        return task.result()
    finally:
        for other in (task, watch):
            other.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


def _head(request: ChatRequest, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": request.model,
        "system_fingerprint": f"musilingo_jax-{musilingo_jax.__version__}",
    }

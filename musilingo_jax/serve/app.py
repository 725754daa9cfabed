"""The application: which path does what."""

from collections.abc import AsyncIterator, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp

import musilingo_jax
from musilingo_jax.serve import chat_api, embeddings_api, replies
from musilingo_jax.serve.deadlines import Deadlines
from musilingo_jax.serve.engine import Engine
from musilingo_jax.serve.errors import add_handlers
from musilingo_jax.serve.gate import Gate
from musilingo_jax.serve.hearing import Hearing
from musilingo_jax.serve.limits import Limits
from musilingo_jax.serve.metrics import CONTENT_TYPE, Counted, Metrics
from musilingo_jax.serve.protocol import ChatRequest, EmbeddingsRequest
from musilingo_jax.serve.state import State

# Threads besides those that wait for answers: they decode and fetch songs.
_OTHER_THREADS = 16
_REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": replies.Error, "description": "The request is refused."},
    "5XX": {"model": replies.Error, "description": "The server failed, or is ending."},
}
_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "model": replies.Completion,
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
        "description": "The answers, or with `stream` the events that make them.",
    }
}


@dataclass(frozen=True)
class Server:
    """A server that is not yet bound to an address.

    Attributes:
      application: for uvicorn.
      state: what its requests share.
    """

    application: ASGIApp
    state: State


def make(
    engine: Engine,
    limits: Limits,
    *,
    rows: int,
    key: str | None = None,
    loopback_only: bool = True,
    allowed_hosts: Collection[str] = (),
) -> Server:
    """The server of a model.

    Args:
      engine: the model.
      limits: of requests.
      rows: questions that are answered at the same time.
      key: that clients must show; None for none.
      loopback_only: whether requests must name this machine, see `gate.Gate`.
      allowed_hosts: from which songs are fetched.
    """
    state = State(
        engine=engine,
        limits=limits,
        allowed_hosts=allowed_hosts,
        metrics=Metrics(),
        hearing=Hearing(engine, limits),
        deadlines=Deadlines(limits.answer_seconds, limits.shutdown_seconds),
        threads=ThreadPoolExecutor(
            rows + limits.queue + _OTHER_THREADS, thread_name_prefix="request"
        ),
    )
    gate = Gate(_application(state), limits, key=key, loopback_only=loopback_only)
    return Server(Counted(gate, state.metrics), state)


def _application(state: State) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        state.threads.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(
        title="musilingo_jax",
        version=musilingo_jax.__version__,
        description="Questions about songs, in the protocol of OpenAI.",
        lifespan=lifespan,
        # Their pages load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
        responses=_REFUSALS,
    )
    add_handlers(app)

    @app.get("/healthz")
    async def health(response: Response) -> replies.Health:
        """Whether the server takes questions."""
        status = "ok" if state.is_warm else "warming"
        status = "ending" if state.deadlines.ending else status
        response.status_code = 200 if status == "ok" else 503
        return {"status": status, "model": state.engine.name}

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """What Prometheus reads."""
        return Response(state.metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/v1/models")
    async def models() -> replies.Models:
        """The model, as a list of one."""
        return {"object": "list", "data": [_described(state)]}

    @app.get("/v1/models/{model:path}")
    async def model(model: str) -> replies.Model:
        """The model."""
        state.check_model(model)
        return _described(state)

    @app.post(
        "/v1/chat/completions", response_model=None, responses=_STREAMED | _REFUSALS
    )
    async def chat(request: ChatRequest, http: Request) -> Response:
        """Answers a question about songs."""
        state.check_warm()
        return await chat_api.complete(state, request, http)

    @app.post("/v1/embeddings")
    async def embeddings(request: EmbeddingsRequest) -> replies.Embeddings:
        """One vector for each song."""
        state.check_warm()
        return await embeddings_api.embed(state, request)

    @app.exception_handler(chat_api.ClientLeft)
    async def forget(request: Request, error: Exception) -> Response:
        # Nobody reads it; the status is that of nginx for this.
        return Response(status_code=499)

    return app


def _described(state: State) -> replies.Model:
    return {
        "id": state.engine.name,
        "object": "model",
        "created": state.created,
        "owned_by": "musilingo_jax",
    }

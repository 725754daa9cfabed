"""Refusals in the protocol's own form.

As in: {"error": {"message": "…", "type": "invalid_request_error", "param": "messages",
"code": "no_song"}}.
"""

import re
import traceback
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import one_line, print_note

# Status → the protocol's word for its kind.
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    408: "timeout_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    503: "server_error",
    504: "timeout_error",
}
# Kinds of messages and parts, and a name of a field, in the places of errors.
_KINDS = {
    "system",
    "developer",
    "user",
    "assistant",
    "text",
    "input_audio",
    "audio_url",
}
_NAME = re.compile(r"(?!(?:str|int|float|list|none)$)\w+$")
# Longer values of a request are not repeated in a message.
_MOST_QUOTED = 60


class Refusal(Exception):
    """A request that is not answered, and why.

    Attributes:
      status: of HTTP.
      message: one sentence.
      param: the part of the request that is wrong; None if it is no part.
      code: a word that programs can compare; None for none.
      retry_after: seconds after which the same request may succeed; None if never.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ):
        super().__init__(message)
        self.status, self.message = status, one_line(message)
        self.param, self.code, self.retry_after = param, code, retry_after

    @property
    def body(self) -> dict[str, Any]:
        """What the client gets."""
        kind = _TYPES.get(
            self.status,
            "invalid_request_error" if self.status < 500 else "server_error",
        )
        return {
            "error": {
                "message": self.message,
                "type": kind,
                "param": self.param,
                "code": self.code,
            }
        }

    @property
    def headers(self) -> Mapping[str, str]:
        """Besides those of every answer."""
        found = {}
        if self.retry_after is not None:
            found["Retry-After"] = str(self.retry_after)
        if self.status == 401:
            found["WWW-Authenticate"] = "Bearer"
        return found

    def response(self) -> JSONResponse:
        """The answer that refuses."""
        return JSONResponse(self.body, self.status, headers=self.headers)


def add_handlers(app: FastAPI) -> None:
    """Makes every error of an application one of the protocol."""

    @app.exception_handler(Refusal)
    async def refuse(request: Request, refusal: Exception) -> JSONResponse:
        assert isinstance(refusal, Refusal)
        return refusal.response()

    @app.exception_handler(UserError)
    async def explain(request: Request, error: Exception) -> JSONResponse:
        return Refusal(400, str(error)).response()

    @app.exception_handler(RequestValidationError)
    async def point_out(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return _of_validation(error.errors()).response()

    @app.exception_handler(HTTPException)
    async def translate(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        refusal = Refusal(error.status_code, _of_http(request, error))
        headers = {**(error.headers or {}), **refusal.headers}
        return JSONResponse(refusal.body, refusal.status, headers=headers)

    app.add_middleware(Admitted)


class Admitted:
    """An application whose faults are answered, and printed with their tracebacks.

    A framework's own handler of all exceptions raises them again, and the connection is
    lost with them.
    """

    def __init__(self, app: ASGIApp):
        self._application = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        started = False

        async def noticed(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._application(scope, receive, noticed)
        except Exception as error:
            if started:
                raise
            print_note("".join(traceback.format_exception(error)).rstrip())
            message = "the server failed at this request; its log says where"
            await Refusal(500, message).response()(scope, receive, send)


def _of_http(request: Request, error: HTTPException) -> str:
    place = f"{request.method} {request.url.path[:_MOST_QUOTED]}"
    if error.status_code == 404:
        return f"there is no {place}: see /openapi.json for what there is"
    if error.status_code == 405:
        return f"{place} is not possible here: see /openapi.json for what is"
    if error.status_code == 400:
        return "the body cannot be parsed as JSON"
    return str(error.detail)


def _of_validation(errors: Any) -> Refusal:
    """What is wrong with a request, as a sentence.

    Where a value may be of several kinds, each kind has its errors: those that lie
    deepest are of the kind that was meant.
    """
    error = max(errors, key=lambda error: len(error["loc"]))
    param = _param(error["loc"])
    if error["type"] == "json_invalid":
        reason = error.get("ctx", {}).get("error", "it ends early")
        return Refusal(400, f"the body is not JSON: {reason}", code="invalid_json")
    if not param:
        return Refusal(
            400,
            "the request has no JSON object as its body: send one, with the header "
            "Content-Type: application/json",
            code="invalid_json",
        )
    if error["type"] == "extra_forbidden":
        message = f"{param} is not a parameter that this server knows: leave it out"
        return Refusal(400, message, param=param, code="unknown_parameter")
    if error["type"] == "missing":
        message = f"{param} is missing"
        return Refusal(400, message, param=param, code="missing_parameter")
    if error["type"] == "union_tag_invalid":
        context = error["ctx"]
        message = f"{param} is of {context['tag']!r}: possible are "
        message += context["expected_tags"]
        return Refusal(400, message, param=param, code="invalid_value")
    reason = error["msg"].removeprefix("Value error, ")
    reason = reason[:1].lower() + reason[1:]
    # Pydantic's words for what it does to lists.
    reason = reason.partition(" after validation")[0]
    message = f"{param}{_quoted(error.get('input'))}: {reason}"
    return Refusal(400, message, param=param, code="invalid_value")


def _quoted(value: Any) -> str:
    """The value, if it is short enough to be read."""
    if isinstance(value, dict | list) or len(str(value)) > _MOST_QUOTED:
        return ""
    return f" is {value!r}"


def _param(place: tuple[str | int, ...]) -> str:
    """The part of a request that an error is about.

        ("body", "messages", 0, "user", "content", "constrained-str")
        messages[0].content

    What is left out names the alternative that was taken of several kinds of values: it
    follows the number of a message or part, or is no name.
    """
    text = ""
    for before, word in zip(place, place[1:], strict=False):
        if isinstance(word, int):
            text += f"[{word}]"
        elif not (isinstance(before, int) and word in _KINDS) and _NAME.match(word):
            text += f".{word}" if text else word
    return text

"""What every request passes before its body is read, and while it is.

    host   →   key   →   rate   →   size   →   body, in time   →   application

It is an ASGI application around another one: the frameworks inside get a body that is
whole and not too long.
"""

import asyncio
import contextlib
import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from musilingo_jax.runtime.listening import LOOPBACK
from musilingo_jax.serve import keys
from musilingo_jax.serve.errors import Refusal
from musilingo_jax.serve.limits import Limits
from musilingo_jax.serve.rates import Rates

_LOOPBACK_HOSTS = {*LOOPBACK, "[::1]"}
# Seconds for which the body of a refused request is read.
_PATIENCE = 5.0
# What a program that watches the server may ask without the key.
_OPEN = ("/healthz",)


class Gate:
    """Lets requests pass that are allowed, with their bodies."""

    def __init__(
        self,
        application: ASGIApp,
        limits: Limits,
        *,
        key: str | None,
        loopback_only: bool,
    ):
        """Encloses an application.

        Args:
          application: that answers.
          limits: of sizes, times and rates.
          key: that clients must show; None for none.
          loopback_only: whether the server is for this machine. Then requests must name
            it as such: a page of another site whose name was made to point here cannot.
        """
        self._application, self._limits, self._key = application, limits, key
        self._loopback_only = loopback_only
        self._rates = Rates(limits.requests_per_minute)
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses it."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        held, more = 0, True
        try:
            headers = {name.lower(): value for name, value in scope["headers"]}
            self._check(scope, headers)
            limits = self._limits
            announced = _announced(headers)
            if announced > limits.body_bytes:
                raise _too_long(limits)
            chunks: list[bytes] = []
            try:
                async with asyncio.timeout(limits.body_seconds):
                    while more:
                        message = await receive()
                        if message["type"] == "http.disconnect":
                            return
                        chunk = message.get("body", b"")
                        held += len(chunk)
                        self._held += len(chunk)
                        more = message.get("more_body", False)
                        if held > limits.body_bytes:
                            raise _too_long(limits)
                        if self._held > limits.held_bytes:
                            raise Refusal(
                                429,
                                "the server is reading as many songs as it has memory "
                                "for: try again",
                                code="busy",
                                retry_after=2,
                            )
                        chunks.append(chunk)
            except TimeoutError as error:
                more = False
                raise Refusal(
                    408,
                    f"the request took longer than {limits.body_seconds:g} s to "
                    "arrive: send smaller songs",
                    code="slow_upload",
                ) from error
            body = b"".join(chunks)
            del chunks
            await self._application(scope, _replay(body, receive), send)
        except Refusal as refusal:
            if more:
                await self._discard(receive)
            await _send(refusal, send)
        finally:
            self._held -= held

    async def _discard(self, receive: Receive) -> None:
        """Reads on for a while: clients look for an answer after they have sent all."""
        left = 2 * self._limits.body_bytes
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(_PATIENCE, self._limits.body_seconds)):
                more = True
                while more and left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    more = message.get("more_body", False)

    def _check(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Checks what is known before the body.

        Raises:
          Refusal: the request may not pass.
        """
        if self._loopback_only:
            host = headers.get(b"host", b"").decode("latin-1").lower()
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name not in _LOOPBACK_HOSTS:
                raise Refusal(
                    403,
                    "this server is for its own machine: call it localhost, or start "
                    "it with --host",
                    code="wrong_host",
                )
        if scope["path"] in _OPEN:
            return
        if self._key is not None:
            header = headers.get(b"authorization", b"").decode("latin-1")
            if not keys.matches(self._key, header):
                raise Refusal(
                    401,
                    "the API key is missing or wrong: send Authorization: Bearer KEY",
                    code="invalid_api_key",
                )
        wait = self._rates.wait((scope.get("client") or ("", 0))[0])
        if wait:
            raise Refusal(
                429,
                f"more than {self._limits.requests_per_minute} requests in a minute "
                f"from this address: try again in {wait} s",
                code="rate_limit_exceeded",
                retry_after=wait,
            )


def _announced(headers: dict[bytes, bytes]) -> int:
    """The length of the body by its header; 0 if it is sent in pieces."""
    length = headers.get(b"content-length", b"0")
    return int(length) if length.isdigit() else 0


def _too_long(limits: Limits) -> Refusal:
    return Refusal(
        413,
        f"the request is longer than {limits.body_bytes / 2**20:g} MiB: send shorter "
        "songs, or as MP3, Ogg or FLAC",
        code="too_large",
    )


def _replay(body: bytes, receive: Receive) -> Receive:
    """Gives the body once, and then what comes after it: that the client has left."""
    given = False

    async def replay() -> Message:
        nonlocal given, body
        if given:
            return await receive()
        given, whole, body = True, body, b""
        return {"type": "http.request", "body": whole, "more_body": False}

    return replay


async def _send(refusal: Refusal, send: Send) -> None:
    """Answers, and closes the connection: the rest of the body is not read."""
    body = json.dumps(refusal.body).encode()
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        **refusal.headers,
    }
    encoded = [(k.lower().encode(), v.encode("latin-1")) for k, v in headers.items()]
    await send(
        {"type": "http.response.start", "status": refusal.status, "headers": encoded}
    )
    await send({"type": "http.response.body", "body": body})

"""One request to an endpoint and its reply, with what a failure means.

    Again       408, 409, 425, 429, 5xx; a connection that breaks, stalls or takes too
                long; a body that is no completion
    Refused     400, 413, 422 and others: this request cannot succeed
    Hopeless    401, 402, 403, 404, 405, a redirection: no request can

Redirections are not followed, as the key is for one host and no other.
"""

import contextlib
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, NoReturn

from musilingo_jax.instruction.making import Said
from musilingo_jax.instruction.replies import whole_letters
from musilingo_jax.instruction.retry_after import seconds_of
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import parse_json
from musilingo_jax.runtime.printable import one_line

_LARGEST_BODY = 1 << 24
_AGAIN = {408, 409, 425, 429, *range(500, 600)}
_HOPELESS = {401, 402, 403, 404, 405, *range(300, 400)}


class Refused(Exception):
    """This request cannot succeed."""


class Hopeless(Exception):
    """No request can."""


class Again(Exception):
    """It may succeed later.

    Attributes:
      wish: seconds until then, if the server says so.
    """

    def __init__(self, problem: str, wish: float | None = None):
        """As an exception, with the wish."""
        super().__init__(problem)
        self.wish = wish


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    """A key is for one host and no other."""

    def redirect_request(self, *arguments: Any) -> None:
        """Follows none."""


_OPENER = urllib.request.build_opener(_NoRedirection)


def completion(
    url: str, headers: Mapping[str, str], body: Mapping[str, Any], *, timeout: float
) -> Said:
    """Sends a request, and reads what the model says.

    Args:
      url: of completions.
      headers: of the request.
      body: of the request.
      timeout: seconds for all of it.

    Raises:
      Refused: this request cannot succeed.
      Hopeless: no request can.
      Again: it may succeed later.
    """
    return _read(_exchange(url, dict(headers), json.dumps(body).encode(), timeout))


def _exchange(url: str, headers: dict[str, str], body: bytes, timeout: float) -> bytes:
    """Sends a request; returns the body of the reply.

    Raises:
      Refused, Hopeless, Again: there is none.
    """
    request = urllib.request.Request(url, body, headers, method="POST")
    deadline = time.monotonic() + timeout
    try:
        with contextlib.closing(_OPENER.open(request, timeout=timeout)) as reply:
            return _body(reply, deadline)
    except urllib.error.HTTPError as error:
        with error:
            _explain(error, deadline)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, TimeoutError):
            raise Again(f"no reply within {timeout:g} s") from error
        kind = type(reason).__name__
        raise Again(f"the connection failed ({kind}: {one_line(str(reason))})") from (
            error
        )


def _body(reply: Any, deadline: float) -> bytes:
    """The whole body.

    Raises:
      OSError, http.client.HTTPException: the connection broke.
      Again: it takes too long, or there is no end of it.
    """
    pieces, size = [], 0
    while piece := reply.read1(1 << 16):
        pieces.append(piece)
        size += len(piece)
        if size > _LARGEST_BODY:
            raise Again(f"the reply has more than {_LARGEST_BODY:,} bytes")
        if time.monotonic() > deadline:
            raise Again("the reply did not end in time")
    if getattr(reply, "length", None):  # Bytes that were promised, and did not come.
        raise http.client.IncompleteRead(b"".join(pieces), reply.length)
    return b"".join(pieces)


def _explain(error: urllib.error.HTTPError, deadline: float) -> NoReturn:
    """Turns a status into what follows from it.

    Raises:
      Refused, Hopeless, Again: as the status says.
    """
    body = b""
    with contextlib.suppress(OSError, http.client.HTTPException, Again):
        body = _body(error, deadline)
    said = one_line(body.decode(errors="replace"))[:200]
    problem = f"HTTP {error.code}" + (f": {said}" if said else "")
    if error.code in _HOPELESS:
        advice = "check --url, --model-name and --key-env"
        raise Hopeless(f"{problem} ({advice})") from error
    if error.code in _AGAIN:
        raise Again(problem, seconds_of(error.headers.get("Retry-After"))) from error
    raise Refused(problem) from error


def _read(body: bytes) -> Said:
    """What a completion says.

    Raises:
      Refused: the model did not want to say anything.
      Again: it is no completion.
    """
    try:
        content = parse_json(body, "the reply")
        choice = content["choices"][0]
        text, reason = choice["message"]["content"], choice.get("finish_reason")
    except (UserError, KeyError, TypeError, IndexError, AttributeError) as error:
        shown = one_line(body[:100].decode(errors="replace"))
        raise Again(f"the reply is no completion: {shown}") from error
    if text is None and reason in ("content_filter", "stop"):
        raise Refused(f"the endpoint gives no text (finish_reason {reason!r})")
    if not isinstance(text, str):
        raise Again("the reply is no completion: its content is not text")
    usage = content.get("usage")
    counts = [_count(usage, name) for name in ("prompt_tokens", "completion_tokens")]
    return Said(whole_letters(text), reason == "length", *counts)


def _count(usage: Any, name: str) -> int:
    """Tokens that a reply counts; 0 if it does not."""
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if type(count) is int and count >= 0 else 0

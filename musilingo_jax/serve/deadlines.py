"""How long requests may take; less at the end of the server."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from musilingo_jax.serve.errors import Refusal


class Deadlines:
    """The deadlines of the requests of one server, all in the thread of its loop."""

    def __init__(self, seconds: float, last_seconds: float):
        """No request yet.

        Args:
          seconds: that a request may take.
          last_seconds: that those may still take which the server's end finds.
        """
        self._seconds, self._last_seconds = seconds, last_seconds
        self._running: set[asyncio.Timeout] = set()
        self._end: float | None = None

    @property
    def ending(self) -> bool:
        """Whether the server is about to end."""
        return self._end is not None

    def hasten(self) -> None:
        """Begins the end of the server."""
        self._end = asyncio.get_running_loop().time() + self._last_seconds
        for timeout in self._running:
            timeout.reschedule(min(timeout.when() or self._end, self._end))

    @asynccontextmanager
    async def limit(self, began: float) -> AsyncIterator[None]:
        """Limits a block of a request.

        Args:
          began: when the request came, by `time.monotonic`.

        Raises:
          Refusal: the block took too long.
        """
        now = asyncio.get_running_loop().time()
        when = now + began + self._seconds - time.monotonic()
        timeout = asyncio.timeout_at(
            when if self._end is None else min(when, self._end)
        )
        self._running.add(timeout)
        try:
            async with timeout:
                yield
        except TimeoutError as error:
            raise self._refusal() from error
        finally:
            self._running.discard(timeout)

    def _refusal(self) -> Refusal:
        if self.ending:
            return Refusal(
                503,
                "the server ends, and there was no time for the rest of the answer: "
                "ask again in a while",
                code="server_ending",
                retry_after=30,
            )
        return Refusal(
            504,
            f"the answer took longer than {self._seconds:g} s, which is this server's "
            "limit: ask for fewer tokens, or less at a time",
            code="timeout",
        )

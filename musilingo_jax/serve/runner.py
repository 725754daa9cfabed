"""Runs a server until a signal ends it, or a test."""

import asyncio
import logging
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import uvicorn

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.serve.app import Server

# Seconds that a connection without a request stays open.
_KEEP_ALIVE = 15
_STARTING = 0.05


def bind(host: str, port: int) -> socket.socket:
    """A socket at an address, where clients wait from now on until they are answered.

    Raises:
      UserError: there is no such address on this machine, or its port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except UnicodeError as error:
        raise UserError(f"--host={host}: is no address") from error
    except OSError as error:
        raise UserError(f"--host={host}: is no address ({error.strerror})") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        # Else another program could take the same port until this one listens.
        bound.listen()
    except OSError as error:
        bound.close()
        raise UserError(
            f"{host}:{port} cannot be listened at ({error.strerror}): choose another "
            "--port"
        ) from error
    return bound


class Running:
    """A server at work in a thread of its own.

    Attributes:
      address: where it listens, such as "http://127.0.0.1:8000".
      state: what its requests share.
    """

    def __init__(self, server: Server, bound: socket.socket):
        """Starts to serve; returns when clients can connect.

        Args:
          server: the application.
          bound: of `bind`.
        """
        # Uvicorn's own notes are of its workings; its errors are of ours.
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        host, port = bound.getsockname()[:2]
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._server, self.state = server, server.state
        limits = server.state.limits
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                cast(Any, server.application),
                log_config=None,
                access_log=False,
                # Else a client on this machine could give itself any address.
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE,
                # Later than our own deadline, after which clients learn what happens.
                timeout_graceful_shutdown=math.ceil(limits.shutdown_seconds) + 2,
                ws="none",
            )
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        # Not in the main thread, whose signals uvicorn would take.
        self._thread = threading.Thread(
            target=self._run, args=(bound,), name="server", daemon=True
        )
        self._thread.start()
        while not self._uvicorn.started and self._thread.is_alive():
            self._thread.join(_STARTING)

    def _run(self, bound: socket.socket) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            await self._uvicorn.serve([bound])

        factory = self._uvicorn.config.get_loop_factory()
        with asyncio.Runner(loop_factory=factory) as loop:
            loop.run(serve())

    def wait(self, seconds: float) -> bool:
        """Waits; whether the server is still at work afterwards."""
        self._thread.join(seconds)
        return self._thread.is_alive()

    def stop(self) -> None:
        """Takes no more questions, finishes those there are, and ends."""
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._server.state.deadlines.hasten)
        self._uvicorn.should_exit = True
        self._thread.join()


@contextmanager
def running(server: Server, *, host: str, port: int) -> Iterator[Running]:
    """A server at work within a block.

    Raises:
      UserError: as in `bind`.
    """
    at_work = Running(server, bind(host, port))
    try:
        yield at_work
    finally:
        at_work.stop()

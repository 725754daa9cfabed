"""Ctrl-C and SIGTERM end a program in order: as the same exception, and for certain.

    in_order()   around a program. A signal raises `Told` where the program stands, so
                 that it also ends what waits: for a line, a download, a lock.
    at_steps()   around what takes long and calls `heed()` now and then. A signal is
                 remembered, and the next `heed()` raises `Told`. Libraries call us back
                 there from places where an exception is printed and forgotten.

The second signal within either is for whoever heeded signals before: within `at_steps`
that is `in_order`, around which it is Python, for which it ends the program at once.
"""

import gc
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Told(KeyboardInterrupt):
    """The program was told to end.

    Attributes:
      signal: SIGINT or SIGTERM.
      status: the exit status that the signal stands for: 130 or 143.
    """

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.signal = signal.Signals(number)
        self.status = 128 + number


# The signals that came and perhaps have not ended anything yet.
_told: list[int] = []


@contextmanager
def in_order() -> Iterator[None]:
    """Raises `Told` at the first Ctrl-C or SIGTERM, wherever the program stands."""
    with _caught(at_once=True):
        yield


@contextmanager
def at_steps() -> Iterator[None]:
    """Raises `Told` at the first `heed()` after a Ctrl-C or SIGTERM, or at the end.

    To be entered by the main thread, to which signals come. What is raised ends the
    body and no more: who catches it may go on, and is told anew of the next signal.
    """
    with _caught(at_once=False):
        yield
        heed()


def heed() -> None:
    """To be called now and then by whatever takes long.

    Raises:
      Told: the program was told to end, and has not.
    """
    if _told:
        raise Told(_told[0])


@contextmanager
def _caught(*, at_once: bool) -> Iterator[None]:
    before = {}

    def tell(number: int, frame: FrameType | None) -> None:
        _restore(before)
        _told.append(number)
        if at_once and not _forgets(frame):
            raise Told(number)

    for caught in (signal.SIGINT, signal.SIGTERM):
        before[caught] = signal.signal(caught, tell)
    try:
        yield
    finally:
        _told.clear()
        _restore(before)


def _forgets(frame: FrameType | None) -> bool:
    """Whether a frame is within a garbage collection.

    Python prints and forgets what is raised there; JAX has such a callback.
    """
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None:
        if frame.f_code in callbacks:
            return True
        frame = frame.f_back
    return False


def _restore(handlers: dict) -> None:
    for caught, handler in handlers.items():
        signal.signal(caught, handler)

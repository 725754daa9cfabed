"""Ctrl-C and SIGTERM end a program in order: as the same exception, and for certain."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Told(KeyboardInterrupt):
    """The program was told to end.

    Attributes:
      status: the exit status that the signal stands for: 130 or 143.
    """

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


# An exception that a signal raises within a callback of a library is printed and
# forgotten, so that it is remembered here.
_told: list[int] = []


@contextmanager
def in_order() -> Iterator[None]:
    """Raises `Told` at the first Ctrl-C or SIGTERM; a second one is as usual."""
    before = {}

    def tell(number: int, frame: FrameType | None) -> None:
        _restore(before)
        _told.append(number)
        raise Told(number)

    for caught in (signal.SIGINT, signal.SIGTERM):
        before[caught] = signal.signal(caught, tell)
    try:
        yield
    finally:
        _told.clear()
        _restore(before)


def heed() -> None:
    """To be called now and then by whatever takes long.

    Raises:
      Told: the program was told to end, and has not.
    """
    if _told:
        raise Told(_told[0])


def _restore(handlers: dict) -> None:
    for caught, handler in handlers.items():
        signal.signal(caught, handler)

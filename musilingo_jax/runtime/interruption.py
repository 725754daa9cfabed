"""Being told to stop: Ctrl-C at the keyboard, SIGTERM from a scheduler."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import jax

from musilingo_jax.runtime import distributed


class Interruption:
    """Remembers a signal until there is a good moment to heed it."""

    def __init__(self):
        self.signal: signal.Signals | None = None
        self.heeded = False

    def agreed(self, done: int) -> bool:
        """Whether all processes stop after this update.

        A signal reaches one process, or each at another update, but all must stop after
        the same one. They are never far apart: to start an update takes nothing but a
        batch, yet the loss of the one before is waited for, and it comes from all. So
        if one process is told after it has started update n, it tells the others to
        stop after n + 2, and they hear it in time:

            process 0   starts n, is told, says "n + 2"   starts n + 1, n + 2   stops
            process 1   has the loss of n + 1 only after process 0 started n + 1, hence
                        after it spoke; so it looks, at n + 2 at the latest, and stops

        The word goes by way of the coordinator, not of the devices, which never wait.
        It names the signal, so that all end with its status. One told at the last
        update of a stage stops with the others in the next stage, if there is one.

        Args:
          done: updates that are started, of all stages together, this one included;
            the loss of the one before must have been waited for.
        """
        self.heeded = self.signal is not None
        if jax.process_count() == 1:
            return self.heeded
        if self.heeded:
            distributed.propose("stop", f"{done + 2} {self.signal}")
        told = distributed.told("stop")
        if told is None:
            return False
        stop, number = map(int, told.split())
        self.signal, self.heeded = signal.Signals(number), True
        return done >= stop

    def exit(self) -> None:
        """Ends the program with the status that the signal would have given it."""
        distributed.finish()
        sys.exit(128 + self.signal)


@contextmanager
def told_to_stop() -> Iterator[Interruption]:
    """Catches the first Ctrl-C or SIGTERM; a second one ends the program at once.

    One that came too late to be heeded is sent again at the end, to whoever heeds it.
    """
    interruption = Interruption()
    before = {}

    def remember(number: int, frame: FrameType | None) -> None:
        interruption.signal = signal.Signals(number)
        for caught, handler in before.items():
            signal.signal(caught, handler)

    for caught in (signal.SIGINT, signal.SIGTERM):
        before[caught] = signal.signal(caught, remember)
    try:
        yield interruption
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)
    if interruption.signal is not None and not interruption.heeded:
        signal.raise_signal(interruption.signal)

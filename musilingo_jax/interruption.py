"""Being told to stop: Ctrl-C at the keyboard, SIGTERM from a scheduler."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import jax
import numpy as np
from jax.experimental import multihost_utils


class Interruption:
    """Remembers a signal until there is a good moment to heed it."""

    def __init__(self):
        self.signal: signal.Signals | None = None

    def agreed(self, step: int, *, every: int) -> bool:
        """Whether all processes stop after this step.

        A signal reaches each process at another step, but all must stop after the same
        one: several processes ask each other, though only every few steps.
        """
        if jax.process_count() == 1:
            return self.signal is not None
        if step % every:
            return False
        told = multihost_utils.process_allgather(np.array(self.signal is not None))
        return bool(told.any())

    def exit(self) -> None:
        """Ends the program with the status that the signal would have given it."""
        sys.exit(128 + (self.signal or signal.SIGTERM))


@contextmanager
def told_to_stop() -> Iterator[Interruption]:
    """Catches the first Ctrl-C or SIGTERM; a second one ends the program at once."""
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

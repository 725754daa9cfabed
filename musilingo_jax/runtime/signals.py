"""Ctrl-C and SIGTERM: raised, remembered until a check, or agreed on by all processes.

    raise_at_once()     around a program. A signal raises `Interrupted` wherever the
                        program is, so that it also ends what waits: for a line of
                        input, a download, a lock.
    raise_at_checks()   around long work that calls `check_signals()` now and then.
                        A signal is remembered, and the next check raises `Interrupted`.
                        For work during which a library calls us back from places where
                        Python prints an exception and ignores it.
    stop_request()      around a training loop, which asks `agreed(step)` after each
                        step and so stops after the same one in every process.

All three are one mechanism, `_first_signal`: the first signal within the block is
handled by it, and every later one by whoever handled signals before. So a second Ctrl-C
never waits: within `raise_at_checks` it goes to `raise_at_once` around it, and within
that to Python, which ends the program.
"""

import gc
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import jax

from musilingo_jax.runtime import distributed

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """The program was asked to end.

    Attributes:
      signal: SIGINT or SIGTERM.
      status: the exit status that belongs to the signal, 130 or 143.
    """

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.signal = signal.Signals(number)
        self.status = 128 + number


# Signals that arrived within a block and have perhaps not ended it yet.
_pending: list[int] = []


@contextmanager
def raise_at_once() -> Iterator[None]:
    """Raises `Interrupted` at the first Ctrl-C or SIGTERM, wherever the program is."""

    def react(number: int, frame: FrameType | None) -> None:
        _pending.append(number)
        if not _within_garbage_collection(frame):
            raise Interrupted(number)

    with _first_signal(react):
        try:
            yield
        finally:
            _pending.clear()


@contextmanager
def raise_at_checks() -> Iterator[None]:
    """Raises `Interrupted` at the first check after a Ctrl-C or SIGTERM, or at the end.

    Must be entered by the main thread, which is the one that receives signals. The
    exception ends the block only: whoever catches it may continue and is told of the
    next signal.
    """
    with _first_signal(lambda number, frame: _pending.append(number)):
        try:
            yield
            check_signals()
        finally:
            _pending.clear()


def check_signals() -> None:
    """Raises `Interrupted` if a signal arrived that has not ended the program yet."""
    if _pending:
        raise Interrupted(_pending[0])


class StopRequest:
    """A signal that a training loop has received, in this process or in another.

    Attributes:
      signal: SIGINT or SIGTERM, None as long as there is none.
      taken: whether the loop has acted on it.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None
        self.taken = False

    def agreed(self, done: int) -> bool:
        """Whether all processes stop after this update.

        A signal reaches one process, or each at another update, but all must stop after
        the same one. They are never far apart: starting an update takes nothing but a
        batch, yet every process waits for the loss of the update before, which comes
        from all of them. So a process that has a signal after starting update n
        proposes to stop after n + 2, and the others read that in time:

            process 0   starts n, has a signal, proposes n + 2, starts both, and stops
            process 1   has the loss of n + 1 only after process 0 started n + 1, which
                        is after the proposal; so it reads it at n + 2 at the latest

        The proposal goes through the coordinator's key-value store and not through the
        devices, so nothing waits for it. It names the signal, so that all exit with the
        same status. A signal at the last update of a stage stops all processes in the
        next stage, if there is one.

        Args:
          done: updates started so far, of all stages together, this one included; the
            loss of the one before must have been waited for.
        """
        self.taken = self.signal is not None
        if jax.process_count() == 1:
            return self.taken
        if self.taken:
            distributed.propose("stop", f"{done + 2} {self.signal}")
        proposal = distributed.told("stop")
        if proposal is None:
            return False
        stop, number = map(int, proposal.split())
        self.signal, self.taken = signal.Signals(number), True
        return done >= stop

    def exit(self) -> None:
        """Ends the program with the status that belongs to the signal.

        Raises:
          SystemExit: always, with status 130 or 143.
        """
        assert self.signal is not None
        distributed.finish()
        sys.exit(128 + self.signal)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Remembers the first Ctrl-C or SIGTERM; the second one ends the program at once.

    A signal that arrived too late to be acted on is sent again after the block.
    """
    request = StopRequest()

    def react(number: int, frame: FrameType | None) -> None:
        request.signal = signal.Signals(number)

    with _first_signal(react):
        yield request
    if request.signal is not None and not request.taken:
        signal.raise_signal(request.signal)


@contextmanager
def _first_signal(
    react: Callable[[int, FrameType | None], None],
) -> Iterator[None]:
    """Calls `react(number, frame)` at the first signal within the block."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        restore()
        react(number, frame)

    for number in _SIGNALS:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()


def _within_garbage_collection(frame: FrameType | None) -> bool:
    """Whether a frame was called by the garbage collector.

    Python prints an exception that is raised in a callback of `gc.callbacks`, and
    ignores it. JAX has such a callback.
    """
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None:
        if frame.f_code in callbacks:
            return True
        frame = frame.f_back
    return False

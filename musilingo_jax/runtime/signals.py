"""Turns Ctrl-C and SIGTERM into one exception, `Interrupted`, that is always delivered.

    raise_at_once()     around a program. A signal raises `Interrupted` wherever the
                        program is, so that it also ends what waits: for a line of
                        input, a download, a lock.
    raise_at_checks()   around long work that calls `check_signals()` now and then.
                        A signal is remembered, and the next check raises `Interrupted`.
                        For work during which a library calls us back from places where
                        Python prints an exception and ignores it.
    stop_request()      around a training loop, which asks `agreed(step)` after each
                        step and so stops after the same one in every process.

All three share one mechanism, `_first_signal`: it handles the first signal within the
block, and the handlers from outside the block get every later one. So a second Ctrl-C
never waits: within `raise_at_checks` it goes to the `raise_at_once` around it, and
within that to the handler before, which ends the process.

One gap is CPython's: a signal in the instant after `input` has shown its prompt and
before it waits is handled only at the next key or signal (measured: once in 3,000).
`chat.py` interrupts the wait with a timer.
"""

import _thread
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

import jax

from musilingo_jax.runtime import distributed, start_up
from musilingo_jax.runtime.errors import causes, text_of

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Seconds after which a signal is sent again whose exception Python has ignored, and
# between later attempts.
_SEND_AGAIN_AFTER = 0.01
_SEND_AGAIN_EVERY = 0.25
# How the texts of errors quote `Interrupted`, or a signal that Arrow has handled.
_QUOTED = re.compile(r"\b(?:KeyboardInterrupt|Interrupted|received signal)\b")


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM asked the program to end.

    Attributes:
      signal: SIGINT or SIGTERM.
      status: the exit status for the signal, 130 or 143.
    """

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.signal = signal.Signals(number)
        self.status = 128 + number


@dataclass
class _Arrived:
    """A signal that arrived within a block and may not have ended it yet.

    Attributes:
      number: SIGINT or SIGTERM.
      exception: the `Interrupted` that it has raised, if Python has not ignored it.
    """

    number: int
    exception: Interrupted | None = None

    def interrupt(self) -> NoReturn:
        """Raises `Interrupted`."""
        self.exception = Interrupted(self.number)
        raise self.exception


_pending: list[_Arrived] = []


def restore_system_handlers() -> None:
    """Lets a signal end the process at once, if it has no handler but the first ones.

    Those are Python's own of Ctrl-C, and that of the time of imports (`start_up.py`).
    """
    first = (signal.default_int_handler, start_up.end_quietly)
    for number in _SIGNALS:
        if signal.getsignal(number) in first:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def raise_at_once() -> Iterator[None]:
    """Raises `Interrupted` at the first Ctrl-C or SIGTERM, wherever the program is."""

    def react(arrived: _Arrived) -> None:
        _pending.append(arrived)
        arrived.interrupt()

    with _no_signal_lost(), _first_signal(react, raises=True):
        yield


@contextmanager
def raise_at_checks() -> Iterator[None]:
    """Raises `Interrupted` at the first check after a Ctrl-C or SIGTERM, or at the end.

    Must be entered in the main thread, which is the one that receives signals. The
    exception ends the block only: whoever catches it may continue, and the next signal
    is handled as before the block.
    """
    with _no_signal_lost(), _first_signal(_pending.append):
        yield


def check_signals() -> None:
    """Raises `Interrupted` if a signal arrived that has not ended the program yet."""
    if _pending:
        _pending[0].interrupt()


class StopRequest:
    """A signal that a training loop has received, in this process or in another.

    Attributes:
      signal: SIGINT or SIGTERM; None before one arrives.
      taken: whether the loop has acted on it.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None
        self.taken = False

    def agreed(self, done: int) -> bool:
        """Whether all processes stop after this update.

        A signal reaches one process, or each at another update, but all must stop after
        the same one. They are never far apart: starting an update needs only a batch,
        yet every process waits for the loss of the update before, which all of them
        compute together. So a process that has a signal after starting update n
        proposes to stop after n + 2, and the others read that in time:

            process 0   starts n, has a signal, proposes n + 2, starts both, and stops
            process 1   has the loss of n + 1 only after process 0 started n + 1, which
                        is after the proposal; so it reads it at n + 2 at the latest

        The proposal goes through the coordinator's key-value store and not through the
        devices, so nothing waits for it. It names the signal, so that all exit with the
        same status. A signal at the last update of a stage stops all processes in the
        next stage, if there is one.

        Args:
          done: updates started so far, in all stages together, this one included; the
            loss of the one before must have been waited for.
        """
        self.taken = self.signal is not None
        if jax.process_count() == 1:
            return self.taken
        if self.taken:
            distributed.set_once("stop", f"{done + 2} {self.signal}")
        proposal = distributed.get_now("stop")
        if proposal is None:
            return False
        stop, number = map(int, proposal.split())
        self.signal, self.taken = signal.Signals(number), True
        return done >= stop

    def exit(self) -> None:
        """Ends the program with the exit status for the signal.

        Raises:
          SystemExit: always, with status 130 or 143.
        """
        assert self.signal is not None
        distributed.finish()
        sys.exit(128 + self.signal)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Remembers the first Ctrl-C or SIGTERM; the second one ends the program at once.

    A signal that arrived after `agreed` was asked last is sent again after the block.
    """
    request = StopRequest()

    def react(arrived: _Arrived) -> None:
        request.signal = signal.Signals(arrived.number)

    with _first_signal(react):
        yield request
    if request.signal is not None and not request.taken:
        signal.raise_signal(request.signal)


@contextmanager
def _no_signal_lost() -> Iterator[None]:
    """Raises `Interrupted` at the end of a block for a signal that has not ended it.

    It encloses the block's handlers, so that they are gone when it looks. A signal that
    arrives before that is in `_pending`; one that arrives later goes to the handlers
    outside. Looking while the handlers are installed would lose one in between.
    """
    before = len(_pending)
    try:
        yield
        for arrived in _pending[before:]:
            if arrived.exception is None:
                arrived.interrupt()
    except (Exception, BaseExceptionGroup) as error:
        # A library may catch `Interrupted` and raise an error of its own: JAX does,
        # where a comparison of pytrees is interrupted. Libraries in C++ keep its text
        # at best.
        chain = list(causes(error))
        for cause in chain:
            if isinstance(cause, Interrupted):
                raise Interrupted(cause.signal) from error
            if isinstance(cause, KeyboardInterrupt):  # Of a library.
                raise Interrupted(signal.SIGINT) from error
        quoted = any(_QUOTED.search(text_of(cause)) for cause in chain)
        for arrived in _pending[before:]:
            if quoted or arrived.exception is None:
                raise Interrupted(arrived.number) from error
        raise
    finally:
        del _pending[before:]


@contextmanager
def _first_signal(
    react: Callable[[_Arrived], None], *, raises: bool = False
) -> Iterator[None]:
    """Calls `react` at the first signal within the block.

    Args:
      react: what handles the signal.
      raises: whether it raises an exception. Where Python prints and ignores it, as in
        `__del__` and in callbacks of the garbage collector and of weak references, the
        signal is sent again until it is handled elsewhere.
    """
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    report_ignored = sys.unraisablehook
    first: _Arrived | None = None
    waiting = ended = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first, waiting
        del frame
        waiting = False
        restore()
        first = first or _Arrived(number)
        react(first)

    def send_again(number: int) -> None:
        # Once is not enough: a signal in the instant before `input` or `sleep` begins
        # to wait does not end the wait. That instant is likely to be met, for there
        # the main thread releases the interpreter to this one.
        process, kill, sleep = os.getpid(), os.kill, time.sleep
        sleep(_SEND_AGAIN_AFTER)
        while waiting and not ended:
            # No other thread runs between the check and this call: a signal after the
            # block would be a second one.
            kill(process, number)
            sleep(_SEND_AGAIN_EVERY)

    def notice_ignored(ignored: Any) -> None:
        nonlocal waiting
        if first is None or ignored.exc_value is not first.exception:
            report_ignored(ignored)
            return
        first.exception = None
        waiting = True
        for number in _SIGNALS:
            signal.signal(number, handle)
        # Not `threading`, whose locks the interrupted code may hold.
        _thread.start_new_thread(send_again, (first.number,))

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in _SIGNALS:
        signal.signal(number, handle)
    if raises:
        sys.unraisablehook = notice_ignored
    try:
        yield
    finally:
        ended = True
        restore()
        if raises:
            sys.unraisablehook = report_ignored

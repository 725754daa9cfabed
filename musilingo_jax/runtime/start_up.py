"""Ctrl-C and SIGTERM while a program still imports its packages, which takes seconds.

Python would print a traceback of whatever import it was at. `musilingo_jax/__init__.py`
calls `handle_signals` before anything else is imported; `cli.run` takes over from it.
This module imports nothing that takes time.
"""

import os
import signal
import sys
from types import FrameType


def handle_signals() -> None:
    """Makes signals end this process quietly, if it is one of our programs.

    In a program that only imports this package, signals are not ours. Nor is a signal
    that whoever started the program has told it to ignore.
    """
    if not _is_our_program():
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_quietly)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, end_quietly)


def end_quietly(number: int, frame: FrameType | None) -> None:
    """Ends the process with the status that a shell gives for a signal: 130 or 143."""
    os._exit(128 + number)


def _is_our_program() -> bool:
    """Whether Python is just starting one of our programs.

    It is `musilingo`, or `python -m musilingo_jax.<program>`: Python sets `sys.argv[0]`
    to "-m" until it has found the module.
    """
    words = sys.orig_argv
    if os.path.basename(sys.argv[0] if sys.argv else "") == "musilingo":
        return True
    if sys.argv[:1] != ["-m"] or "-m" not in words[:-1]:
        return False
    return words[words.index("-m") + 1].partition(".")[0] == "musilingo_jax"

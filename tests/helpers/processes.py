"""Helpers for tests that start processes."""

import socket

# Seconds that only a process which hangs takes, however busy the machine is.
HANG = 600


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def signal_at(event, path, number):
    """Python that makes a process send itself a signal when it touches a file.

    So it happens at the same moment of the program, however slow the machine is.

    Args:
      event: that Python's audit hooks are called with: "open", "os.mkdir", "os.rename".
      path: how the path ends that the process opens, makes or renames something to.
      number: of the signal.
    """
    return f"""
import os, sys

def touch(event, arguments):
    if event == {event!r} and any(str(x).endswith({path!r}) for x in arguments[:2]):
        os.kill(os.getpid(), {int(number)})

sys.addaudithook(touch)
"""

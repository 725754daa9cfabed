"""Signals end a program as one exception, at once or at the next step."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from musilingo_jax.runtime import cli, ending


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_signals_are_one_exception(number):
    before = signal.getsignal(number)
    with pytest.raises(ending.Told) as told, ending.in_order():
        os.kill(os.getpid(), number)
    assert told.value.status == 128 + number
    assert signal.getsignal(number) is before
    ending.heed()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_swallowed_signal_is_heeded_at_the_next_step_of_a_bar():
    def told(phase, info):
        gc.callbacks.remove(told)
        os.kill(os.getpid(), signal.SIGTERM)

    steps = 0
    with (
        pytest.raises(ending.Told) as ended,
        ending.in_order(),
        cli.progress(total=3, unit="clip", label="encoding") as bar,
    ):
        gc.callbacks.append(told)
        gc.collect()  # Whose callbacks' exceptions Python prints and forgets.
        steps += 1
        bar.update()
        steps += 1
    assert ended.value.status == 143
    assert steps == 1


def test_a_signal_within_a_collection_is_remembered_and_not_printed():
    """JAX has a callback there; what it raised would be printed and forgotten."""
    unraisable = []
    before, sys.unraisablehook = sys.unraisablehook, unraisable.append

    def told(phase, info):
        if phase == "start":
            os.kill(os.getpid(), signal.SIGINT)

    gc.callbacks.append(told)
    try:
        with pytest.raises(ending.Told) as ended, ending.in_order():
            gc.collect()
            gc.callbacks.remove(told)
            ending.heed()
    finally:
        sys.unraisablehook = before
    assert ended.value.status == 130
    assert unraisable == []


def test_between_steps_a_signal_is_only_remembered():
    steps = []
    with ending.in_order():
        with pytest.raises(ending.Told) as ended, ending.at_steps():
            ending.heed()
            os.kill(os.getpid(), signal.SIGINT)
            steps.append("not ended by it")
            ending.heed()
            steps.append("never")
        assert steps == ["not ended by it"] and ended.value.signal == signal.SIGINT
        ending.heed()  # It has ended what it was to end.
        with pytest.raises(ending.Told) as ended:
            os.kill(os.getpid(), signal.SIGTERM)
        assert ended.value.signal == signal.SIGTERM


def test_a_signal_after_the_last_step_is_not_lost():
    with pytest.raises(ending.Told), ending.at_steps():
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_second_signal_does_not_wait_for_a_step():
    with pytest.raises(ending.Told), ending.in_order(), ending.at_steps():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("it was waited for")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_ends_what_waits():
    with pytest.raises(ending.Told), ending.in_order():
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        time.sleep(30)
        pytest.fail("it was slept through")


STUCK = """
import threading
from musilingo_jax.runtime import cli
from musilingo_jax.runtime.errors import UserError

def main(argv):
    threading.Thread(target=threading.Event().wait, args=(60,)).start()
    raise UserError("the disk is full")

cli.PATIENCE = 0.5
cli.run(main)
"""


def test_a_program_that_fails_does_not_wait_for_threads_that_are_stuck():
    done = subprocess.run(
        [sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=50
    )
    assert (done.returncode, done.stderr) == (1, "error: the disk is full\n")

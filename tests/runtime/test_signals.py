"""Signals end a program at once, at a check, or after a step that all agree on."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from musilingo_jax.runtime import cli, distributed, signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_signals_are_one_exception(number):
    before = signal.getsignal(number)
    with pytest.raises(signals.Interrupted) as told, signals.raise_at_once():
        os.kill(os.getpid(), number)
    assert told.value.status == 128 + number
    assert signal.getsignal(number) is before
    signals.check_signals()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_swallowed_signal_is_heeded_at_the_next_step_of_a_bar():
    def told(phase, info):
        gc.callbacks.remove(told)
        os.kill(os.getpid(), signal.SIGTERM)

    steps = 0
    with (
        pytest.raises(signals.Interrupted) as ended,
        signals.raise_at_once(),
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
        with pytest.raises(signals.Interrupted) as ended, signals.raise_at_once():
            gc.collect()
            gc.callbacks.remove(told)
            signals.check_signals()
    finally:
        sys.unraisablehook = before
    assert ended.value.status == 130
    assert unraisable == []


def test_between_steps_a_signal_is_only_remembered():
    steps = []
    with signals.raise_at_once():
        with pytest.raises(signals.Interrupted) as ended, signals.raise_at_checks():
            signals.check_signals()
            os.kill(os.getpid(), signal.SIGINT)
            steps.append("not ended by it")
            signals.check_signals()
            steps.append("never")
        assert steps == ["not ended by it"] and ended.value.signal == signal.SIGINT
        signals.check_signals()  # It has ended what it was to end.
        with pytest.raises(signals.Interrupted) as ended:
            os.kill(os.getpid(), signal.SIGTERM)
        assert ended.value.signal == signal.SIGTERM


def test_a_signal_after_the_last_step_is_not_lost():
    with pytest.raises(signals.Interrupted), signals.raise_at_checks():
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_second_signal_does_not_wait_for_a_step():
    with (
        pytest.raises(signals.Interrupted),
        signals.raise_at_once(),
        signals.raise_at_checks(),
    ):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("it was waited for")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_ends_what_waits():
    with pytest.raises(signals.Interrupted), signals.raise_at_once():
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


@pytest.fixture
def said(monkeypatch):
    """What processes have told each other; there seem to be two."""
    said = {}
    monkeypatch.setattr(signals.jax, "process_count", lambda: 2)
    monkeypatch.setattr(distributed, "propose", said.setdefault)
    monkeypatch.setattr(distributed, "told", said.get)
    monkeypatch.setattr(distributed, "finish", lambda: None)
    return said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_stop_after_the_same_update_with_the_same_status(said, number):
    with signals.stop_request() as told, signals.stop_request() as other:
        assert not told.agreed(4)
        told.signal = number
        assert not told.agreed(5)
        assert not other.agreed(6) and not told.agreed(6)
        assert told.agreed(7) and other.agreed(7)
    for stopped in (told, other):
        with pytest.raises(SystemExit) as ended:
            stopped.exit()
        assert ended.value.code == 128 + number


def test_a_signal_at_the_end_of_a_stage_stops_the_next_one_with_its_status(said):
    with signals.stop_request() as told:
        signal.raise_signal(signal.SIGINT)
        assert not told.agreed(8)
    with signals.stop_request() as told:
        assert not told.agreed(9)
        assert told.agreed(10)
    with pytest.raises(SystemExit) as ended:
        told.exit()
    assert ended.value.code == 130

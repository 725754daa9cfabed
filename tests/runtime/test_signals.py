"""Signals end a program at once, at a check, or after a step that all agree on."""

import gc
import os
import signal
import sys
import threading
import time
import weakref

import jax
import pytest

from musilingo_jax.runtime import cli, distributed, signals

pytestmark = pytest.mark.medium


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_signals_are_one_exception(number):
    before = signal.getsignal(number)
    with pytest.raises(signals.Interrupted) as ended, signals.raise_at_once():
        os.kill(os.getpid(), number)
    assert ended.value.status == 128 + number
    assert signal.getsignal(number) is before
    signals.check_signals()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_ignored_exception_is_raised_again_at_the_next_step_of_a_bar():
    def interrupt(phase, info):
        gc.callbacks.remove(interrupt)
        os.kill(os.getpid(), signal.SIGTERM)

    steps = 0
    with (
        pytest.raises(signals.Interrupted) as ended,
        signals.raise_at_once(),
        cli.progress(total=3, unit="clip", label="encoding") as bar,
    ):
        gc.callbacks.append(interrupt)
        gc.collect()  # Python prints and ignores exceptions of its callbacks.
        steps += 1
        bar.update()
        steps += 1
    assert ended.value.status == 143
    assert steps == 1


def interrupt(*unused):
    os.kill(os.getpid(), signal.SIGINT)


def collect_garbage():
    """JAX has a callback there."""
    callback = lambda phase, info: interrupt() if phase == "start" else None  # noqa: E731
    gc.callbacks.append(callback)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(callback)


def delete_an_object():
    """Progress bars have such a method."""
    type("Bar", (), {"__del__": interrupt})()


def end_a_weak_reference():
    subject = type("Subject", (), {})()
    reference = weakref.ref(subject, interrupt)
    del subject
    assert reference() is None


IGNORING = [collect_garbage, delete_an_object, end_a_weak_reference]


@pytest.mark.parametrize("ignore", IGNORING)
def test_a_signal_whose_exception_is_ignored_is_remembered_and_not_printed(ignore):
    """Python would print and ignore what is raised there."""
    unraisable = []
    before, sys.unraisablehook = sys.unraisablehook, unraisable.append
    try:
        with pytest.raises(signals.Interrupted) as ended, signals.raise_at_once():
            ignore()
            signals.check_signals()
    finally:
        sys.unraisablehook = before
    assert ended.value.status == 130
    assert unraisable == []


@pytest.mark.parametrize("ignore", IGNORING)
def test_a_signal_whose_exception_is_ignored_ends_what_waits_without_checks(ignore):
    """As `input` does: it would wait for a second Ctrl-C."""
    with pytest.raises(signals.Interrupted), signals.raise_at_once():
        ignore()
        time.sleep(600)
    assert not signals._pending


def test_other_exceptions_that_are_ignored_are_still_reported():
    unraisable = []
    before, sys.unraisablehook = sys.unraisablehook, unraisable.append
    try:
        with signals.raise_at_once():
            type("Broken", (), {"__del__": lambda self: 1 / 0})()
    finally:
        sys.unraisablehook = before
    (ignored,) = unraisable
    assert isinstance(ignored.exc_value, ZeroDivisionError)


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
        signals.check_signals()  # That signal is dealt with.
        with pytest.raises(signals.Interrupted) as ended:
            os.kill(os.getpid(), signal.SIGTERM)
        assert ended.value.signal == signal.SIGTERM


def test_a_signal_after_the_last_step_is_not_lost():
    with pytest.raises(signals.Interrupted), signals.raise_at_checks():
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_second_signal_does_not_wait_for_a_check():
    with (
        pytest.raises(signals.Interrupted),
        signals.raise_at_once(),
        signals.raise_at_checks(),
    ):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("it waited for a check")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_ends_what_waits():
    with pytest.raises(signals.Interrupted), signals.raise_at_once():
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        time.sleep(600)


class Noise(Exception):
    """An error that has nothing to do with signals."""


@pytest.mark.parametrize("block", [signals.raise_at_once, signals.raise_at_checks])
def test_an_error_that_follows_from_a_signal_is_that_signal(block):
    """A library may turn our exception into its own, or fail because of it."""
    with pytest.raises(signals.Interrupted) as ended, block():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signals.check_signals()
        except signals.Interrupted as interrupted:
            raise Noise from interrupted
    assert ended.value.status == 143
    assert isinstance(ended.value.__cause__, Noise)


def test_an_error_at_the_moment_of_a_signal_does_not_hide_it():
    with pytest.raises(signals.Interrupted) as ended, signals.raise_at_checks():
        os.kill(os.getpid(), signal.SIGTERM)
        raise Noise
    assert isinstance(ended.value.__cause__, Noise)


def test_a_caught_signal_does_not_change_later_errors():
    with pytest.raises(Noise), signals.raise_at_once():
        with pytest.raises(signals.Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)
        raise Noise
    assert not signals._pending


class InterruptedList(list):
    """A list during whose clearing SIGTERM arrives."""

    def clear(self):
        os.kill(os.getpid(), signal.SIGTERM)
        super().clear()

    def __delitem__(self, place):
        os.kill(os.getpid(), signal.SIGTERM)
        super().__delitem__(place)


def test_a_signal_at_the_very_end_of_a_block_goes_to_the_handlers_outside(monkeypatch):
    arrived = []
    before = signal.signal(signal.SIGTERM, lambda *_: arrived.append("SIGTERM"))
    monkeypatch.setattr(signals, "_pending", InterruptedList())
    try:
        with signals.raise_at_checks():
            pass
    finally:
        signal.signal(signal.SIGTERM, before)
    assert arrived == ["SIGTERM"]


@pytest.fixture
def shared(monkeypatch):
    """The key-value store of what seem to be two processes."""
    store = {}
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(distributed, "set_once", store.setdefault)
    monkeypatch.setattr(distributed, "get_now", store.get)
    monkeypatch.setattr(distributed, "finish", lambda: None)
    return store


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_stop_after_the_same_update_with_the_same_status(shared, number):
    with signals.stop_request() as first, signals.stop_request() as other:
        assert not first.agreed(4)
        first.signal = number
        assert not first.agreed(5)
        assert not other.agreed(6) and not first.agreed(6)
        assert first.agreed(7) and other.agreed(7)
    for stopped in (first, other):
        with pytest.raises(SystemExit) as ended:
            stopped.exit()
        assert ended.value.code == 128 + number


def test_a_signal_at_the_end_of_a_stage_stops_the_next_one_with_its_status(shared):
    with signals.stop_request() as request:
        signal.raise_signal(signal.SIGINT)
        assert not request.agreed(8)
    with signals.stop_request() as request:
        assert not request.agreed(9)
        assert request.agreed(10)
    with pytest.raises(SystemExit) as ended:
        request.exit()
    assert ended.value.code == 130

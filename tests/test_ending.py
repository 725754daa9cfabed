"""Signals end a program as one exception, also where a library swallows it."""

import gc
import os
import signal

import pytest

from musilingo_jax import cli, ending


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

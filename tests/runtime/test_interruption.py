"""A signal is heeded after the same update everywhere, and ends all with its status."""

import signal

import pytest

from musilingo_jax.runtime import distributed, interruption


@pytest.fixture
def said(monkeypatch):
    """What processes have told each other; there seem to be two."""
    said = {}
    monkeypatch.setattr(interruption.jax, "process_count", lambda: 2)
    monkeypatch.setattr(distributed, "propose", said.setdefault)
    monkeypatch.setattr(distributed, "told", said.get)
    monkeypatch.setattr(distributed, "finish", lambda: None)
    return said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_stop_after_the_same_update_with_the_same_status(said, number):
    with interruption.told_to_stop() as told, interruption.told_to_stop() as other:
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
    with interruption.told_to_stop() as told:
        signal.raise_signal(signal.SIGINT)
        assert not told.agreed(8)
    with interruption.told_to_stop() as told:
        assert not told.agreed(9)
        assert told.agreed(10)
    with pytest.raises(SystemExit) as ended:
        told.exit()
    assert ended.value.code == 130

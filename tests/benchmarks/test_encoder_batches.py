"""`benchmarks/encoder.py --batches`: files on their way to a device that may wait."""

import re
import time

import encoder
import pytest
from absl.testing import flagsaver

from musilingo_jax.audio import waveforms

pytestmark = pytest.mark.medium

LINE = re.compile(
    r"batch +(\d+): +([\d.]+) × real time from files +([\d.]+) × if it never waited"
    r" +waited +([\d.]+)%"
)


@pytest.fixture
def small(monkeypatch):
    if not encoder.flags.FLAGS.is_parsed():
        encoder.flags.FLAGS(["encoder"])
    monkeypatch.setattr(encoder, "WAVES", 3)
    with flagsaver.flagsaver(width=64, depth=1, seconds=1.0):
        yield


def lines(capsys):
    out = capsys.readouterr().out
    found = [tuple(map(float, line)) for line in LINE.findall(out)]
    assert len(found) == out.count("batch ")
    return found


@pytest.mark.slow
def test_each_size_of_batches_has_a_line(small, capsys):
    encoder.try_batches([1, 2])
    one, two = lines(capsys)
    assert (one[0], two[0]) == (1, 2)
    for _, from_files, never, waited in (one, two):
        assert from_files > 0 and never > 0
        share = max(0.0, 1 - from_files / never)
        assert waited / 100 == pytest.approx(share, abs=0.05)


@pytest.mark.slow
def test_a_device_that_waits_for_slow_files_is_seen_to_wait(small, capsys, monkeypatch):
    read = waveforms.read

    def slowly(*arguments, **options):
        time.sleep(6)
        yield from read(*arguments, **options)

    monkeypatch.setattr(waveforms, "read", slowly)
    encoder.try_batches([1])
    ((_, _, _, waited),) = lines(capsys)
    assert waited > 50

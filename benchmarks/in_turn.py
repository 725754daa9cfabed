"""Measures several sides in turn, each in its own process, and compares them.

The speed of a machine drifts, and other programs come and go. So two times are compared
only within a round, and the result is the median of the rounds' ratios, with their
range. In its own process, each side has all of the memory and its library's own
threads. Ratios depend on whether the processor has bfloat16 units, so it is named with
each table of them.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags

from musilingo_jax.runtime import processor

ROUNDS = flags.DEFINE_integer("rounds", 5, "measurements of each side")
WORKER = flags.DEFINE_string("worker", None, "internal: what this process measures")
FOLDER = flags.DEFINE_string("model_folder", None, "internal: the model's folder")

# Settings of malloc for every side.
_MALLOC_ENV = Path(__file__).parents[1] / "launch" / "malloc.env"
MALLOC = dict(
    line.split("=", 1)
    for line in _MALLOC_ENV.read_text().splitlines()
    if not line.startswith("#")
)


class Times(NamedTuple):
    """Wall-clock seconds, and processor seconds of all threads together.

    Other work on the machine disturbs the second less. But a thread that waits without
    sleeping counts as busy (for PyTorch's, see OMP_WAIT_POLICY).
    """

    clock: float
    processor: float


def measure(run: Callable[[], object], *, warm_up: int, repeats: int) -> Times:
    """The medians of `repeats` runs, after `warm_up` runs that do not count."""
    times = []
    for _ in range(warm_up + repeats):
        clock, processor = time.perf_counter(), time.process_time()
        run()
        times.append((time.perf_counter() - clock, time.process_time() - processor))
    return Times(*map(statistics.median, zip(*times[warm_up:], strict=True)))


def worth_waiting(sides: Iterable[str]) -> tuple[str, ...]:
    """Sides without PyTorch's in bfloat16, unless the processor has units for it.

    PyTorch has no other fast products of bfloat16: on a processor with AVX2 alone one
    forward pass of a small encoder took minutes.
    """
    sides = tuple(sides)
    slow = [side for side in sides if side.startswith("torch bfloat16")]
    if not slow or processor.has_bfloat16_units():
        return sides
    print(f"left out, as it takes minutes: {slow[0]} on {processor.described()}")
    return tuple(side for side in sides if side not in slow)


def take_turns(sides: Iterable[str], folder: str | None = None) -> dict[str, list]:
    """Runs each side in each round; returns the JSON in the last line that it printed.

    A side's process is this program with `--worker=SIDE` and `--model_folder=FOLDER`.
    """
    found: dict[str, list] = {side: [] for side in sides}
    for _ in range(ROUNDS.value):
        for side, rounds in found.items():
            worker = [sys.executable, *sys.argv, f"--worker={side}"]
            if folder is not None:
                worker.append(f"--model_folder={folder}")
            done = subprocess.run(
                worker,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                env=os.environ | MALLOC,
            )
            rounds.append(json.loads(done.stdout.splitlines()[-1]))
    return found


def ratio(times: Sequence[float], bases: Sequence[float]) -> str:
    """The median of the rounds' ratios, and their range."""
    ratios = [time / base for time, base in zip(times, bases, strict=True)]
    middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def compare(
    found: dict[str, list[Times]],
    bases: Iterable[str],
    unit: str,
    note: Callable[[str], str] = lambda side: "",
) -> None:
    """Prints each side's median times, and its ratios to those of some sides.

    Args:
      found: the times of each round; all sides have as many rounds.
      bases: the sides to compare with.
      unit: the unit and its subject, such as "ms per token"; "ms …" or "µs …".
      note: more text for a side.
    """
    scale = 1e6 if unit.startswith("µs") else 1e3
    for kind in Times._fields:
        what = {"clock": "wall-clock time", "processor": "processor time"}[kind]
        print(f"{what} on {processor.described()}:")
        seconds = {
            side: [getattr(times, kind) for times in rounds]
            for side, rounds in found.items()
        }
        for side, times in seconds.items():
            line = f"{side:18} {statistics.median(times) * scale:9.2f} {unit}"
            line += note(side)
            for base in bases:
                line += f"  / {base} {ratio(times, seconds[base])}"
            print(line)

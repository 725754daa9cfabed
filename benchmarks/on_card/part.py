"""One part of the benchmark: its measurements, and those that could not be made."""

import gc
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import jax

from on_card import table

# A measurement: its name under "what", then figures; or why there are none.
Measurement = dict[str, Any]


class Clock:
    """The time that a run may take, from its beginning."""

    def __init__(self, seconds: float):
        self._started, self._seconds = time.perf_counter(), seconds

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self._started

    @property
    def left(self) -> float:
        """Seconds that remain; below 0 when the time is up."""
        return self._seconds - self.elapsed

    def say(self, text: str) -> None:
        """Prints a line with the time left."""
        print(f"[{max(0, self.left):4.0f} s left] {text}", flush=True)


class Part:
    """Makes measurements one after another until its share of the time is over.

    What does not fit into memory is noted, and so is an error; the next measurement
    is made all the same.

    Attributes:
      name: of the part.
      measurements: those that were asked for, in order.
    """

    def __init__(self, name: str, clock: Clock, seconds: float):
        self.name = name
        self.measurements: list[Measurement] = []
        self._clock, self._end = clock, clock.elapsed + seconds
        self._until = self._end

    def begin(self, still: int) -> None:
        """Begins one of the `still` groups of measurements that share what is left."""
        left = self._end - self._clock.elapsed
        self._until = self._clock.elapsed + left / still

    def measure(
        self, what: str, function: Callable[[], dict[str, Any]], **settings: Any
    ) -> Measurement | None:
        """Makes a measurement and prints it.

        Args:
          what: is measured.
          function: returns the figures.
          settings: what distinguishes it from others, for scripts.

        Returns:
          The measurement; None if it could not be made.
        """
        made: Measurement = {"what": what, **settings}
        self.measurements.append(made)
        if self._clock.elapsed >= self._until:
            made["not_run"] = "its share of the time was over"
        else:
            # Until it is over; Ctrl-C leaves it.
            made["not_run"] = "stopped"
            figures = self._figures(function)
            del made["not_run"]
            made |= figures
        gc.collect()  # The frames of an error hold arrays.
        self._clock.say(f"{self.name}: {what}: {table.figures(made)}")
        return None if "not_run" in made or "failed" in made else made

    def guard(self, function: Callable[[], None]) -> None:
        """Makes the measurements of the whole part; notes an error between them."""
        try:
            function()
        except Exception as error:
            made: Measurement = {"what": "the rest" if self.measurements else "all"}
            self.measurements.append(made | _reason(error))
            self._clock.say(f"{self.name}: {table.figures(self.measurements[-1])}")

    def not_run(self, reason: str) -> None:
        """Notes that the part cannot be measured here."""
        self.measurements.append({"what": "all", "not_run": reason})
        self._clock.say(f"{self.name}: not run: {reason}")

    @property
    def failed(self) -> bool:
        """Whether a measurement ended with an error other than too little memory."""
        return any("failed" in made for made in self.measurements)

    def _figures(self, function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return function()
        except Exception as error:
            return _reason(error)


def _reason(error: Exception) -> dict[str, str]:
    """Why there are no figures; the traceback of what is not a lack of memory."""
    text = str(error).partition("\n")[0][:200]
    if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in text:
        return {"not_run": f"out of memory ({text})"}
    traceback.print_exception(error, file=sys.stderr)
    return {"failed": f"{type(error).__name__}: {text}"}


def times(
    run: Callable[[], object], *, repeats: int = 5, enough: float = 3.0
) -> dict[str, float]:
    """Seconds of a run that waits for its result.

    Args:
      run: is called once to compile, and once to warm up, before it is measured.
      repeats: measurements at most.
      enough: after so many seconds, three measurements are enough.

    Returns:
      `seconds` (the median), `least_seconds`, `most_seconds`, and `compile_seconds`:
      what the first call took longer than the median.
    """
    found: list[float] = []
    for _ in range(2 + repeats):
        if len(found) >= 5 and sum(found[2:]) > enough:
            break
        started = time.perf_counter()
        run()
        found.append(time.perf_counter() - started)
    first, _, *measured = found
    median = statistics.median(measured)
    return {
        "seconds": median,
        "least_seconds": min(measured),
        "most_seconds": max(measured),
        "compile_seconds": max(0.0, first - median),
    }

"""Traces what the devices do during a few updates.

    python -m musilingo_jax.train --config=configs/tiny.py --profile=10:3

traces updates 10, 11 and 12 of those that this command does, and prints where the trace
is. TensorBoard shows it (`pip install xprof`), and so does https://ui.perfetto.dev.
"""

import re
from pathlib import Path
from typing import Any, Self

import jax

from musilingo_jax.runtime.errors import UsageError
from musilingo_jax.runtime.printable import print_note


class Profiler:
    """A trace of a few updates on the devices of the first process."""

    def __init__(self, updates: str, folder: Path):
        """Waits for the first of the updates.

        Args:
          updates: "FIRST:COUNT", counted from 1; "" for no trace.
          folder: for the trace.

        Raises:
          UsageError: `updates` is anything else.
        """
        if updates and not re.fullmatch(r"[1-9]\d*:[1-9]\d*", updates):
            raise UsageError(
                f"--profile={updates}: must be FIRST:COUNT, for example --profile=10:3 "
                "for updates 10, 11 and 12"
            )
        first, _, count = updates.partition(":")
        self._waiting, self._left = int(first or 0), int(count or 0)
        self._folder, self._running, self._started = folder, False, False
        if jax.process_index() != 0:
            self._left = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stop()
        if self._left and not self._started and error[0] is None:
            print_note("--profile: training ended before the updates to trace")

    def begin(self, before: Any) -> None:
        """Must be called before each update.

        Args:
          before: arrays that are ready once all earlier updates are done.
        """
        self._waiting -= 1
        if self._left and not self._running and self._waiting <= 0:
            jax.block_until_ready(before)
            jax.profiler.start_trace(str(self._folder))
            self._running = self._started = True

    def end(self, after: Any) -> None:
        """Must be called after each update, with arrays that it computes."""
        if self._running:
            self._left -= 1
            if not self._left:
                jax.block_until_ready(after)
                self._stop()

    def _stop(self) -> None:
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
            print_note(f"trace: {self._folder}")

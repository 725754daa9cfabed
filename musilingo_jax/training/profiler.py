"""What the devices do in some updates, as a trace to look at.

    python -m musilingo_jax.train --config=configs/tiny.py --profile=10:3

traces updates 10, 11 and 12 of those that this command does, and tells where the trace
is. TensorBoard shows it (`pip install xprof`), and so does https://ui.perfetto.dev.
"""

import re
import sys
from pathlib import Path
from typing import Any, Self

import jax

from musilingo_jax.runtime.errors import UsageError


class Profiler:
    """A trace of a few updates, by the first process of its own devices."""

    def __init__(self, said: str, folder: Path):
        """Nothing is traced yet.

        Args:
          said: "FIRST:COUNT", counted from 1; "" for no trace.
          folder: where the trace goes.

        Raises:
          UsageError: it says something else.
        """
        if said and not re.fullmatch(r"[1-9]\d*:[1-9]\d*", said):
            raise UsageError(
                f"--profile={said}: must be FIRST:COUNT, for example --profile=10:3 "
                "for updates 10, 11 and 12"
            )
        first, _, count = said.partition(":")
        self._waiting, self._left = int(first or 0), int(count or 0)
        self._folder, self._running, self._began = folder, False, False
        if jax.process_index() != 0:
            self._left = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stop()
        if self._left and not self._began and error[0] is None:
            print("--profile: the updates to trace never came", file=sys.stderr)

    def before(self, done: Any) -> None:
        """To be called before each update.

        Args:
          done: arrays that are there when all updates before are done.
        """
        self._waiting -= 1
        if self._left and not self._running and self._waiting <= 0:
            jax.block_until_ready(done)
            jax.profiler.start_trace(str(self._folder))
            self._running = self._began = True

    def after(self, done: Any) -> None:
        """To be called after each update, with arrays that it makes."""
        if self._running:
            self._left -= 1
            if not self._left:
                jax.block_until_ready(done)
                self._stop()

    def _stop(self) -> None:
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
            print(f"trace: {self._folder}", file=sys.stderr)

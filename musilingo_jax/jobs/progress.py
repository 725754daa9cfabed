"""A bar of items, with the rate, the time left, and the speed relative to playing."""

import time
from typing import Any

import jax

from musilingo_jax.jobs.making import Event, Item, Lost
from musilingo_jax.runtime import cli
from musilingo_jax.runtime.printable import print_note


class Progress:
    """A bar on stderr, which also says there which processes were lost."""

    def __init__(self, total: int, label: str, unit: str):
        """Starts a bar of `total` items.

        Args:
          total: how many there are to work on.
          label: what is done.
          unit: what an item is.
        """
        # Processes that were started together write to one screen.
        hidden = jax.process_index() != 0
        self._bar = cli.progress(total=total, unit=unit, label=label, disable=hidden)
        self._started, self._seconds = time.monotonic(), 0.0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.close()

    def note(self, event: Event) -> None:
        """Takes an event into account."""
        if isinstance(event, Lost):
            print_note(f"note: {event.reason}: {len(event.numbers)} shards start anew")
        if not isinstance(event, Item):
            return
        self._seconds += event.seconds
        if self._seconds:
            speed = self._seconds / (time.monotonic() - self._started)
            self._bar.set_postfix_str(f"{speed:,.1f}× real time", refresh=False)
        self._bar.update()

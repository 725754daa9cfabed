"""The prefixes that prompts share, each read once."""

from collections.abc import Sequence

from musilingo_jax.answering.decoding import read_prefixes
from musilingo_jax.answering.padded_prompts import fill_up, pad, windows_for
from musilingo_jax.answering.prompt_queue import PrefixKey, PromptQueue, QueuedPrompt
from musilingo_jax.answering.prompt_reader import PromptReader, empty_cache


class PrefixBank:
    """A cache whose rows are prefixes, and which of them holds which.

    Attributes:
      cache: on the devices; all of them hold all of its rows, for any row of a batch
        may begin with any prefix.
    """

    def __init__(
        self,
        reader: PromptReader,
        *,
        wave: int,
        slots: int,
        windows: int,
        multiple: int,
        kept: int = 0,
    ):
        """Makes an empty bank.

        Args:
          reader: the model.
          wave: prompts that are admitted together, and prefixes that are read together.
          slots: tokens of a prefix at most.
          windows: audio vectors that prefixes are padded to at least.
          multiple: prefixes are padded to a multiple of this many tokens.
          kept: prefixes that there is room for when no waiting prompt needs them.
        """
        self._reader, self._wave, self._windows = reader, wave, windows
        self._multiple = multiple
        # A wave may need one prefix for each of its prompts, and all but one of them
        # may be here while as many new ones are read as fill a batch.
        self._size = 2 * wave + kept
        self.cache = empty_cache(reader, rows=self._size, slots=slots, spread=False)
        self._rows: dict[PrefixKey, int] = {}

    def row(self, key: PrefixKey) -> int:
        """The row that holds a prefix."""
        return self._rows[key]

    def prepare(
        self, prompts: Sequence[QueuedPrompt], queue: PromptQueue
    ) -> set[PrefixKey]:
        """Reads the prefixes of some prompts, unless all of them are here.

        Reads those of later prompts with them, as many as fill the batch. Where there
        is no room for them, it forgets others: first those that no prompt of the queue
        has, and of these those that were not needed for the longest time.

        Args:
          prompts: of the queue's next wave.
          queue: what waits, these prompts among them.

        Returns:
          Those of them that were here before.
        """
        keys = [prompt.prefix_key for prompt in prompts]
        known = {key for key in keys if key in self._rows}
        for key in dict.fromkeys(keys):
            if key in self._rows:
                self._rows[key] = self._rows.pop(key)  # Now the last.
        if len(known) == len(set(keys)):
            return known
        new = queue.prefixes(besides=self._rows, count=self._wave)
        lacking = max(0, len(new) + len(self._rows) - self._size)
        others = [key for key in self._rows if key not in keys]
        for key in sorted(others, key=queue.needs)[:lacking]:
            del self._rows[key]
        used = set(self._rows.values())
        free = [row for row in range(self._size) if row not in used]
        rows = dict(zip(new, free, strict=False))
        self.cache = read_prefixes(
            self._reader,
            self.cache,
            pad(
                list(new.values()),
                rows=self._wave,
                multiple=self._multiple,
                windows=max(self._windows, windows_for(list(new.values()))),
                mesh=self._reader.mesh,
            ),
            self._reader.replicate(
                fill_up(list(rows.values()), self._wave, unused=self._size)
            ),
        )
        self._rows |= rows
        return known

"""The prefixes that prompts share, each read once."""

from musilingo_jax.answering.decoding import read_prefixes
from musilingo_jax.answering.padded_prompts import fill_up, pad
from musilingo_jax.answering.prompt_queue import PrefixKey, PromptQueue
from musilingo_jax.answering.prompt_reader import PromptReader, empty_cache


class PrefixBank:
    """A cache whose rows are prefixes, and which of them holds which.

    Attributes:
      cache: on the devices; all of them hold all of its rows, for any row of a batch
        may begin with any prefix.
    """

    def __init__(self, reader: PromptReader, *, wave: int, slots: int, windows: int):
        """Makes an empty bank.

        Args:
          reader: the model.
          wave: prompts that are admitted together, and prefixes that are read together.
          slots: tokens of a prefix at most.
          windows: audio vectors of a prefix at most.
        """
        self._reader, self._wave, self._windows = reader, wave, windows
        # A wave may need one prefix for each of its prompts, and all but one of them
        # may be here while as many new ones are read as fill a batch.
        self._size = 2 * wave
        self.cache = empty_cache(reader, rows=self._size, slots=slots, spread=False)
        self._rows: dict[PrefixKey, int] = {}

    def row(self, key: PrefixKey) -> int:
        """The row that holds a prefix."""
        return self._rows[key]

    def prepare(self, queue: PromptQueue) -> None:
        """Reads the prefixes of the queue's next wave, unless all of them are here.

        Reads those of later prompts with them, as many as fill the batch, and forgets
        prefixes that no prompt of the queue has.
        """
        if all(p.prefix_key in self._rows for p in queue.next(self._wave)):
            return
        new = queue.prefixes(besides=self._rows, count=self._wave)
        self._rows = {k: row for k, row in self._rows.items() if queue.needs(k)}
        used = set(self._rows.values())
        free = [row for row in range(self._size) if row not in used]
        rows = dict(zip(new, free, strict=False))
        self.cache = read_prefixes(
            self._reader,
            self.cache,
            pad(
                list(new.values()),
                rows=self._wave,
                multiple=self.cache.slots,
                windows=self._windows,
                mesh=self._reader.mesh,
            ),
            self._reader.replicate(
                fill_up(list(rows.values()), self._wave, unused=self._size)
            ),
        )
        self._rows |= rows

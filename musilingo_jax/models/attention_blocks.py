"""Blocks of attention on TPUs: how many queries and keys a core handles at once.

A core holds a block of queries, and takes one block of keys and values after another.

    keys         0    1    2    3
    queries 0    x    .    .    .      x = computed, on the diagonal with masked pairs
            1    x    x    .    .      . = skipped, above the diagonal of a causal mask
            2    x    x    x    .
            3    x    x    x    x

Larger blocks of queries read keys and values less often, and take fewer steps, each of
which costs time of its own. Smaller blocks compute fewer masked pairs. Results differ
by rounding only. `plan` counts all of it (`plan/attention_grid.py`).
"""

from dataclasses import dataclass

MULTIPLE = 128
"""Width of a TPU's vectors: sizes of blocks, and so lengths of rows, are multiples."""

SIZES = tuple(range(MULTIPLE, 16 * MULTIPLE + 1, MULTIPLE))
"""What a config may say."""


@dataclass(frozen=True)
class Blocks:
    """The largest blocks, of which the sizes for a row follow.

    Attributes:
      queries: at most so many in a block, one of `SIZES`.
      keys: at most so many in a block, one of `SIZES`.
    """

    queries: int
    keys: int

    def of(self, time: int) -> "Blocks":
        """The sizes for a row: the largest of `SIZES` up to these that divide it.

        Args:
          time: positions of the row, a multiple of `MULTIPLE`.
        """
        return Blocks(_size(time, self.queries), _size(time, self.keys))


DEFAULT = Blocks(queries=512, keys=512)
"""Of configs that were written before blocks could be chosen."""


def _size(time: int, most: int) -> int:
    return max(size for size in SIZES if size <= most and time % size == 0)

"""What an engine is given, and what it tells: shards go in, events come out.

    Load   ()         → Maker      once per process: loads the model, if it needs one
    Maker  shard, …   → event, …   makes one shard after the other, as a stream, so that
                                   the next one's files are decoded meanwhile

    Item(3.2)  Item(8.1)  Made(0, 2)  Item(2.7)  Made(1, 1)
    └─────── shard 0 ────────────┘    └── shard 1 ──────┘

An engine that hands shards to other processes pickles them and `Load`.
"""

from collections.abc import Callable, Generator, Iterable
from typing import Any, NamedTuple, Protocol, runtime_checkable


@runtime_checkable
class Shard(Protocol):
    """What a maker needs to know of a shard: whatever the job wants, and its number."""

    @property
    def number(self) -> int:
        """Of the shard, through all plans."""
        ...


class Item(NamedTuple):
    """An item was worked on.

    Attributes:
      seconds: of sound; 0 for an item without sound.
    """

    seconds: float


class Made(NamedTuple):
    """A shard's file is complete.

    Attributes:
      number: of the shard.
      items: how many of its items were worked on.
    """

    number: int
    items: int


class Lost(NamedTuple):
    """A process ended before its shards were complete; another one makes them.

    Attributes:
      numbers: of the shards.
      reason: a sentence.
    """

    numbers: tuple[int, ...]
    reason: str


Event = Item | Made | Lost
Maker = Callable[[Iterable[Any]], Generator[Item | Made, None, None]]
Load = Callable[[], Maker]

"""The job of programs that make a row of each item, as `jobs.job` runs it."""

import functools
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from musilingo_jax.jobs import job, row_shards
from musilingo_jax.jobs.engine import Engine
from musilingo_jax.jobs.job import Place
from musilingo_jax.jobs.making import Item, Made, Maker
from musilingo_jax.jobs.row_shards import RowState
from musilingo_jax.jobs.share import Share
from musilingo_jax.runtime.errors import UserError


class Result(NamedTuple):
    """What came of an item.

    Attributes:
      row: its row, or why it has none.
      seconds: of sound; 0 for an item without sound.
    """

    row: Mapping[str, Any] | UserError
    seconds: float


RowMaker = Callable[[Sequence[Any]], Iterator[Result]]
"""The items of a shard → what came of each of them, in order."""


def run(
    place: Place,
    items: Mapping[str, Any],
    load: Callable[[], RowMaker],
    share: Share,
    engine: Engine,
    *,
    made: str,
    retry: bool,
) -> RowState:
    """Makes the shards of this share that the folder lacks.

    Args:
      place: where.
      items: id → item; an engine in other processes pickles them.
      load: returns what makes rows; called if there are some to make.
      share: which shards to make.
      engine: in which processes.
      made: what the rows are, such as "these annotations".
      retry: whether items that have failed are planned anew.

    Returns:
      The state of the folder afterwards; with several tasks it may be unfinished.

    Raises:
      UserError: as in `jobs.job.run`.
    """
    return job.run(RowJob(place, items, load, made, retry), share, engine)


class RowWork(NamedTuple):
    """A shard to make.

    Attributes:
      number: of the shard.
      items: those of its items that there are, by id.
      absent: the ids of the others.
    """

    number: int
    items: dict[str, Any]
    absent: tuple[str, ...]


@dataclass(frozen=True)
class RowJob:
    """A `jobs.job.Job`; attributes as the arguments of `run`."""

    place: Place
    rows_of: Mapping[str, Any]
    load_rows: Callable[[], RowMaker]
    made_of: str
    retry: bool

    def read(self) -> RowState:
        """The contents of the folder."""
        place = self.place
        return row_shards.read(
            place.folder, place.identity, made=self.made_of, flag=place.flag
        )

    def unplanned(self, state: RowState) -> list[str]:
        """The items that no shard has, or that are to be tried again."""
        where = state.where
        failed = state.failed if self.retry else {}
        return [item for item in self.rows_of if item not in where or item in failed]

    def work(self, state: RowState, share: Share) -> list[RowWork]:
        """The shards of a share that are unfinished."""
        work = []
        for number in filter(share.has, state.unfinished):
            ids = state.plans.shards[number]
            items = {id: self.rows_of[id] for id in ids if id in self.rows_of}
            absent = tuple(id for id in ids if id not in self.rows_of)
            work.append(RowWork(number, items, absent))
        return work

    def items(self, work: RowWork) -> int:
        """How many items of a shard there are."""
        return len(work.items)

    @property
    def load(self) -> Callable[[], Maker]:
        """Returns what makes shards; it does without the items of others."""
        return functools.partial(_load, self.place, self.load_rows)

    def made(self) -> None:
        """Does nothing: a shard is one file."""

    def finish(self, state: RowState) -> RowState:
        """Does nothing: the program itself writes what it makes of all rows."""
        return state


def _load(place: Place, load_rows: Callable[[], RowMaker]) -> Maker:
    return functools.partial(_make, place, functools.cache(load_rows))


def _make(
    place: Place, load_rows: Callable[[], RowMaker], work: Iterable[RowWork]
) -> Generator[Item | Made, None, None]:
    """Makes shards, one after the other."""
    for shard in work:
        results: list[tuple[str, Mapping[str, Any] | str]] = []
        if shard.items:
            made = load_rows()(list(shard.items.values()))
            for id, result in zip(shard.items, made, strict=True):
                row = result.row
                results.append((id, str(row) if isinstance(row, UserError) else row))
                yield Item(result.seconds)
        row_shards.write(
            place.folder, shard.number, place.identity, results, shard.absent
        )
        yield Made(shard.number, len(shard.items))

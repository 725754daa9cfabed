"""Who makes the shards of a share: this process, or those of a Ray cluster."""

import contextlib
from collections.abc import Generator, Sequence
from typing import NamedTuple

from musilingo_jax.jobs.making import Event, Load, Shard

LOCAL, RAY = "local", "ray"
NAMES = (LOCAL, RAY)


class Engine(NamedTuple):
    """An engine, and what it needs to know.

    Attributes:
      name: one of `NAMES`.
      address: of the Ray cluster, as `ray.init` takes it: "auto" for the one that this
        machine belongs to, or "ray://HOST:10001".
      actors: processes that make shards; 0 for one on each accelerator of the cluster,
        or on each CPU if it has none.
      cpus: of each actor on a cluster without accelerators.
    """

    name: str
    address: str
    actors: int
    cpus: int


THIS_PROCESS = Engine(LOCAL, "", 0, 1)


def make(
    work: Sequence[Shard], load: Load, engine: Engine
) -> Generator[Event, None, None]:
    """Makes shards.

    Args:
      work: the shards.
      load: returns what makes them.
      engine: in which processes.

    Yields:
      What happens, until all of the shards are made.

    Raises:
      UserError: of the maker, or the engine cannot be used.
      OSError: of the maker.
    """
    if engine.name == RAY:
        # Ray is an extra of the package.
        from musilingo_jax.jobs import ray_engine

        events = ray_engine.make(
            work,
            load,
            address=engine.address,
            actors=engine.actors,
            cpus=engine.cpus,
        )
    else:
        events = load()(work)
    with contextlib.closing(events):
        yield from events

"""Makes shards in the processes of a Ray cluster (https://docs.ray.io), an extra.

    this process ──shard──▶ actor 0, on a node    each loads the model once and
                 ◀─events── actor 0               has one device for itself
                 ──shard──▶ actor 1
                    …

Ray starts the processes, places them on devices, and notices which are lost; this file
decides which shard goes where, so that no shard waits for a process that never comes:

- An actor has at most two shards in hand, one of which it works on. What else there is
  stays here, so that memory does not grow with the number of shards.
- An actor that is lost gives its shards back, and another one is asked for. If there is
  no place for it, it waits for a node, which a cluster that grows by itself adds, while
  the others go on.
- A shard whose processes are lost again and again is the likely reason of it: after
  `_ATTEMPTS` it ends the job with a sentence that names it.

All nodes must see the folders of the songs and of the job under the same paths, and
have this package installed.
"""

import signal
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from musilingo_jax.jobs.making import Event, Item, Load, Lost, Made, Shard
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.signals import check_signals

_IN_HAND = 2
_ATTEMPTS = 4
# Seconds between looks for a signal.
_PATIENCE = 1.0
# Actors that are lost before they have made a shard, in a row: none can be started.
_LOST_AT_START = 8


@dataclass
class _Actor:
    """An actor as this process knows it.

    Attributes:
      handle: Ray's.
      starting: the result of its start, until that is there.
      in_hand: the result that each shard will have → the shard.
    """

    handle: Any
    starting: Any
    in_hand: dict[Any, Shard] = field(default_factory=dict)


class _Worker:
    """What runs in each process of the cluster."""

    def __init__(self, load: Load):
        self._load = load

    def start(self) -> None:
        """Loads what makes shards; an error is the caller's, and does not end it."""
        self._maker = self._load()

    def make(self, shard: Shard) -> list[Item | Made]:
        """Makes a shard."""
        return list(self._maker([shard]))


def make(
    work: Sequence[Shard], load: Load, *, address: str, actors: int, cpus: int
) -> Generator[Event, None, None]:
    """Makes shards on a cluster; arguments and result as in `engine.make`.

    Raises:
      UserError: Ray is not installed, there is no such cluster, its processes are lost
        again and again, or of the maker.
      OSError: of the maker.
    """
    ray = _ray()
    with _connected(ray, address):
        needs, most = _needs(ray.cluster_resources(), cpus)
        ours = ray.remote(**needs)(_Worker)
        yield from _Pool(ray, ours, ray.put(load), min(len(work), actors or most)).make(
            work
        )


class _Pool:
    """The actors of a job, and the shards that none of them has."""

    def __init__(self, ray: Any, ours: Any, load: Any, size: int):
        """Asks for `size` actors.

        Args:
          ray: the package.
          ours: `_Worker` as a class of Ray.
          load: of the job, in Ray's store.
          size: how many actors there are, at most.
        """
        self._ray, self._ours, self._load = ray, ours, load
        self._actors = [self._new() for _ in range(size)]
        self._waiting: deque[Shard] = deque()
        self._attempts: Counter[int] = Counter()
        self._lost_at_start = 0

    def make(self, work: Sequence[Shard]) -> Generator[Event, None, None]:
        """Makes shards; the pool is not to be used afterwards.

        Raises:
          UserError: as in the function `make`.
          OSError: as there.
        """
        self._waiting.extend(work)
        left = len(work)
        try:
            while left:
                self._hand_out()
                for result in self._arrived():
                    for event in self._take(result):
                        left -= isinstance(event, Made)
                        yield event
        finally:
            for actor in self._actors:
                self._ray.kill(actor.handle)

    def _new(self) -> _Actor:
        handle = self._ours.remote(self._load)
        return _Actor(handle, handle.start.remote())

    def _hand_out(self) -> None:
        """Gives each actor that has started the shards that it may have."""
        for _ in range(_IN_HAND):
            for actor in self._actors:
                if actor.starting is None and len(actor.in_hand) < _IN_HAND:
                    if not self._waiting:
                        return
                    shard = self._waiting.popleft()
                    actor.in_hand[actor.handle.make.remote(shard)] = shard

    def _arrived(self) -> list[Any]:
        """Results that are there, of starts and of shards; waits for one."""
        expected = [
            result
            for actor in self._actors
            for result in (
                actor.in_hand if actor.starting is None else [actor.starting]
            )
        ]
        check_signals()
        arrived, _ = self._ray.wait(expected, num_returns=1, timeout=_PATIENCE)
        return arrived

    def _take(self, result: Any) -> Iterator[Event]:
        """What a result tells."""
        actor = next(
            (a for a in self._actors if result == a.starting or result in a.in_hand),
            None,
        )
        if actor is None:
            return  # Of an actor that is lost.
        try:
            events = self._ray.get(result)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError | OSError):
                raise error.cause from error
            raise
        except self._ray.exceptions.RayError as error:
            yield self._replace(actor, error)
            return
        if actor.starting is not None:
            actor.starting = None
            return
        self._lost_at_start = 0
        del actor.in_hand[result]
        yield from events

    def _replace(self, actor: _Actor, error: Exception) -> Lost:
        """Asks for another actor, and takes back what a lost one had in hand.

        Raises:
          UserError: a shard has lost too many of them, or none can be started.
        """
        self._actors.remove(actor)
        back = list(actor.in_hand.values())
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        # The first of them is the one that it worked on.
        for shard in back[:1]:
            self._attempts[shard.number] += 1
            if self._attempts[shard.number] == _ATTEMPTS:
                raise UserError(
                    f"shard {shard.number}: {_ATTEMPTS} processes of the Ray cluster "
                    f"were lost while they made it, the last one because of: {reason}"
                )
        self._lost_at_start += not back
        if self._lost_at_start == _LOST_AT_START:
            raise UserError(
                f"{_LOST_AT_START} processes of the Ray cluster were lost before they "
                f"made anything, the last one because of: {reason}"
            )
        self._waiting.extendleft(reversed(back))
        self._actors.append(self._new())
        numbers = tuple(shard.number for shard in back)
        return Lost(numbers, f"a process of the Ray cluster was lost ({reason})")


def _ray() -> Any:
    """The package.

    Raises:
      UserError: it is not installed.
    """
    # Its import takes SIGTERM for itself.
    before = signal.getsignal(signal.SIGTERM)
    try:
        import ray  # type: ignore
    except ImportError as error:
        raise UserError(
            "--engine=ray needs Ray: pip install 'musilingo-jax[ray]'"
        ) from error
    finally:
        signal.signal(signal.SIGTERM, before)
    return ray


@contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """Belongs to a cluster within the block.

    Raises:
      UserError: there is none at this address.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    # Its client raises errors of several kinds.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"--address={address}: there is no Ray cluster ({reason}); `ray start "
            "--head` makes this machine one"
        ) from error
    finally:
        signal.signal(signal.SIGTERM, before)
    try:
        yield
    finally:
        ray.shutdown()


def _needs(resources: dict[str, float], cpus: int) -> tuple[dict[str, Any], int]:
    """What an actor asks of a cluster, and how many there can be now.

    Args:
      resources: name → how much of it the cluster has.
      cpus: of an actor, where there are no accelerators.
    """
    if gpus := int(resources.get("GPU", 0)):
        return {"num_gpus": 1, "num_cpus": 1}, gpus
    if chips := int(resources.get("TPU", 0)):
        return {"resources": {"TPU": 1}, "num_cpus": 1}, chips
    return {"num_cpus": cpus}, max(1, int(resources.get("CPU", 1)) // cpus)

"""Runs a job: plans its shards, makes this process's share of them, finishes.

    1  plan      add the items that no shard has to a new plan        `shard_plan`
    2  make      the shards of this share that are not finished       `engine`
    3  finish    when all shards are finished, what is made of them together

Each step starts from what the folder holds, so that a job that was killed continues by
being started again. Processes of `jax.distributed` plan once and leave together. Tasks
of a job array know nothing of each other.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from musilingo_jax.jobs import engine as engines
from musilingo_jax.jobs import shard_plan
from musilingo_jax.jobs.engine import Engine
from musilingo_jax.jobs.identity import StoredIdentity
from musilingo_jax.jobs.journal import Journal
from musilingo_jax.jobs.making import Load
from musilingo_jax.jobs.progress import Progress
from musilingo_jax.jobs.shard_plan import ShardPlans
from musilingo_jax.jobs.share import Share, claim
from musilingo_jax.runtime import storage
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import print_note, printable

# Seconds after which all hosts see a file that one of them wrote, if they share it.
_VISIBLE_WITHIN = 60.0


class Place(NamedTuple):
    """Where a job works, and how messages call what it does.

    Attributes:
      folder: of the job.
      identity: what its files depend on besides its items.
      shard_items: items per shard, for shards that are not planned yet.
      flag: names another folder, such as "--out".
      busy: what is being done in the folder, such as "filling this cache".
      label: of the progress bar.
      unit: what an item is.
    """

    folder: epath.Path
    identity: StoredIdentity
    shard_items: int
    flag: str
    busy: str
    label: str
    unit: str


@runtime_checkable
class State(Protocol):
    """What a folder holds.

    Attributes:
      plans: which shards there should be.
      torn: what is wrong with the plans on the disk; None if nothing is.
      unfinished: the numbers of planned shards that are not finished.
    """

    @property
    def plans(self) -> ShardPlans: ...  # noqa: D102
    @property
    def torn(self) -> str | None: ...  # noqa: D102
    @property
    def unfinished(self) -> list[int]: ...  # noqa: D102


@runtime_checkable
class Job(Protocol):
    """What a job does that others do otherwise.

    Attributes:
      place: where.
    """

    @property
    def place(self) -> Place: ...  # noqa: D102

    def read(self) -> Any:
        """The `State` of the folder, which need not exist.

        Raises:
          UserError: the folder has another identity, or cannot be read.
        """

    def unplanned(self, state: Any) -> Sequence[str]:
        """The items for a new plan, in order."""
        ...

    def work(self, state: Any, share: Share) -> Sequence[Any]:
        """The shards of this share that are to be made, as `load` takes them."""
        ...

    def items(self, work: Any) -> int:
        """How many items of a shard are to be worked on."""
        ...

    @property
    def load(self) -> Load:
        """Returns what makes shards, in whatever process it is called."""
        ...

    def made(self) -> None:
        """Called when the shards of this share have been made."""

    def finish(self, state: Any) -> Any:
        """Makes of all shards what is made of them together, if all are finished.

        Returns:
          The state of the folder afterwards.
        """


def run(job: Job, share: Share, engine: Engine) -> Any:
    """Makes the shards of this share that the folder lacks.

    Args:
      job: what is done.
      share: which shards to make.
      engine: in which processes.

    Returns:
      The state of the folder afterwards; with several tasks it may be unfinished.

    Raises:
      UserError: the folder has files of another identity, another process works in it,
        it cannot be written, or its plans are damaged and there are several tasks.
    """
    folder, together = job.place.folder, jax.process_count() > 1
    with (
        _one_sentence(job.place),
        claim(folder, share, busy=job.place.busy),
    ):
        if share.tasks == 1:
            _remove_partial_files(folder)
        state = _plan_once(job, share)
        if work := job.work(state, share):
            _make(job, work, share, engine)
            job.made()
            if share.tasks == 1:  # Those of processes that were lost.
                _remove_partial_files(folder)
        if together:
            _await_shards(job)
            multihost_utils.sync_global_devices("shards are there")
        state = job.read()
        if share.task == 0 or not together:
            state = job.finish(state)
        if together:
            multihost_utils.sync_global_devices("shards are listed")
    return state


def _make(job: Job, work: Sequence[Any], share: Share, engine: Engine) -> None:
    """Makes shards, and says in the journal and on stderr how far that is."""
    place, total = job.place, sum(map(job.items, work))
    journal = Journal(place.folder, share, len(work), engine.name)
    with (
        contextlib.closing(engines.make(work, job.load, engine)) as events,
        Progress(total, share.label(place.label), place.unit) as progress,
    ):
        for event in events:
            journal.note(event)
            progress.note(event)
    journal.end()


def _remove_partial_files(folder: epath.Path) -> None:
    storage.remove_partial_files(folder, "")
    storage.remove_partial_files(folder / shard_plan.FOLDER, "")


@contextlib.contextmanager
def _one_sentence(place: Place) -> Iterator[None]:
    """Turns a failure to write into one sentence.

    Raises:
      UserError: a file of the job cannot be written.
    """
    try:
        yield
    except OSError as error:
        again = (
            "run the same command again, which keeps what is finished, or choose "
            f"another folder with {place.flag}=…"
        )
        failure = storage.write_failure(place.folder, error, again=again)
        if failure is None:  # One of a store, or of a library.
            reason = printable(str(error))
            failure = UserError(
                f"{place.folder}: cannot be written ({reason}): {again}"
            )
        raise failure from error


def _plan_once(job: Job, share: Share) -> Any:
    """The state when all items are planned.

    Of processes that work together, the first one plans.
    """
    if jax.process_count() == 1:
        return _plan(job, repair=share.tasks == 1)
    state = _plan(job, repair=True) if share.task == 0 else None
    count = np.array(state.plans.count if state else 0)
    return _await_plan(job, int(multihost_utils.broadcast_one_to_all(count)))


def _plan(job: Job, *, repair: bool) -> Any:
    """Adds plans until each item is planned, by this or by another process."""
    folder, identity = job.place.folder, job.place.identity
    while True:
        state = job.read()
        if state.torn and not repair:
            # What finished shards know depends on which tasks were faster.
            raise UserError(
                f"{state.torn}; run this once without --tasks, which repairs it and "
                "keeps what was finished"
            )
        if state.torn:
            shard_plan.replace(folder, state.plans)
            continue
        unplanned = job.unplanned(state)
        if not unplanned:
            return state
        shard_plan.add(
            folder,
            identity,
            state.plans,
            unplanned,
            shard_items=job.place.shard_items,
        )


def _await_plan(job: Job, count: int) -> Any:
    """The state once this host sees `count` plans."""
    deadline = time.monotonic() + _VISIBLE_WITHIN
    while time.monotonic() < deadline:
        state = job.read()
        if state.plans.count >= count:
            return state
        time.sleep(1)
    raise UserError(
        f"{job.place.folder}: process {jax.process_index()} does not see what process "
        f"0 wrote there; {job.place.flag.removeprefix('--')} must be one folder for "
        "all hosts"
    )


def _await_shards(job: Job) -> None:
    """Waits for the other processes; if one dies, JAX ends the others."""
    announced = False
    while True:
        started = time.monotonic()
        unfinished = job.read().unfinished
        if not unfinished:
            return
        if not announced:
            announced = True
            print_note(
                f"process {jax.process_index()} is done and waits for the others: "
                f"{len(unfinished)} shards are not finished yet"
            )
        # Reading a large or remote folder takes time itself.
        time.sleep(max(1.0, 10 * (time.monotonic() - started)))

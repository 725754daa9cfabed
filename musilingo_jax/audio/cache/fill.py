"""Fills a cache: plans its shards, makes this process's share of them, indexes all.

    1  plan      add the clips that no shard has to a new plan        `shard_plan`
    2  encode    make the shards of this share, one after the other   `encode_shards`
    3  index     when all shards are finished, list them in one file  `cache_state`

Each step starts from what the folder holds, so that a job that was killed continues by
being started again. Processes of `jax.distributed` plan once and leave together. Tasks
of a job array know nothing of each other.
"""

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from musilingo_jax.audio.cache import cache_state, shard_plan, shards
from musilingo_jax.audio.cache.cache_state import (
    ABSENT,
    HELD,
    MISSING,
    SKIPPED,
    CacheState,
)
from musilingo_jax.audio.cache.clips import Clip, is_available
from musilingo_jax.audio.cache.encode_shards import Encoder, ShardWork, encode_shards
from musilingo_jax.audio.cache.identity import Identity
from musilingo_jax.audio.features import FeatureConfig
from musilingo_jax.runtime import paths, storage
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import print_note, printable

# Seconds after which all hosts see a file that one of them wrote, if they share it.
_VISIBLE_WITHIN = 60.0


class Share(NamedTuple):
    """A part of the work: that of task `task`, from 0, of `tasks`."""

    task: int
    tasks: int

    @classmethod
    def of_this_process(cls) -> "Share":
        """This process's share among those of `jax.distributed`, if it is used."""
        return cls(jax.process_index(), jax.process_count())

    def has(self, shard: int) -> bool:
        """Whether a shard is made by this task."""
        return shard % self.tasks == self.task

    def label(self, what: str) -> str:
        """`what`, with the task if there are several."""
        return what + f" (task {self.task} of {self.tasks})" * (self.tasks > 1)


def run(
    clips: Iterable[Clip],
    load: Callable[[], Encoder],
    config: FeatureConfig,
    folder: epath.Path,
    identity: Identity,
    share: Share,
    *,
    shard_clips: int,
    retry: bool,
) -> None:
    """Makes the shards of this share that the cache lacks.

    What is noted of a clip that gets no features:

        skipped    its file cannot be decoded; tried again with `retry`
        missing    its file does not exist, cannot be read, or is not what the id says;
                   its shard is made again by the first job that finds the file
        absent     it is planned, but not among `clips` any more; planned anew by the
                   first job that has it again

    Args:
      clips: what the cache should hold; whatever else it holds is kept.
      load: returns the encoder and its mesh; called if there is something to encode.
      config: how songs become vectors.
      folder: the cache, made if it does not exist.
      identity: what the features depend on.
      share: which shards to make.
      shard_clips: clips per shard, for shards that are not planned yet.
      retry: whether clips that were skipped are planned anew.

    Raises:
      UserError: the cache was made with another identity, another process is filling
        it, it cannot be written, or its plans are damaged and there are several tasks.
    """
    corpus = {clip.id: clip for clip in clips}
    together = jax.process_count() > 1
    try:
        with _claim(folder, share):
            if share.tasks == 1:
                storage.remove_partial_files(folder, "")
                storage.remove_partial_files(folder / shard_plan.FOLDER, "")
            state = _plan_once(folder, identity, corpus, share, shard_clips, retry)
            work = _work(state, corpus, share)
            if work:
                label = share.label("encoding")
                encode_shards(work, load, config, folder, identity, label=label)
                # Another task may have written it meanwhile, with earlier notes.
                (folder / shards.SHARD_INDEX).unlink(missing_ok=True)
            if together:
                _await_shards(folder, identity)
                multihost_utils.sync_global_devices("features are there")
            state = cache_state.read(folder, identity)
            if share.task == 0 or not together:
                state = _index(folder, identity, state)
            if together:
                multihost_utils.sync_global_devices("features are listed")
    except OSError as error:
        again = (
            "run the same command again, which keeps what is finished, or choose "
            "another folder with --config.features.cache=…"
        )
        failure = storage.write_failure(folder, error, again=again)
        if failure is None:  # One of a store, or of a library.
            reason = printable(str(error))
            failure = UserError(f"{folder}: cannot be written ({reason}): {again}")
        raise failure from error
    _check_complete(folder, state, corpus)


def unsettled(state: CacheState, clips: Iterable[Clip], *, retry: bool) -> list[str]:
    """The clips for which a job would do something."""
    fates = state.fates()
    settled = (HELD,) if retry else (HELD, SKIPPED)
    return [
        clip.id
        for clip in clips
        if (fate := fates.get(clip.id)) not in settled
        and (fate != MISSING or is_available(clip))
    ]


@contextlib.contextmanager
def _claim(folder: epath.Path, share: Share) -> Iterator[None]:
    """Keeps other processes from making the same shards, within the `with` block.

    Each task of a job has the folder together with the others, but once; a job of one
    task has it alone. This only saves work that would be done twice: some network file
    systems have no locks, and buckets have none.

    Raises:
      UserError: another process has the folder.
      OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not paths.is_local(folder):
        yield
        return
    locks = [("lock", fcntl.LOCK_EX if share.tasks == 1 else fcntl.LOCK_SH)]
    if share.tasks > 1:
        locks.append((f"lock-{share.task}-of-{share.tasks}", fcntl.LOCK_EX))
    with contextlib.ExitStack() as stack:
        for name, kind in locks:
            # The system releases the lock of a process that ends, however it ends.
            lock = stack.enter_context(storage.open_lock(folder / name))
            try:
                fcntl.flock(lock, kind | fcntl.LOCK_NB)
            except BlockingIOError as error:
                task = f" as task {share.task} of {share.tasks}"
                raise UserError(
                    f"{folder}: another program is filling this cache"
                    f"{task * (share.tasks > 1)}; wait for it"
                ) from error
            except OSError:
                stack.close()  # A file system without locks.
        yield


def _plan_once(
    folder: epath.Path,
    identity: Identity,
    corpus: Mapping[str, Clip],
    share: Share,
    shard_clips: int,
    retry: bool,
) -> CacheState:
    """The state of the cache when all clips are planned.

    Of processes that work together, the first one plans.
    """
    if jax.process_count() == 1:
        repair = share.tasks == 1
        return _plan(folder, identity, corpus, shard_clips, retry, repair=repair)
    state = None
    if share.task == 0:
        state = _plan(folder, identity, corpus, shard_clips, retry, repair=True)
    count = np.array(state.plans.count if state else 0)
    count = int(multihost_utils.broadcast_one_to_all(count))
    return _await_plan(folder, identity, count)


def _plan(
    folder: epath.Path,
    identity: Identity,
    corpus: Mapping[str, Clip],
    shard_clips: int,
    retry: bool,
    *,
    repair: bool,
) -> CacheState:
    """Adds plans until each clip is planned, by this or by another process."""
    while True:
        state = cache_state.read(folder, identity)
        if state.torn and not repair:
            # What the notes know depends on which tasks were faster.
            raise UserError(
                f"{state.torn}; run this once without --tasks, which repairs it and "
                "keeps what was finished"
            )
        if state.torn:
            shard_plan.replace(folder, state.plans)
            continue
        fates = state.fates()
        again = (None, ABSENT, SKIPPED) if retry else (None, ABSENT)
        unplanned = [clip for clip in corpus if fates.get(clip) in again]
        if not unplanned:
            return state
        shard_plan.add(
            folder, identity, state.plans, unplanned, shard_clips=shard_clips
        )


def _await_plan(folder: epath.Path, identity: Identity, count: int) -> CacheState:
    """The state of the cache once this host sees `count` plans."""
    deadline = time.monotonic() + _VISIBLE_WITHIN
    while time.monotonic() < deadline:
        state = cache_state.read(folder, identity)
        if state.plans.count >= count:
            return state
        time.sleep(1)
    raise UserError(
        f"{folder}: process {jax.process_index()} does not see what process 0 wrote "
        "there; config.features.cache must be one folder for all hosts"
    )


def _work(
    state: CacheState, corpus: Mapping[str, Clip], share: Share
) -> list[ShardWork]:
    """The shards of this share that are unfinished, or miss a file that is found."""
    work = []
    for number, ids in enumerate(state.plans.shards):
        if not share.has(number):
            continue
        clips = {id: corpus[id] for id in ids if id in corpus}
        note = state.notes.get(number)
        if note is None:
            work.append(ShardWork(number, ids, clips, again=False))
        elif any(is_available(clips[id]) for id in note["missing"] if id in clips):
            work.append(ShardWork(number, ids, clips, again=True))
    return work


def _await_shards(folder: epath.Path, identity: Identity) -> None:
    """Waits for the other processes; if one dies, JAX ends the others."""
    announced = False
    while True:
        started = time.monotonic()
        unfinished = cache_state.read(folder, identity).unfinished
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


def _index(folder: epath.Path, identity: Identity, state: CacheState) -> CacheState:
    """Writes the index, if all shards are finished and it is not complete.

    Another task may make a shard again between reading the notes and writing the index.
    So the notes are read again afterwards, until nothing has changed.
    """
    while not state.unfinished and not state.indexed:
        cache_state.write_index(folder, state)
        written = state.notes
        state = cache_state.read(folder, identity, trust_index=False)
        if state.notes == written:
            break
    return state


def _check_complete(
    folder: epath.Path, state: CacheState, corpus: Iterable[str]
) -> None:
    """Checks that each clip is held, noted, or waiting for another task.

    Raises:
      UserError: a clip has been lost.
    """
    fates = state.fates()
    lost = [clip for clip in corpus if fates.get(clip) in (None, ABSENT)]
    if lost:
        raise UserError(
            f"{folder}: {len(lost)} clips, {lost[0]} for one, are neither encoded nor "
            "skipped; another program may have changed the folder meanwhile: run this "
            "again"
        )

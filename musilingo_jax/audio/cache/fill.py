"""Fills a cache: this process's share of the shards, one after the other.

    files ──threads──▶ blocks of sound ──▶ encoder ──▶ records of shard 0, 4, 8, …

Shards follow each other without a pause, since files of the next one are decoded while
the encoder is at the last songs of this one; but no batch holds songs of two shards.
So a shard has the same bits whoever makes it, and whatever was made before.
"""

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from musilingo_jax.audio import waveforms
from musilingo_jax.audio.cache import shard_plan, shards
from musilingo_jax.audio.cache.clips import Clip, Unavailable, hear, is_at_hand
from musilingo_jax.audio.cache.reader import Before
from musilingo_jax.audio.cache.shard_plan import Identity
from musilingo_jax.audio.cache.shards import ABSENT, HELD, MISSING, SKIPPED, CacheState
from musilingo_jax.audio.features import FeatureConfig, encode
from musilingo_jax.models.mert import Mert
from musilingo_jax.runtime import cli, storage
from musilingo_jax.runtime.errors import UserError

# Seconds after which a file that one host wrote is seen by all, if they share it.
_VISIBLE_WITHIN = 60.0


class Share(NamedTuple):
    """Which part of the work is this process's: task `task` of `tasks`, from 0."""

    task: int
    tasks: int

    @classmethod
    def of_this_process(cls) -> "Share":
        """Among the processes of `jax.distributed`, if there are several."""
        return cls(jax.process_index(), jax.process_count())

    def has(self, shard: int) -> bool:
        return shard % self.tasks == self.task


class _Work(NamedTuple):
    """A shard to make.

    Attributes:
      number: of the shard.
      ids: its clips, as planned.
      clips: those of them that are wanted, by id.
      before: what its note says, if it was made before and is made again.
    """

    number: int
    ids: tuple[str, ...]
    clips: dict[str, Clip]
    before: dict[str, Any] | None


def run(
    clips: Iterable[Clip],
    load: Callable[[], tuple[Mert, jax.sharding.Mesh]],
    config: FeatureConfig,
    folder: epath.Path,
    identity: Identity,
    share: Share,
    *,
    shard_clips: int,
    retry: bool,
) -> None:
    """Makes the shards of this share that the cache lacks.

    A clip that cannot be decoded is put down as skipped, with the reason. Planned clips
    that are not among `clips` any more are put down as absent, and planned anew if
    somebody wants them. Clips whose files are not there, cannot be read or hold
    something else than the id says are put down as missing: their shard is made again
    by the first job that finds one of them. When all shards are there, the index is
    written.

    Processes of `jax.distributed` share the work and leave together; tasks of a job
    array do not know of each other.

    Args:
      clips: what the cache should hold; what else it holds stays.
      load: gives the encoder and where it runs; called if there is work.
      config: how songs become vectors.
      folder: the cache, made if there is none.
      identity: what the features depend on.
      share: which shards to make.
      shard_clips: of shards that are not planned yet.
      retry: plan the clips anew that were skipped.

    Raises:
      UserError: the cache was made with another identity, another process is filling
        it, it cannot be written, or its plans are damaged and there are several tasks.
    """
    wanted = {clip.id: clip for clip in clips}
    together = jax.process_count() > 1
    try:
        with shards.claim(folder, task=share.task, tasks=share.tasks):
            if share.tasks == 1:
                storage.remove_partial_files(folder, "")
                storage.remove_partial_files(folder / shard_plan.FOLDER, "")
            if not together or share.task == 0:
                alone = share.tasks == 1 or together
                state = _plan(folder, identity, wanted, shard_clips, retry, alone)
            if together:
                count = state.plans.count if share.task == 0 else 0
                count = multihost_utils.broadcast_one_to_all(np.array(count))
                state = _await_plan(folder, identity, int(count))
            work = _work(state, wanted, share)
            if work:
                _encode(work, load, config, folder, identity, share)
                # It may tell of shards as they were before.
                (folder / shards.SHARD_INDEX).unlink(missing_ok=True)
            if together:
                _await_shards(folder, identity)
                multihost_utils.sync_global_devices("features are there")
            state = shards.read(folder, identity)
            first = share.task == 0 or not together
            # Another task may finish between the two; then what it did is told, too.
            while first and not state.unfinished and not state.indexed:
                shards.write_index(folder, state)
                (before, state) = state, _from_notes(folder, identity)
                if state.lines == before.lines:
                    break
            if together:
                multihost_utils.sync_global_devices("features are listed")
    except OSError as error:
        again = (
            "run the same command again, which keeps what is finished, or choose "
            "another folder with --config.features.cache=…"
        )
        raise storage.write_failure(folder, error, again=again) or error from error
    _check_complete(folder, state, wanted)


def unsettled(state: CacheState, clips: Iterable[Clip], *, retry: bool) -> list[str]:
    """The clips that a job has something to do for."""
    fates = state.fates()
    settled = (HELD,) if retry else (HELD, SKIPPED)
    return [
        clip.id
        for clip in clips
        if (fate := fates.get(clip.id)) not in settled
        and (fate != MISSING or is_at_hand(clip))
    ]


def _unplanned(state: CacheState, clips: Iterable[Clip], *, retry: bool) -> list[str]:
    """The clips that no shard holds or is going to hold."""
    fates = state.fates()
    again = (None, ABSENT, SKIPPED) if retry else (None, ABSENT)
    return [clip.id for clip in clips if fates.get(clip.id) in again]


def _check_complete(
    folder: epath.Path, state: CacheState, wanted: Iterable[str]
) -> None:
    """That whoever made the shards left out nobody.

    Raises:
      UserError: a clip has been lost.
    """
    fates = state.fates()
    lost = [clip for clip in wanted if fates.get(clip) in (None, ABSENT)]
    if lost:
        raise UserError(
            f"{folder}: {len(lost)} clips, {lost[0]} for one, are neither encoded nor "
            "skipped; another program may have changed the folder meanwhile: run this "
            "again"
        )


def _plan(
    folder: epath.Path,
    identity: Identity,
    wanted: dict[str, Clip],
    shard_clips: int,
    retry: bool,
    alone: bool,
) -> CacheState:
    """What there is, all wanted clips being planned."""
    while True:
        state = shards.read(folder, identity)
        if state.torn:
            if not alone:
                # What the notes know depends on which tasks were quicker.
                raise UserError(
                    f"{state.torn}; run this once without --tasks, which mends it and "
                    "keeps what was finished"
                )
            shard_plan.replace(folder, state.plans)
            continue
        lacking = _unplanned(state, wanted.values(), retry=retry)
        if not lacking:
            return state
        shard_plan.add(folder, identity, state.plans, lacking, shard_clips=shard_clips)


def _await_plan(folder: epath.Path, identity: Identity, count: int) -> CacheState:
    """What there is, once this host sees as many plans as the first process made."""
    deadline = time.monotonic() + _VISIBLE_WITHIN
    while time.monotonic() < deadline:
        state = shards.read(folder, identity)
        if state.plans.count >= count:
            return state
        time.sleep(1)
    raise UserError(
        f"{folder}: process {jax.process_index()} does not see what process 0 wrote "
        "there; config.features.cache must be one folder for all hosts"
    )


def _await_shards(folder: epath.Path, identity: Identity) -> None:
    """Waits for the other processes; if one dies, JAX ends the others."""
    told = False
    while True:
        started = time.monotonic()
        unfinished = shards.read(folder, identity).unfinished
        if not unfinished:
            return
        if not told:
            told = True
            print(
                f"process {jax.process_index()} is done and waits for the others: "
                f"{len(unfinished)} shards are not finished yet",
                file=sys.stderr,
            )
        # To look takes its time where the folder is large or far away.
        time.sleep(max(1.0, 10 * (time.monotonic() - started)))


def _from_notes(folder: epath.Path, identity: Identity) -> CacheState:
    """What there is, whatever the index says."""
    return shards.read(folder, identity, believe_index=False)


def _work(state: CacheState, wanted: dict[str, Clip], share: Share) -> list[_Work]:
    """The shards of this share that are not there, or lack what can be had now."""
    work = []
    for number, ids in enumerate(state.plans.shards):
        line = state.lines.get(number)
        clips = {id: wanted[id] for id in ids if id in wanted}
        if share.has(number) and (
            line is None
            or any(is_at_hand(clips[id]) for id in line["missing"] if id in clips)
        ):
            work.append(_Work(number, ids, clips, line))
    return work


def _encode(
    work: list[_Work],
    load: Callable[[], tuple[Mert, jax.sharding.Mesh]],
    config: FeatureConfig,
    folder: epath.Path,
    identity: Identity,
    share: Share,
) -> None:
    """Makes shards, one after the other."""
    # What is to be encoded may be nothing, if all clips are absent.
    mert, mesh = load() if any(shard.clips for shard in work) else (None, None)
    sample_rate = mert.config.sample_rate if mert else 1
    meters: deque[waveforms.Meter] = deque()

    def sounds() -> Iterator[Iterator[waveforms.Block] | None]:
        for shard in work:
            for clip in shard.clips.values():
                yield hear(clip, sample_rate)
            yield None

    def metered(ahead: Iterator) -> Iterator[waveforms.Meter | None]:
        for sound in ahead:
            if sound is not None:
                meters.append(waveforms.Meter(sound))
            yield None if sound is None else meters[-1]

    with (
        contextlib.closing(waveforms.read_ahead(sounds())) as ahead,
        _Progress(sum(len(shard.clips) for shard in work), share) as progress,
    ):
        results = encode(mert, metered(ahead), config, mesh)
        for shard in work:
            with (
                shards.ShardWriter(folder, shard.number, identity) as writer,
                Before(folder, shard.number, shard.before) as before,
            ):
                note: dict[str, Any] = {
                    "clips": [],
                    "silent": [],
                    "skipped": {},
                    "missing": {},
                    "absent": [],
                }
                for id in shard.ids:
                    clip, found, silent = shard.clips.get(id), None, False
                    if clip is not None:
                        _, found = next(results)
                        meter = meters.popleft()
                        seconds, silent = meter.samples / sample_rate, meter.silent
                        progress.add(seconds)
                    if isinstance(found, np.ndarray):
                        entry = _entry(clip, found, seconds)
                    elif found is None or isinstance(found, Unavailable):
                        # What was there once is kept, though its file may be gone.
                        entry, kept, silent = before.get(id)
                        if kept is None and found is None:
                            note["absent"].append(id)
                        elif kept is None:
                            note["missing"][id] = _reason(clip, found)
                        found = kept
                    else:
                        note["skipped"][id] = _reason(clip, found)
                        continue
                    if found is not None:
                        writer.add(found)
                        note["clips"].append(entry)
                        note["silent"] += [id] if silent else []
                writer.finish(note)


def _entry(clip: Clip, found: np.ndarray, seconds: float) -> list[Any]:
    """What is noted of a record."""
    return [clip.id, len(found), round(seconds, 3), str(clip.path)]


def _reason(clip: Clip, error: UserError) -> str:
    """What is wrong with a clip, with its path."""
    said = str(error)
    return said if said.startswith(str(clip.path)) else f"{clip.path}: {said}"


class _Progress:
    """A bar of clips, with how much faster than listening it goes."""

    def __init__(self, total: int, share: Share):
        """`total` clips are to be encoded by this share."""
        label = "encoding"
        if share.tasks > 1:
            label += f" (task {share.task} of {share.tasks})"
        # Processes that were started together write to one screen.
        hidden = jax.process_index() != 0
        self._bar = cli.progress(total=total, unit="clip", label=label, disable=hidden)
        self._started, self._seconds = time.monotonic(), 0.0

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.close()

    def add(self, seconds: float) -> None:
        self._seconds += seconds
        speed = self._seconds / (time.monotonic() - self._started)
        self._bar.set_postfix_str(f"{speed:,.1f}× real time", refresh=False)
        self._bar.update()

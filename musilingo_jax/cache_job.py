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
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from musilingo_jax import audio, cli, folders, shard_plans, shards
from musilingo_jax.errors import UserError
from musilingo_jax.features import FeatureConfig, encode
from musilingo_jax.models.mert import Mert
from musilingo_jax.shard_plans import Identity
from musilingo_jax.shards import ABSENT, SKIPPED, State

# Seconds after which a file that one host wrote is seen by all, if they share it.
_VISIBLE_WITHIN = 60.0


class Clip(NamedTuple):
    """A song to encode.

    Attributes:
      id: tells these contents of the file, and this stretch of it, from others.
      path: the file.
      start, end: seconds of the file; None for all of it.
      rate: samples per second of an `.npy`.
    """

    id: str
    path: Path
    start: float | None = None
    end: float | None = None
    rate: int | None = None


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
    """A shard to make: its clips that are at hand, and the others."""

    number: int
    clips: list[Clip]
    absent: list[str]


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
    somebody wants them. When all shards are there, the index is written.

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
        it, or it cannot be written.
    """
    wanted = {clip.id: clip for clip in clips}
    together = jax.process_count() > 1
    try:
        with shards.claim(folder, task=share.task, tasks=share.tasks):
            if share.tasks == 1:
                folders.sweep(folder, "")
                folders.sweep(folder / shard_plans.FOLDER, "")
            if not together or share.task == 0:
                state = _plan(folder, identity, wanted, shard_clips, retry)
            if together:
                count = state.plans.count if share.task == 0 else 0
                count = multihost_utils.broadcast_one_to_all(np.array(count))
                state = _await_plan(folder, identity, int(count))
            work = [
                _work(number, state.plans.shards[number], wanted)
                for number in state.unfinished
                if share.has(number)
            ]
            if work:
                _encode(work, load, config, folder, share)
            if together:
                _await_shards(folder, identity)
                multihost_utils.sync_global_devices("features are there")
            state = shards.read(folder, identity)
            first = share.task == 0 or not together
            if first and not state.unfinished and not state.indexed:
                shards.write_index(folder, state)
            if together:
                multihost_utils.sync_global_devices("features are listed")
    except OSError as error:
        raise UserError(
            f"{folder}: the cache cannot be written ({error.strerror or error}); what "
            "was finished is kept. Make room there, or choose another folder with "
            "--config.features.cache=…"
        ) from error


def missing(state: State, clips: Iterable[Clip], *, retry: bool) -> list[str]:
    """The clips that no shard holds or is going to hold."""
    fates = state.fates()
    again = (None, ABSENT, SKIPPED) if retry else (None, ABSENT)
    return [clip.id for clip in clips if fates.get(clip.id) in again]


def _plan(
    folder: epath.Path,
    identity: Identity,
    wanted: dict[str, Clip],
    shard_clips: int,
    retry: bool,
) -> State:
    """What there is, all wanted clips being planned."""
    while True:
        state = shards.read(folder, identity)
        lacking = missing(state, wanted.values(), retry=retry)
        if not lacking:
            return state
        shard_plans.add(folder, identity, state.plans, lacking, shard_clips=shard_clips)


def _await_plan(folder: epath.Path, identity: Identity, count: int) -> State:
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


def _work(number: int, ids: Iterable[str], wanted: dict[str, Clip]) -> _Work:
    clips = [wanted[id] for id in ids if id in wanted]
    return _Work(number, clips, [id for id in ids if id not in wanted])


def _encode(
    work: list[_Work],
    load: Callable[[], tuple[Mert, jax.sharding.Mesh]],
    config: FeatureConfig,
    folder: epath.Path,
    share: Share,
) -> None:
    """Makes shards, one after the other."""
    # What is to be encoded may be nothing, if all clips are absent.
    mert, mesh = load() if any(shard.clips for shard in work) else (None, None)
    sample_rate = mert.config.sample_rate if mert else 1
    meters: deque[audio.Meter] = deque()

    def sounds() -> Iterator[Iterator[audio.Block] | None]:
        for shard in work:
            for clip in shard.clips:
                yield audio.read(
                    clip.path,
                    sample_rate=sample_rate,
                    npy_rate=clip.rate,
                    start=clip.start,
                    end=clip.end,
                )
            yield None

    def metered(ahead: Iterator) -> Iterator[audio.Meter | None]:
        for sound in ahead:
            if sound is not None:
                meters.append(audio.Meter(sound))
            yield None if sound is None else meters[-1]

    with (
        contextlib.closing(audio.read_ahead(sounds())) as ahead,
        _Progress(sum(len(shard.clips) for shard in work), share) as progress,
    ):
        results = encode(mert, metered(ahead), config, mesh)
        for shard in work:
            with shards.Writer(folder, shard.number) as writer:
                note: dict[str, Any] = {"clips": [], "silent": [], "skipped": {}}
                for clip in shard.clips:
                    _, found = next(results)
                    meter = meters.popleft()
                    seconds = meter.samples / sample_rate
                    if isinstance(found, UserError):
                        note["skipped"][clip.id] = _reason(clip, found)
                    else:
                        writer.add(found)
                        note["clips"].append(_entry(clip, found, seconds))
                        if meter.silent:
                            note["silent"].append(clip.id)
                    progress.add(seconds)
                writer.finish(note | {"absent": shard.absent})


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

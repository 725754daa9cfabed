"""The folder that features lie in, made to survive being killed.

    plans/000.json           which clips share a shard; see `shard_plans`
    00000000.array_record    a record per clip: the bytes of its float32 [rows, width]
    00000000.json            which clips these are; once it is there, so is the shard
    index.jsonl              all that in one file, once all shards are there

A file has its name only when it is complete. Shards depend on the plan alone, so that
it does not matter who makes them, in which order, or how often.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from etils import epath
from jaxtyping import Float

from musilingo_jax import folders, shard_plans
from musilingo_jax.errors import UserError
from musilingo_jax.shard_plans import Identity, Plans

INDEX = "index.jsonl"
REMEDY = "run `python -m musilingo_jax.cache --config=…` with the same config"

# What became of a clip.
PENDING, HELD, SKIPPED, ABSENT = "pending", "held", "skipped", "absent"


@dataclass(frozen=True)
class State:
    """What there is in a cache.

    Attributes:
      plans: what there should be.
      lines: number of a finished shard → what the index says of it.
      damaged: shards that were finished, but whose records are missing or cut off.
      indexed: whether the index knows all this.
    """

    plans: Plans
    lines: dict[int, dict[str, Any]]
    damaged: list[str]
    indexed: bool

    @property
    def unfinished(self) -> list[int]:
        """The numbers of the shards that are planned and not there."""
        return [n for n in range(len(self.plans.shards)) if n not in self.lines]

    def fates(self) -> dict[str, str]:
        """What became of each planned clip; the last plan has the last word."""
        fates = {}
        for number, clips in enumerate(self.plans.shards):
            line = self.lines.get(number)
            fates |= dict.fromkeys(clips, HELD if line else PENDING)
            if line:
                fates |= dict.fromkeys(line["skipped"], SKIPPED)
                fates |= dict.fromkeys(line["absent"], ABSENT)
        return fates


def read(folder: epath.Path, identity: Identity | None) -> State:
    """What there is, checked against `identity` if one is given.

    Raises:
      UserError: the folder has another identity, or a plan cannot be read.
    """
    plans, sizes = shard_plans.read(folder), folders.sizes(folder)
    header, lines = _read_index(folder) if INDEX in sizes else ({}, {})
    found = plans.identity or header.get("identity")
    if found and identity:
        _check(folder, found, identity)
    indexed = header.get("plans") == plans.count and len(lines) == len(plans.shards)
    if not indexed:
        lines = _read_notes(folder, plans, sizes)
    whole, damaged = {}, []
    for number, line in lines.items():
        name, size = record_name(number), line["bytes"]
        # In a bucket, where there are no sizes, files are whole if they are there.
        if size and (name not in sizes or sizes[name] not in (size, None)):
            damaged.append(name)
        else:
            whole[number] = line
    return State(plans, whole, damaged, indexed)


def write_index(folder: epath.Path, state: State) -> None:
    """Writes what there is into one file.

    Raises:
      OSError: it cannot be written.
    """
    header = {"identity": state.plans.identity, "plans": state.plans.count}
    lines = [header, *(state.lines[number] for number in sorted(state.lines))]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    folders.write(folder / INDEX, text)


class Writer:
    """A shard in the making; leaving it without `finish` leaves nothing behind."""

    def __init__(self, folder: epath.Path, number: int):
        """A use as context manager begins it."""
        self._folder, self._number = folder, number
        self._stack = contextlib.ExitStack()
        self._records: ArrayRecordWriter | None = None
        self._partial: Path | None = None

    def __enter__(self) -> "Writer":
        folders.sweep(self._folder, f"{self._number:08}.")
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def add(self, features: Float[np.ndarray, "rows width"]) -> None:
        """Writes the next record.

        Raises:
          OSError: the disk is full, for example.
        """
        try:
            if self._records is None:
                path = self._folder / record_name(self._number)
                self._partial = self._stack.enter_context(folders.whole(path))
                # One record a group: each is read alone. Noise does not compress.
                options = "group_size:1,uncompressed"
                self._records = ArrayRecordWriter(str(self._partial), options)
            self._records.write(features.tobytes())
        except RuntimeError as error:
            raise OSError(str(error)) from error

    def finish(self, note: dict[str, Any]) -> None:
        """Gives the records their name, and then writes down what they are.

        Args:
          note: `clips`, a list for each record, whose first item is the clip's id;
            `skipped`, clip → reason; `absent`, a list of clips; what else there is.

        Raises:
          OSError: as in `add`.
        """
        size = 0
        if self._records is not None:
            try:
                self._records.close()
            except RuntimeError as error:
                raise OSError(str(error)) from error
            size = self._partial.stat().st_size
        self._stack.close()
        line = {"shard": record_name(self._number), "bytes": size, **note}
        folders.write(self._folder / _note_name(self._number), json.dumps(line) + "\n")


@contextlib.contextmanager
def claim(folder: epath.Path, *, task: int, tasks: int) -> Iterator[None]:
    """Keeps other programs from making the same shards, while it lasts.

    Tasks of one job may share the folder, each once; a job of one task has it alone.
    Nothing depends on it but that no work is done twice: not every network folder has
    locks, and buckets have none.

    Raises:
      UserError: another program is at it.
      OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not folders.is_local(folder):
        yield
        return
    wanted = [("lock", fcntl.LOCK_EX if tasks == 1 else fcntl.LOCK_SH)]
    if tasks > 1:
        wanted.append((f"lock-{task}-of-{tasks}", fcntl.LOCK_EX))
    with contextlib.ExitStack() as stack:
        for name, kind in wanted:
            # The system takes the lock back from a process that dies, however it dies.
            lock = stack.enter_context(open(folder / name, "a+"))
            try:
                fcntl.flock(lock, kind | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"{folder}: another program is filling this cache"
                    + (f" as task {task} of {tasks}" if tasks > 1 else "")
                    + "; wait for it"
                ) from error
            except OSError:
                stack.close()  # No locks here: see above.
        yield


def open_records(path: os.PathLike) -> ArrayRecordReader:
    """A local shard for reading in any order, hence without read-ahead."""
    return ArrayRecordReader(str(path), "readahead_buffer_size:0,max_parallelism:0")


def record_name(number: int) -> str:
    """The file name of a shard's records."""
    return f"{number:08}.array_record"


def _note_name(number: int) -> str:
    return f"{number:08}.json"


def _check(folder: epath.Path, found: Identity, wanted: Identity) -> None:
    differing = [key for key in wanted if wanted[key] != found.get(key)]
    if differing:
        both = "; ".join(
            f"{key} {found.get(key)}, not {wanted[key]}" for key in differing
        )
        raise UserError(
            f"{folder}: these features were made with {both}. Choose another folder "
            "with --config.features.cache=…, or delete this one"
        )


def _read_index(folder: epath.Path) -> tuple[dict[str, Any], dict[int, dict]]:
    """Its first line, and the others by shard; nothing if it cannot be read.

    It says no more than the notes, from which it is made again.
    """
    try:
        lines = (folder / INDEX).read_text().splitlines()
        header, *lines = map(json.loads, lines)
        return header, {int(line["shard"].split(".")[0]): line for line in lines}
    except (OSError, ValueError, LookupError, TypeError):
        return {}, {}


def _read_notes(
    folder: epath.Path, plans: Plans, sizes: dict[str, int | None]
) -> dict[int, dict[str, Any]]:
    """What the notes say, those left out that do not tell of the planned clips."""
    numbers = [n for n in range(len(plans.shards)) if _note_name(n) in sizes]

    def read_note(number: int) -> dict[str, Any] | None:
        try:
            note = json.loads((folder / _note_name(number)).read_text())
            clips = [clip for clip, *_ in note["clips"]]
            told = {*clips, *note["skipped"], *note["absent"]}
            return note if told == {*plans.shards[number]} else None
        except (OSError, ValueError, LookupError, TypeError):
            return None

    with ThreadPoolExecutor(16) as pool:
        notes = zip(numbers, pool.map(read_note, numbers), strict=True)
        return {number: note for number, note in notes if note is not None}

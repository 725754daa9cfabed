"""The folder that features lie in, made to survive being killed.

    plans/000.json           which clips share a shard; see `shard_plans`
    00000000.array_record    a record per clip: the bytes of its float32 [rows, width]
    00000000.json            which clips these are; once it is there, so is the shard
    index.jsonl              all that in one file, once all shards are there

Each note says what its features depend on, too, so that nothing is taken for what it is
not, and the plans can be made again from the notes, should they be damaged.

A file has its name only when it is complete. Shards depend on the plan alone, so that
it does not matter who makes them, in which order, or how often.
"""

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from etils import epath
from jaxtyping import Float

from musilingo_jax.audio.cache import shard_plan
from musilingo_jax.audio.cache.shard_plan import Identity, ShardPlans
from musilingo_jax.runtime import paths, storage
from musilingo_jax.runtime.errors import UserError

SHARD_INDEX = "index.jsonl"
REMEDY = "run `python -m musilingo_jax.cache --config=…` with the same config"

_NOTE = re.compile(r"\d{8}\.json")

# What became of a clip.
PENDING, HELD, SKIPPED, ABSENT = "pending", "held", "skipped", "absent"
MISSING = "missing"  # Its file could not be had: this settles nothing.


@dataclass(frozen=True)
class CacheState:
    """What there is in a cache.

    Attributes:
      plans: what there should be.
      lines: number of a finished shard → what the index says of it.
      damaged: shards that were finished, but whose records are missing or cut off.
      indexed: whether the index knows all this.
      torn: what is wrong with the plans on the disk, if those here are what the notes
        know of them; else None.
    """

    plans: ShardPlans
    lines: dict[int, dict[str, Any]]
    damaged: list[str]
    indexed: bool
    torn: str | None = None

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
                fates |= dict.fromkeys(line["missing"], MISSING)
        return fates


def read(
    folder: epath.Path, identity: Identity | None, *, believe_index: bool = True
) -> CacheState:
    """What there is, checked against `identity` if one is given.

    Every shard has a note of its own; `believe_index` spares reading them all.

    Raises:
      UserError: the folder has another identity, features of several ones, or cannot be
        read.
    """
    try:
        # Before the plans, so that of each note that is seen the plan is there.
        sizes = paths.file_sizes(folder)
        header, index = _read_index(folder) if SHARD_INDEX in sizes else ({}, {})
        torn = None
        try:
            plans = shard_plan.read(folder)
        except shard_plan.Torn as error:
            plans, torn = None, str(error)
        believed = index if believe_index else {}
        notes = _read_notes(folder, sizes, believed, plans)
        if plans and notes and not plans.count:
            torn = f"{folder / shard_plan.FOLDER}: the plans of the features are gone"
        if torn:
            plans = _known_plans(header.get("identity"), notes)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be read ({error.strerror or error}); choose another "
            "folder with --config.features.cache=…"
        ) from error
    found = plans.identity or header.get("identity")
    if found and identity:
        _check(folder, found, identity)
    lines = {}
    for number, clips in enumerate(plans.shards):
        line = notes.get(number)
        if line and _clips(line) == {*clips}:
            if line["identity"] != found:
                _check(folder, line["identity"], found)
            lines[number] = line
    whole, damaged = {}, []
    for number, line in lines.items():
        if _is_whole(number, line, sizes):
            whole[number] = line
        else:
            damaged.append(record_name(number))
    indexed = header.get("plans") == plans.count and len(index) == len(plans.shards)
    indexed = indexed and len(whole) == len(index) and not torn
    indexed = indexed and all(index.get(n) is line for n, line in whole.items())
    return CacheState(plans, whole, damaged, indexed, torn)


def write_index(folder: epath.Path, state: CacheState) -> None:
    """Writes what there is into one file.

    Raises:
      OSError: it cannot be written.
    """
    header = {"identity": state.plans.identity, "plans": state.plans.count}
    lines = [dict(state.lines[number]) for number in sorted(state.lines)]
    for line in lines:
        del line["identity"]  # The header's.
    lines = [header, *lines]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    storage.write_text(folder / SHARD_INDEX, text)


class ShardWriter:
    """A shard in the making; leaving it without `finish` leaves nothing behind."""

    def __init__(self, folder: epath.Path, number: int, identity: Identity):
        """A use as context manager begins it."""
        self._folder, self._number, self._identity = folder, number, identity
        self._features = 0
        self._stack = contextlib.ExitStack()
        self._records: ArrayRecordWriter | None = None
        self._partial: Path | None = None

    def __enter__(self) -> "ShardWriter":
        storage.remove_partial_files(self._folder, f"{self._number:08}.")
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
                self._partial = self._stack.enter_context(storage.atomic(path))
                # One record a group: each is read alone. Noise does not compress.
                options = "group_size:1,uncompressed"
                self._records = ArrayRecordWriter(str(self._partial), options)
            self._records.write(features.tobytes())
            self._features += features.nbytes
        except RuntimeError as error:
            raise OSError(str(error)) from error

    def finish(self, note: dict[str, Any]) -> None:
        """Gives the records their name, and then writes down what they are.

        Args:
          note: `clips`, a list for each record, whose first item is the clip's id;
            `skipped` and `missing`, clip → reason; `silent` and `absent`, lists of
            clips.

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
        line = {
            "shard": record_name(self._number),
            "bytes": size,
            "features": self._features,
            "identity": self._identity,
            **note,
        }
        storage.write_text(
            self._folder / _note_name(self._number), json.dumps(line) + "\n"
        )


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
    if not paths.is_local(folder):
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


def printable(text: str) -> str:
    """The text with `\\udcff` where a file's name is not UTF-8."""
    return text.encode(errors="backslashreplace").decode()


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
        lines = (folder / SHARD_INDEX).read_text().splitlines()
        header, *lines = map(json.loads, lines)
        known = {"identity": header["identity"]}
        return header, {
            int(line["shard"].split(".")[0]): line | known for line in lines
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}, {}


def _read_notes(
    folder: epath.Path,
    sizes: dict[str, int | None],
    index: dict[int, dict[str, Any]],
    plans: ShardPlans | None,
) -> dict[int, dict[str, Any]]:
    """What is known of each shard: from the index, or else from its note.

    The index is believed where it agrees with the plans, if these are known, and with
    the records.
    """
    known = {}
    planned = dict(enumerate(plans.shards)) if plans and plans.count else None
    for number, line in index.items():
        clips = _clips(line)
        agrees = planned is None or clips == {*planned.get(number, ())}
        if clips is not None and agrees and _is_whole(number, line, sizes):
            known[number] = line
    numbers = [int(name[:8]) for name in sizes if _NOTE.fullmatch(name)]
    numbers = sorted(set(numbers) - known.keys())

    def read_note(number: int) -> dict[str, Any] | None:
        try:
            note = json.loads((folder / _note_name(number)).read_text())
            return None if _clips(note) is None else note
        except (OSError, ValueError):
            return None

    with ThreadPoolExecutor(16) as pool:
        notes = zip(numbers, pool.map(read_note, numbers), strict=True)
        return known | {number: note for number, note in notes if note is not None}


def _is_whole(number: int, line: dict[str, Any], sizes: dict[str, int | None]) -> bool:
    """Whether a shard's records are as many bytes as they should be."""
    name, size = record_name(number), line["bytes"]
    # In a bucket, where there are no sizes, files are whole if they are there.
    return not size or (name in sizes and sizes[name] in (size, None))


def _clips(line: Any) -> set[str] | None:
    """The clips that a note tells of; None if it is no note of ours."""
    try:
        int(line["bytes"]), int(line["features"]), dict(line["identity"])
        held = [clip for clip, _, _, _ in line["clips"]]
        rest = (*line["skipped"].items(), *line["missing"].items())
        return {*held, *(clip for clip, _ in rest), *line["absent"]}
    except (LookupError, TypeError, ValueError, AttributeError):
        return None


def _known_plans(
    identity: Identity | None, notes: dict[int, dict[str, Any]]
) -> ShardPlans:
    """One plan of all that the notes tell of; a shard without a note has no clips."""
    identity = next((line["identity"] for line in notes.values()), identity)
    clips = [
        tuple(_clips_in_order(notes[number])) if number in notes else ()
        for number in range(max(notes, default=-1) + 1)
    ]
    return ShardPlans(identity, 0, tuple(clips))


def _clips_in_order(line: dict[str, Any]) -> list[str]:
    held = [clip for clip, *_ in line["clips"]]
    return [*held, *line["skipped"], *line["missing"], *line["absent"]]

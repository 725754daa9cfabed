"""Reads a cache: a song's features by its clip id, in any order, from any thread."""

import contextlib
import functools
import hashlib
import itertools
import json
import os
import sys
import tempfile
import threading
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader
from etils import epath
from jaxtyping import Float

from musilingo_jax.audio.cache import shards
from musilingo_jax.audio.cache.shard_plan import Identity
from musilingo_jax.audio.cache.shards import CacheState
from musilingo_jax.runtime import cli, paths, storage
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import user_cache

TORN_REMEDY = f"what was finished is kept: {shards.REMEDY}, which mends it"

# Shards open at once, well below the usual limit of 1024 files per process.
_OPEN_SHARDS = 128


class _Entry(NamedTuple):
    shard: int
    row: int
    vectors: int
    seconds: float
    path: str


class FeatureCache:
    """Reads features by clip, from any number of threads.

    The shards of a cache in a bucket are copied to this machine when they are first
    asked for, since ArrayRecord reads local files alone, and stay there.

    Attributes:
      folder: where the cache lies.
      ids: the clips that have features.
      skipped: clip → why it has none.
      missing: those of them whose files could not be had; each job looks for them.
      silent: clips in which nothing is louder than −80 dB.
      disk_bytes: of all shards.
    """

    def __init__(self, folder: epath.Path, state: CacheState):
        """Use `FeatureCache.open`; of `state`, what is finished can be read."""
        self.folder, self._identity, self._lines = (
            folder,
            state.plans.identity,
            state.lines,
        )
        lines = [state.lines[number] for number in sorted(state.lines)]
        self.disk_bytes = sum(line["bytes"] for line in lines)
        self.silent = frozenset(itertools.chain(*(line["silent"] for line in lines)))
        self._entries = {
            clip: _Entry(number, row, *rest)
            for number in sorted(state.lines)
            for row, (clip, *rest) in enumerate(state.lines[number]["clips"])
        }
        self.skipped: dict[str, str] = {
            clip: reason
            for line in lines
            for clip, reason in (line["skipped"] | line["missing"]).items()
            if clip not in self._entries
        }
        self.missing = frozenset(
            clip for clip, fate in state.fates().items() if fate == shards.MISSING
        )
        self._reader = functools.lru_cache(_OPEN_SHARDS)(self._open_shard)
        self._copying = threading.Lock()

    @classmethod
    def open(
        cls, folder: str | os.PathLike, identity: Identity | None
    ) -> "FeatureCache":
        """The cache at `folder`, complete.

        Raises:
          UserError: there is none, it was made with something else than `identity`, or
            a shard is missing.
        """
        folder = paths.open_folder(folder)
        state = shards.read(folder, identity)
        if state.torn:
            raise UserError(f"{state.torn}; {TORN_REMEDY}")
        if not state.plans.shards:
            raise UserError(f"{folder}: holds no features yet; {shards.REMEDY}")
        if state.damaged:
            raise UserError(
                f"{folder / state.damaged[0]}: is missing or cut off; {shards.REMEDY}"
            )
        if state.unfinished:
            raise UserError(f"{folder}: {so_far(state)}; {shards.REMEDY}")
        return cls(folder, state)

    @property
    def ids(self) -> Collection[str]:
        return self._entries.keys()

    def seconds(self, clip: str) -> float:
        """How long the song is."""
        return self._entries[clip].seconds

    def path(self, clip: str) -> str:
        """Where the song's file was."""
        return self._entries[clip].path

    def windows(self, clip: str) -> int:
        """How many vectors the song has, without reading them."""
        return self._entries[clip].vectors

    def bytes(self, clip: str) -> int:
        """How long the song's features are, without reading them."""
        entry = self._entries[clip]
        line = self._lines[entry.shard]
        vectors = sum(vectors for _, vectors, *_ in line["clips"])
        return line["features"] * entry.vectors // vectors

    def features(self, clip: str) -> Float[np.ndarray, "windows width"]:
        """What the encoder heard in a clip.

        Raises:
          UserError: the cache lacks the clip, or its shard cannot be read.
        """
        entry = self._entry(clip)
        try:
            # Many at a time take ArrayRecord twice as long each.
            (record,) = self._reader(entry.shard).read([entry.row])
        except RuntimeError as error:
            path = self.folder / shards.record_name(entry.shard)
            raise UserError(
                f"{path}: is damaged; delete it, then {shards.REMEDY}"
            ) from error
        return np.frombuffer(record, np.float32).reshape(entry.vectors, -1)

    def fetch(self, clips: Iterable[str]) -> None:
        """Copies the shards of these clips to this machine, if they lie elsewhere.

        Raises:
          UserError: they cannot be copied.
        """
        if paths.is_local(self.folder):
            return
        numbers = {self._entries[clip].shard for clip in clips if clip in self._entries}
        lacking = [n for n in sorted(numbers) if not self._is_copied(n)]
        if not lacking:
            return
        size = sum(self._lines[number]["bytes"] for number in lacking)
        print(
            f"copying {len(lacking)} shards ({size:,} bytes) of {self.folder} to "
            f"{user_cache('features')}, because ArrayRecord reads local files alone",
            file=sys.stderr,
        )
        with cli.progress(
            total=size, unit="B", unit_scale=True, label="copying"
        ) as bar:
            for number in lacking:
                self._copied(number)
                bar.update(self._lines[number]["bytes"])

    def _entry(self, clip: str) -> _Entry:
        if clip in self._entries:
            return self._entries[clip]
        reason = self.skipped.get(clip)
        raise UserError(
            f"{clip}: is not in the cache {self.folder}, for {reason}"
            if reason
            else f"{clip}: is not in the cache {self.folder}; {shards.REMEDY}"
        )

    def _open_shard(self, number: int) -> ArrayRecordReader:
        if paths.is_local(self.folder):
            return shards.open_records(self.folder / shards.record_name(number))
        return shards.open_records(self._copied(number))

    def _copy(self, number: int) -> Path:
        """Where the copy of a shard is; another one's never is there."""
        what = json.dumps([str(self.folder), self._identity, self._lines[number]])
        name = hashlib.sha256(what.encode()).hexdigest()[:32]
        return user_cache("features") / f"{name}.array_record"

    def _is_copied(self, number: int) -> bool:
        copy = self._copy(number)
        return copy.is_file() and copy.stat().st_size == self._lines[number]["bytes"]

    def _copied(self, number: int) -> Path:
        source, copy = self.folder / shards.record_name(number), self._copy(number)
        with self._copying:
            try:
                if not self._is_copied(number):
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    with storage.atomic(epath.Path(copy)) as partial:
                        source.copy(partial, overwrite=True)
            except OSError as error:
                raise UserError(
                    f"{source}: cannot be copied to {copy} ({error})"
                ) from (error)
            if not self._is_copied(number):
                raise UserError(
                    f"{source}: is cut off; delete it, then {shards.REMEDY}"
                )
        return copy


class Before:
    """The records that a shard had before it was made again."""

    def __init__(self, folder: epath.Path, number: int, line: dict[str, Any] | None):
        """`line` is what the index said of the shard; None if there was none."""
        self._path = folder / shards.record_name(number)
        self._line = line or {"clips": [], "silent": []}
        self._rows = {clip: row for row, (clip, *_) in enumerate(self._line["clips"])}
        self._stack = contextlib.ExitStack()
        self._records = None

    def __enter__(self) -> "Before":
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def get(self, clip: str) -> tuple[list[Any], np.ndarray | None, bool]:
        """What was noted of a clip, its features and whether it is silent.

        Raises:
          UserError: the records are damaged.
        """
        if clip not in self._rows:
            return [], None, False
        entry = self._line["clips"][self._rows[clip]]
        try:
            if self._records is None:
                self._records = shards.open_records(self._local())
            (record,) = self._records.read([self._rows[clip]])
        except RuntimeError as error:
            raise UserError(
                f"{self._path}: is damaged; delete it, then {shards.REMEDY}"
            ) from error
        features = np.frombuffer(record, np.float32).reshape(entry[1], -1)
        return entry, features, clip in self._line["silent"]

    def _local(self) -> Path:
        if paths.is_local(self._path):
            return Path(self._path)
        place = self._stack.enter_context(tempfile.TemporaryDirectory())
        self._path.copy(epath.Path(place) / self._path.name)
        return Path(place) / self._path.name


def so_far(state: CacheState) -> str:
    """How much of a cache is there."""
    return f"{len(state.lines)} of {len(state.plans.shards)} shards are finished"

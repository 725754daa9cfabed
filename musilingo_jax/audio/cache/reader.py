"""Reads a cache: a song's features by its clip id, in any order, from any thread."""

import functools
import hashlib
import itertools
import json
import os
import threading
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader
from etils import epath
from jaxtyping import Float

from musilingo_jax.audio.cache import cache_state, shards
from musilingo_jax.audio.cache.cache_state import TORN_REMEDY, CacheState
from musilingo_jax.audio.cache.identity import Identity
from musilingo_jax.runtime import cli, paths, storage
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import user_cache
from musilingo_jax.runtime.printable import print_note, printable

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

    ArrayRecord reads local files only. So the shards of a cache in a bucket are copied
    to this machine when they are first used, and are kept there.

    Attributes:
      folder: of the cache.
      ids: the clips that have features.
      skipped: clip → why it has no features.
      missing: those of them whose files were not available; each job looks for them.
      silent: the clips in which nothing is above −80 dB of full scale.
      notices: clip → what its listener should know, in clauses about its file.
      disk_bytes: of all shards.
    """

    def __init__(self, folder: epath.Path, state: CacheState):
        """Reads the shards that are finished; `open` demands that all of them are."""
        self.folder = folder
        self._identity, self._notes = state.plans.identity, state.notes
        self._widths = {
            n: shards.width_of(note) or 0 for n, note in self._notes.items()
        }
        notes = [state.notes[number] for number in sorted(state.notes)]
        self.disk_bytes: int = sum(note["bytes"] for note in notes)
        self.silent = frozenset(itertools.chain(*(note["silent"] for note in notes)))
        self.notices: dict[str, list[str]] = {
            clip: told
            for note in notes
            for clip, told in shards.notices_of(note).items()
        }
        self._entries = {
            clip: _Entry(number, row, *rest)
            for number in sorted(state.notes)
            for row, (clip, *rest) in enumerate(state.notes[number]["clips"])
        }
        self.skipped: dict[str, str] = {
            clip: reason
            for note in notes
            for clip, reason in (note["skipped"] | note["missing"]).items()
            if clip not in self._entries
        }
        self.missing = frozenset(
            clip for clip, fate in state.fates().items() if fate == cache_state.MISSING
        )
        self._records = functools.lru_cache(_OPEN_SHARDS)(self._open_records)
        self._copying = threading.Lock()
        # Clips whose features were checked for NaN and infinity: each is read often.
        self._finite: set[str] = set()

    @classmethod
    def open(
        cls, folder: str | os.PathLike, identity: Identity | None
    ) -> "FeatureCache":
        """Opens a complete cache.

        Args:
          folder: of the cache.
          identity: what its features should depend on; None for anything.

        Raises:
          UserError: the cache is empty, was made with another identity, or a shard is
            missing.
        """
        folder = paths.open_folder(folder)
        state = cache_state.read(folder, identity)
        if state.torn:
            raise UserError(f"{state.torn}; {TORN_REMEDY}")
        if not state.plans.shards:
            raise UserError(f"{folder}: holds no features yet; {shards.REMEDY}")
        if state.damaged:
            raise UserError(
                f"{folder / state.damaged[0]}: is missing or cut off; {shards.REMEDY}"
            )
        if state.unfinished:
            raise UserError(f"{folder}: {state.progress}; {shards.REMEDY}")
        return cls(folder, state)

    @property
    def ids(self) -> Collection[str]:
        """The clips that have features."""
        return self._entries.keys()

    @property
    def reduction(self) -> str:
        """The kind of the features, as in `FeatureConfig`."""
        assert self._identity is not None  # There are shards.
        return str(self._identity["reduction"])

    def seconds(self, clip: str) -> float:
        """The length of the song."""
        return self._entries[clip].seconds

    def path(self, clip: str) -> str:
        """The song's file when it was encoded."""
        return self._entries[clip].path

    def windows(self, clip: str) -> int:
        """The number of vectors of the song, without reading them."""
        return self._entries[clip].vectors

    def bytes(self, clip: str) -> int:
        """The size of the song's features, without reading them."""
        entry = self._entries[clip]
        note = self._notes[entry.shard]
        vectors = sum(vectors for _, vectors, *_ in note["clips"])
        return note["features"] * entry.vectors // vectors

    def features(self, clip: str) -> Float[np.ndarray, "windows width"]:
        """The features of the song.

        Raises:
          UserError: the cache lacks the clip, its shard cannot be read, or a number in
            it is NaN or infinite.
        """
        entry = self._entry(clip)
        path = self.folder / shards.record_name(entry.shard)
        try:
            records = self._records(entry.shard)
            width = self._widths[entry.shard]
            features = shards.read_record(records, entry.row, entry.vectors, width)
        except RuntimeError as error:
            raise shards.damaged(path) from error
        if clip not in self._finite:
            if not np.isfinite(features).all():
                raise UserError(
                    f"{path}: the features of {printable(clip)} contain NaN or "
                    f"infinity; delete the file, then {shards.REMEDY}"
                )
            self._finite.add(clip)
        return features

    def fetch(self, clips: Iterable[str]) -> None:
        """Copies the shards of these clips to this machine, if they are in a bucket.

        Raises:
          UserError: they cannot be copied.
        """
        if paths.is_local(self.folder):
            return
        numbers = {self._entries[clip].shard for clip in clips if clip in self._entries}
        lacking = [n for n in sorted(numbers) if not self._is_copied(n)]
        if not lacking:
            return
        size = sum(self._notes[number]["bytes"] for number in lacking)
        print_note(
            f"copying {len(lacking)} shards ({size:,} bytes) of {self.folder} to "
            f"{user_cache('features')}, because ArrayRecord reads local files only"
        )
        with cli.progress(
            total=size, unit="B", unit_scale=True, label="copying"
        ) as bar:
            for number in lacking:
                self._copied(number)
                bar.update(self._notes[number]["bytes"])

    def _entry(self, clip: str) -> _Entry:
        if clip in self._entries:
            return self._entries[clip]
        reason = self.skipped.get(clip)
        raise UserError(
            f"{clip}: is not in the cache {self.folder} ({reason})"
            if reason
            else f"{clip}: is not in the cache {self.folder}; {shards.REMEDY}"
        )

    def _open_records(self, number: int) -> ArrayRecordReader:
        if not paths.is_local(self.folder):
            return shards.open_records(self._copied(number))
        records = shards.open_records(self.folder / shards.record_name(number))
        self._check_note(number)
        return records

    def _check_note(self, number: int) -> None:
        """Checks that records just opened are those that this cache knows.

        A job may have made the shard again since the state of the folder was read. Then
        the rows of the new records are those of other clips.

        Raises:
          UserError: the shard's note has changed.
        """
        if shards.read_note(self.folder, number) != self._notes[number]:
            path = self.folder / shards.note_name(number)
            raise UserError(
                f"{path}: has changed since this program started, or is damaged; start "
                f"the program again, or delete the file, then {shards.REMEDY}"
            )

    def _copy(self, number: int) -> Path:
        """The path of a shard's copy, which no other shard's copy ever has."""
        what = json.dumps([str(self.folder), self._identity, self._notes[number]])
        name = hashlib.sha256(what.encode()).hexdigest()[:32]
        return user_cache("features") / f"{name}.array_record"

    def _is_copied(self, number: int) -> bool:
        copy = self._copy(number)
        return copy.is_file() and copy.stat().st_size == self._notes[number]["bytes"]

    def _copied(self, number: int) -> Path:
        source, copy = self.folder / shards.record_name(number), self._copy(number)
        with self._copying:
            try:
                if not self._is_copied(number):
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    with storage.atomic(epath.Path(copy)) as partial:
                        source.copy(partial, overwrite=True)
                        self._check_note(number)
            except OSError as error:
                raise UserError(
                    f"{source}: cannot be copied to {copy} ({error})"
                ) from error
            if not self._is_copied(number):
                raise UserError(
                    f"{source}: is cut off; delete it, then {shards.REMEDY}"
                )
        return copy

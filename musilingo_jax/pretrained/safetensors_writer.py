"""Writes the safetensors of a folder one tensor at a time, all of them or none."""

import contextlib
import json
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from musilingo_jax.pretrained.safetensors_file import (
    CHECKED_BYTES,
    CHECKSUMS,
    TYPES,
    Layout,
    byte_count,
    make_header,
)
from musilingo_jax.pretrained.tensor_files import CONFIG, INDEX, WEIGHTS
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json
from musilingo_jax.runtime.storage import sync, write_failure, write_text

# The files that this writer makes.
_OURS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Writes the `config.json` of a folder, or replaces it.

    Raises:
      UserError: the disk is full or cannot be written.
    """
    try:
        write_text(folder / CONFIG, json.dumps(dict(config), indent=2) + "\n")
        sync(folder)
    except OSError as error:
        raise unwritable(folder, error) from error


class SafetensorsWriter:
    """Writes safetensors into a folder, one tensor after the other.

        with SafetensorsWriter(folder, layout, shard_bytes=…, metadata={}) as writer:
            for name, array in …:
                writer.write(name, array)

    The names of the files end in `.partial` until all of them are complete and on the
    disk; then they replace the old files, so that old and new ones are never mixed. If
    an error leaves the block, the old files stay. Nothing is kept in memory.
    """

    def __init__(
        self,
        folder: Path,
        layout: Layout,
        *,
        shard_bytes: int,
        metadata: Mapping[str, str],
    ):
        """Plans the files; nothing is written before the block is entered.

        Args:
          folder: created if needed; files in it that are not weights stay.
          layout: name → shape and type, in the order in which they will be written.
          shard_bytes: the largest size of a file, unless one tensor is larger.
          metadata: text for the headers.

        Raises:
          ValueError: the format has no such type.
        """
        if strange := {str(dtype) for _, dtype in layout.values()} - _STORABLE:
            raise ValueError(f"safetensors cannot hold {', '.join(sorted(strange))}")
        self._folder = folder
        self._layout = dict(layout)
        self._waiting = list(reversed(self._layout))
        # transformers requires a format in the metadata.
        metadata = {"format": "pt"} | dict(metadata)
        self._files = _plan(self._layout, shard_bytes, metadata)
        self._where = {name: file for file in self._files for name in file.offsets}
        self._open: tuple[_File, int] | None = None
        self._made: list[Path] = []
        self._checksums: dict[str, str] = {}
        self._metadata = metadata

    def __enter__(self) -> "SafetensorsWriter":
        parents = (self._folder, *self._folder.parents)
        self._made = [path for path in parents if not path.exists()]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for file in self._files:
                # All at once, so that a folder that cannot be written fails now.
                self._partial(file).write_bytes(file.header)
        except OSError as error:
            self._clear()
            raise unwritable(self._folder, error) from error
        return self

    def write(self, name: str, array: np.ndarray) -> None:
        """Writes the next tensor.

        Raises:
          ValueError: the layout has another tensor next, or another shape or type for
            this one.
          UserError: the disk is full or cannot be written.
        """
        expected = self._waiting[-1] if self._waiting else None
        if name != expected:
            raise ValueError(f"{name} was written, but {expected} is next")
        shape, dtype = self._layout[name]
        if array.shape != tuple(shape) or array.dtype != dtype:
            raise ValueError(
                f"{name} is {array.dtype}{list(array.shape)}, not "
                f"{np.dtype(dtype)}{list(shape)}"
            )
        file = self._where[name]
        start = len(file.header) + file.offsets[name]
        left = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        if file.checked:
            self._checksums[name] = f"{zlib.crc32(left):08x}"
        try:
            if self._open is None or self._open[0] is not file:
                self._close()
                self._open = file, os.open(self._partial(file), os.O_WRONLY)
            descriptor = self._open[1]
            while left:  # One call writes at most 2 GiB.
                count = os.pwrite(descriptor, left, start)
                start, left = start + count, left[count:]
        except OSError as error:
            raise unwritable(self._folder, error) from error
        self._waiting.pop()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            self._close()
            if kind is None:
                if self._waiting:
                    raise ValueError(f"not written: {', '.join(self._waiting[::-1])}")
                try:
                    for file in self._files:
                        self._state_checksums(file)
                        sync(self._partial(file))
                    self._replace()
                    sync(self._folder)
                except OSError as problem:
                    raise unwritable(self._folder, problem) from problem
        finally:
            self._clear()

    def _state_checksums(self, file: "_File") -> None:
        """Writes the header again, which had zeros in place of the checksums."""
        if file.checked:
            shard = {name: self._layout[name] for name in file.offsets}
            sums = {name: self._checksums[name] for name in shard}
            header, _ = make_header(shard, _with_checksums(self._metadata, sums))
            assert len(header) == len(file.header)
            with open(self._partial(file), "r+b") as opened:
                opened.write(header)

    def _partial(self, file: "_File") -> Path:
        return self._folder / f"{file.name}.partial"

    def _close(self) -> None:
        if self._open is not None:
            (_, descriptor), self._open = self._open, None
            os.close(descriptor)

    def _clear(self) -> None:
        """Removes unfinished files, and the folders that were created for them."""
        for file in self._files:
            with contextlib.suppress(OSError):
                self._partial(file).unlink(missing_ok=True)
        for path in self._made:
            with contextlib.suppress(OSError):  # A folder that is not empty stays.
                path.rmdir()

    def _replace(self) -> None:
        """Replaces the old files by the new ones.

        Of a folder with both a single file and an index, the single file is read. So a
        kill in between leaves the old weights, the new ones, or (when shards replace
        shards) none that can be read, but never some of each.
        """
        files = {file.name for file in self._files}
        stale = _weight_files(self._folder) - files
        index = self._folder / INDEX
        if len(files) > 1:
            index.unlink(missing_ok=True)
        for file in self._files:
            os.replace(self._partial(file), self._folder / file.name)
        if len(files) > 1:
            total = sum(byte_count(*kind) for kind in self._layout.values())
            where = {name: self._where[name].name for name in sorted(self._layout)}
            content = {"metadata": {"total_size": total}, "weight_map": where}
            write_text(index, json.dumps(content, indent=2) + "\n")
        else:
            index.unlink(missing_ok=True)
        for name in stale:
            (self._folder / name).unlink(missing_ok=True)


_STORABLE = {str(dtype) for dtype in TYPES.values()}


@dataclass(frozen=True, eq=False)
class _File:
    """A file to be written: its name, header, and the offsets of tensors after it.

    If it is `checked`, its header will state the checksums of its tensors.
    """

    name: str
    header: bytes
    offsets: dict[str, int]
    checked: bool


def _plan(layout: Layout, shard_bytes: int, metadata: Mapping[str, str]) -> list[_File]:
    """Distributes the tensors over files, in their order, as transformers does."""
    shards: list[dict[str, tuple[tuple[int, ...], np.dtype]]] = [{}]
    room = shard_bytes
    for name, kind in layout.items():
        if byte_count(*kind) > room and shards[-1]:
            shards.append({})
            room = shard_bytes
        shards[-1][name] = kind
        room -= byte_count(*kind)
    files, count = [], len(shards)
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{count:05}.safetensors" if count > 1 else WEIGHTS
        checked = sum(byte_count(*kind) for kind in shard.values()) <= CHECKED_BYTES
        zeros = dict.fromkeys(shard, "0" * 8)
        stated = _with_checksums(metadata, zeros) if checked else metadata
        files.append(_File(name, *make_header(shard, stated), checked))
    return files


def _with_checksums(
    metadata: Mapping[str, str], checksums: Mapping[str, str]
) -> dict[str, str]:
    return dict(metadata) | {CHECKSUMS: json.dumps(checksums, separators=(",", ":"))}


def _weight_files(folder: Path) -> set[str]:
    """The names of the safetensors that hold a folder's weights now."""
    found = {path.name for path in folder.iterdir() if _OURS.fullmatch(path.name)}
    if (folder / INDEX).is_file():
        try:
            where = read_json(folder / INDEX).get("weight_map")
        except UserError:
            where = None  # A broken index is replaced, too, but names no files.
        if isinstance(where, dict):
            found |= {name for name in where.values() if isinstance(name, str)}
    return {name for name in found if Path(name).name == name}


def unwritable(path: Path, error: OSError) -> UserError:
    """The message for weights that cannot be written at a path."""
    failure = write_failure(path, error, again="run the same command again")
    return failure or UserError(f"{path}: cannot be written ({error})")

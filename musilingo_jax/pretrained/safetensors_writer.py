"""Safetensors of a folder written as they come, whole or not at all."""

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from musilingo_jax.pretrained.safetensors_file import (
    TYPES,
    Layout,
    byte_count,
    make_header,
)
from musilingo_jax.pretrained.tensor_files import CONFIG, INDEX, WEIGHTS
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import read_json
from musilingo_jax.runtime.storage import sync, write_failure, write_text

_OURS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Writes the `config.json` of a folder, in the place of an old one if there is.

    Raises:
      UserError: the disk is full, or cannot be written.
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

    The files have names that end in `.partial` until all of them are complete and on
    the disk; then they replace what was there: a folder never has two truths. If the
    block is left by an error, what was there stays. Nothing is kept in memory.
    """

    def __init__(
        self,
        folder: Path,
        layout: Layout,
        *,
        shard_bytes: int,
        metadata: Mapping[str, str],
    ):
        """Plans the files; nothing is touched before the block is entered.

        Args:
          folder: made if need be; files in it that are not weights stay.
          layout: name → shape and type, in the order in which they will be written.
          shard_bytes: a file becomes no larger than that, unless one tensor is.
          metadata: notes for the headers.
        """
        if strange := {str(dtype) for _, dtype in layout.values()} - _STORABLE:
            raise ValueError(f"safetensors cannot hold {', '.join(sorted(strange))}")
        self._folder = folder
        self._layout = dict(layout)
        self._waiting = list(reversed(self._layout))
        # transformers asks for a format.
        notes = {"format": "pt"} | dict(metadata)
        self._files = _plan(self._layout, shard_bytes, notes)
        self._where = {name: file for file in self._files for name in file.offsets}
        self._open = None
        self._made = []

    def __enter__(self) -> "SafetensorsWriter":
        parents = (self._folder, *self._folder.parents)
        self._made = [path for path in parents if not path.exists()]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for file in self._files:
                # All at once, so that a folder that must not be written says so now.
                self._partial(file).write_bytes(file.header)
        except OSError as error:
            self._clear()
            raise unwritable(self._folder, error) from error
        return self

    def write(self, name: str, array: np.ndarray) -> None:
        """Writes the next tensor.

        Raises:
          ValueError: the layout says that it is another one's turn, or that this one
            has another shape or type.
          UserError: the disk is full, or cannot be written.
        """
        expected = self._waiting[-1] if self._waiting else None
        if name != expected:
            raise ValueError(f"{name} was written when it was the turn of {expected}")
        shape, dtype = self._layout[name]
        if array.shape != tuple(shape) or array.dtype != dtype:
            raise ValueError(
                f"{name} is {array.dtype}{list(array.shape)} and not "
                f"{np.dtype(dtype)}{list(shape)}"
            )
        file = self._where[name]
        start = len(file.header) + file.offsets[name]
        left = memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        try:
            if self._open is None or self._open[0] is not file:
                self._close()
                self._open = file, os.open(self._partial(file), os.O_WRONLY)
            while left:  # A call writes 2 GiB at most.
                count = os.pwrite(self._open[1], left, start)
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
                        sync(self._partial(file))
                    self._replace()
                    sync(self._folder)
                except OSError as problem:
                    raise unwritable(self._folder, problem) from problem
        finally:
            self._clear()

    def _partial(self, file: "_File") -> Path:
        return self._folder / f"{file.name}.partial"

    def _close(self) -> None:
        if self._open is not None:
            (_, number), self._open = self._open, None
            os.close(number)

    def _clear(self) -> None:
        """Removes what is unfinished, and folders that were made for it."""
        for file in self._files:
            with contextlib.suppress(OSError):
                self._partial(file).unlink(missing_ok=True)
        for path in self._made:
            with contextlib.suppress(OSError):  # It is kept if there is anything in it.
                path.rmdir()

    def _replace(self) -> None:
        """Puts the new files in the place of the old ones.

        A folder with both one file and an index is read by the file. So a kill in
        between leaves the old weights, the new ones, or (when shards replace shards)
        none that can be read, but never some of each.
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
            said = {"metadata": {"total_size": total}, "weight_map": where}
            write_text(index, json.dumps(said, indent=2) + "\n")
        else:
            index.unlink(missing_ok=True)
        for name in stale:
            (self._folder / name).unlink(missing_ok=True)


_STORABLE = {str(dtype) for dtype in TYPES.values()}


@dataclass(frozen=True, eq=False)
class _File:
    """A file to be: its name, its header, and where each tensor begins after that."""

    name: str
    header: bytes
    offsets: dict[str, int]


def _plan(layout: Layout, shard_bytes: int, metadata: Mapping[str, str]) -> list[_File]:
    """Spreads the tensors over files, in their order, as transformers does."""
    shards, room = [{}], shard_bytes
    for name, kind in layout.items():
        if byte_count(*kind) > room and shards[-1]:
            shards.append({})
            room = shard_bytes
        shards[-1][name] = kind
        room -= byte_count(*kind)
    count = len(shards)
    return [
        _File(
            f"model-{number:05}-of-{count:05}.safetensors" if count > 1 else WEIGHTS,
            *make_header(shard, metadata),
        )
        for number, shard in enumerate(shards, 1)
    ]


def _weight_files(folder: Path) -> set[str]:
    """The safetensors that a folder's weights are made of now."""
    found = {path.name for path in folder.iterdir() if _OURS.fullmatch(path.name)}
    if (folder / INDEX).is_file():
        try:
            where = read_json(folder / INDEX).get("weight_map")
        except UserError:
            where = None  # It goes all the same, and says nothing about files.
        if isinstance(where, dict):
            found |= set(name for name in where.values() if isinstance(name, str))
    return {name for name in found if Path(name).name == name}


def unwritable(path: Path, error: OSError) -> UserError:
    """The message for weights that cannot be written at a path."""
    failure = write_failure(path, error, again="run the same command again")
    return failure or UserError(f"{path}: cannot be written ({error})")

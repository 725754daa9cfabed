"""Tensors by name, in files of any format, that are read only when indexed."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json
from musilingo_jax.runtime.printable import one_line


@runtime_checkable
class LazyTensor(Protocol):
    """A tensor in a file; `tensor[index]` reads that part of it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        ...

    @property
    def dtype(self) -> str:
        """Its type as safetensors spells it, such as "BF16"."""
        ...

    @property
    def nbytes(self) -> int:
        """The size of all of its values."""
        ...

    def __getitem__(self, index: Any) -> np.ndarray: ...


Tensors = Mapping[str, LazyTensor]  # by released name


def leading_rows(shape: tuple[int, ...], index: Any) -> tuple[range, tuple[Any, ...]]:
    """The consecutive rows that hold a part of a tensor, and the part's index in them.

    Args:
      shape: of the tensor; one without axes has one row.
      index: slices, integers and `...` as numpy accepts them.
    """
    index = index if isinstance(index, tuple) else (index,)
    if not shape or not index or index[0] is ...:
        return range(shape[0] if shape else 1), index
    rows = range(shape[0])[index[0]]
    if isinstance(rows, int):
        return range(rows, rows + 1), (0, *index[1:])
    if rows.step == 1:
        return rows, (slice(None), *index[1:])
    return range(shape[0]), index


def open_index(index: Path, open_shard: Callable[[Path], Tensors]) -> Tensors:
    """The tensors in all files that an index names; the files are beside the index.

    Args:
      index: the path of the index.
      open_shard: opens one of the files.

    Raises:
      UserError: the index is not one, or a file or a tensor is not where it says.
    """
    folder, where = index.parent, _weight_map(index)
    files = sorted(set(where.values()))
    if outside := [name for name in files if not name or Path(name).name != name]:
        raise UserError(
            f"{index}: names files outside its folder: {shortened(outside)}; get the "
            "model from a source that you trust"
        )
    # Unlike pathlib's, this test accepts names of any length.
    if absent := [name for name in files if not os.path.isfile(folder / name)]:
        raise UserError(
            f"{index}: names files that do not exist: {shortened(absent)}; get these, "
            "too, from where the index is from"
        )
    opened = {name: open_shard(folder / name) for name in files}
    misplaced = [
        f"{name} in {file}" for name, file in where.items() if name not in opened[file]
    ]
    if misplaced:
        raise UserError(
            f"{index}: names tensors that are not in their files: "
            f"{shortened(misplaced)}; get the index and the files from one source"
        )
    # A file may hold more than the index names; what the index names takes precedence.
    tensors = {name: t for shard in opened.values() for name, t in shard.items()}
    return tensors | {name: opened[file][name] for name, file in where.items()}


def shard_names(index: Path) -> list[str]:
    """The names of the files that an index names.

    Raises:
      UserError: the index is not one.
    """
    return sorted(set(_weight_map(index).values()))


def under(tensors: Tensors, prefix: str) -> Tensors:
    """The tensors whose names begin with the prefix, by the rest of their names."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def shortened(names: Sequence[str]) -> str:
    """The first few names, each cut to 80 characters, for a message."""
    shown = [name if len(name) <= 80 else f"{name[:77]}…" for name in names[:5]]
    return one_line(", ".join(shown) + (" …" if len(names) > 5 else ""))


def _weight_map(index: Path) -> dict[str, str]:
    where = read_json(index).get("weight_map")
    if not isinstance(where, dict) or not all(map(_is_text, where.values())):
        raise UserError(
            f"{index}: has no weight_map (tensor → file); get it from its source again"
        )
    return where


def _is_text(value: Any) -> bool:
    return isinstance(value, str)

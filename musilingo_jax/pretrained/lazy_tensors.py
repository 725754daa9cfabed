"""Tensors that are not read yet, by name: what all file formats have in common."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import read_json


@runtime_checkable
class LazyTensor(Protocol):
    """A tensor that is not read yet, of a safetensors file or one of PyTorch.

    Attributes:
      shape: its sizes.
      dtype: its type as safetensors spells it, "F32", "F16", "BF16" …
      nbytes: of all of its numbers.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    def __getitem__(self, index: Any) -> np.ndarray: ...


Tensors = Mapping[str, LazyTensor]  # by released name


def open_index(
    index: Path, open_shard: Callable[[Path], Mapping[str, LazyTensor]]
) -> dict[str, LazyTensor]:
    """The tensors of all the files that an index names, and that lie beside it.

    Args:
      index: its path.
      open_shard: the tensors of a file by name.

    Raises:
      UserError: the index is none, or files or tensors are not where it says.
    """
    folder = index.parent
    where = read_json(index).get("weight_map")
    if not isinstance(where, dict) or not all(map(_is_text, where.values())):
        raise UserError(f"{index}: has no weight_map; download it again")
    files = sorted(set(where.values()))
    if strange := [name for name in files if not name or Path(name).name != name]:
        raise UserError(
            f"{index}: names files outside its folder: {few(strange)}; download "
            "it again from a source that you trust"
        )
    # Which, unlike pathlib, takes names of any length.
    if absent := [name for name in files if not os.path.isfile(folder / name)]:
        raise UserError(
            f"{index}: names files that are not there: {few(absent)}; "
            "download them again"
        )
    opened = {name: open_shard(folder / name) for name in files}
    lost = [
        f"{name} in {file}" for name, file in where.items() if name not in opened[file]
    ]
    if lost:
        raise UserError(
            f"{index}: names tensors that are not in their files: {', '.join(lost)}; "
            "download the files again"
        )
    tensors = {}
    for content in opened.values():
        tensors |= content
    return tensors | {name: opened[file][name] for name, file in where.items()}


def under(tensors: Tensors, prefix: str) -> dict[str, LazyTensor]:
    """The tensors whose names begin with the prefix, by the rest of their names."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def few(names: Sequence[str]) -> str:
    """The first of the names, which may be many and long."""
    shown = [name if len(name) <= 80 else f"{name[:77]}…" for name in names[:5]]
    return ", ".join(shown) + (" …" if len(names) > 5 else "")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)

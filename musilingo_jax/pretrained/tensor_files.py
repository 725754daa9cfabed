"""The tensors in the files of a folder, read lazily.

Models are released as one `model.safetensors`, or as several files and an index, which
says which tensor is in which. What the tensors mean is not known here; that is said in
`pretrained/tensor_map.py`.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from musilingo_jax.pretrained.safetensors_file import open_file
from musilingo_jax.runtime.errors import UserError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


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


def open_tensors(folder: Path) -> dict[str, LazyTensor]:
    """All tensors of a folder by name, none of them read yet.

    Taken are `model.safetensors`, else the files that its index names, else PyTorch's
    files, as `pickles.open_tensors` reads them.

    Raises:
      UserError: there are no weights, some files are missing, or one is broken.
    """
    if (folder / WEIGHTS).is_file():
        return open_file(folder / WEIGHTS)
    if (folder / INDEX).is_file():
        return open_index(folder / INDEX, open_file)
    others = sorted(p.name for p in folder.glob("*.safetensors") if p.is_file())
    ends = () if others else ("*.bin", "*.pth", "*.pt")
    if any(path for pattern in (*_PICKLES, *ends) for path in folder.glob(pattern)):
        # Imported here because it needs to know the types of this file.
        from musilingo_jax.pretrained import pytorch_files

        return pytorch_files.open_tensors(folder)
    if len(others) > 1:
        raise UserError(
            f"{folder}: has the files {_few(others)}, but not the {INDEX} that says "
            "what is in which; download it, too"
        )
    if others:
        raise UserError(
            f"{folder}: has {others[0]}, but weights in one file are called {WEIGHTS}; "
            "rename it if it is the model"
        )
    raise UserError(
        f"{folder}: not a model folder, for it has neither {WEIGHTS} nor {INDEX} nor "
        "pytorch_model.bin"
    )


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
            f"{index}: names files outside its folder: {_few(strange)}; download "
            "it again from a source that you trust"
        )
    # Which, unlike pathlib, takes names of any length.
    if absent := [name for name in files if not os.path.isfile(folder / name)]:
        raise UserError(
            f"{index}: names files that are not there: {_few(absent)}; "
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


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
      UserError: the file holds none, or cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not JSON ({error}); download it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold a JSON object; download it again")
    return content


def _few(names: Sequence[str]) -> str:
    """The first of the names, which may be many and long."""
    shown = [name if len(name) <= 80 else f"{name[:77]}…" for name in names[:5]]
    return ", ".join(shown) + (" …" if len(names) > 5 else "")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)

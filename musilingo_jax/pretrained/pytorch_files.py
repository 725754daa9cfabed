"""The tensors in PyTorch's own files, read as lazily as those in safetensors.

A `.bin` or `.pth` is a pickle: a program that rebuilds the objects that were saved, and
that could do anything else. `pretrained/pickle_programs.py` rebuilds only tensors and
plain values and refuses the rest, so no such program is ever run. The values are stored
beside the program, and only those that are indexed are read.

    pytorch_model.bin                        {"model.norm.weight": tensor, …}
    pytorch_model.bin.index.json             the same over several files
    checkpoint_4.pth, as trainers write it   {"model": {…}, "optimizer": …, "epoch": 4}
                                             or {"state_dict": {"module.…": tensor, …}}

Files older than PyTorch 1.6 are not zips. PyTorch itself reads those, with its own
refusal of everything but tensors and plain values, and they are in memory as a whole.
"""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from musilingo_jax.pretrained import pytorch_zip
from musilingo_jax.pretrained.lazy_tensors import LazyTensor, Tensors, open_index
from musilingo_jax.pretrained.pickle_programs import Attributes
from musilingo_jax.pretrained.pytorch_tensors import (
    META,
    SPELLINGS,
    Special,
    StoredTensor,
)
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import open_regular_file
from musilingo_jax.runtime.printable import one_line, printable

BIN = "pytorch_model.bin"
BIN_INDEX = "pytorch_model.bin.index.json"
ENDINGS = (".bin", ".pth", ".pt")

# What PyTorch puts before all names of a model that it trained on several devices.
_WRAPPED = "module."


@dataclass(frozen=True)
class _OldTensor:
    """A tensor in a file older than PyTorch 1.6, which is in memory as a whole."""

    array: np.ndarray
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def nbytes(self) -> int:
        return self.array.nbytes

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.array(self.array[index])


def open_tensors(source: Path) -> Tensors:
    """All tensors of a file, or of the files of a folder, none of them read yet.

    Of a folder, opens `pytorch_model.bin`, else the files that its index names, else
    the only file with one of `ENDINGS`. Of a file, these are its tensors, or those
    under its key "model" or "state_dict" if it is a trainer's checkpoint; the "module."
    that training on several devices puts before all names is removed.

    Raises:
      UserError: there are no weights; a file is missing, broken or without tensors; it
        holds objects that are not plain values, so that code would have to be run; or
        it is older than PyTorch 1.6, and PyTorch is not installed.
    """
    if not source.is_dir():
        return _open_file(source)
    if (source / BIN).is_file():
        return _open_file(source / BIN)
    if (source / BIN_INDEX).is_file():
        return open_index(source / BIN_INDEX, _open_file)
    files = files_in(source)
    if not files:
        raise UserError(f"{source}: has no weights of PyTorch ({', '.join(ENDINGS)})")
    if len(files) > 1:
        names = ", ".join(path.name for path in files)
        raise UserError(
            f"{source}: has several files that may be the weights: {names}; name one "
            "of them, or keep one"
        )
    return _open_file(files[0])


def files_in(folder: Path) -> list[Path]:
    """The files of a folder whose names end as PyTorch's do."""
    return [path for path in sorted(folder.glob("*")) if path.suffix in ENDINGS]


def trainer_state(path: Path) -> dict[str, Any]:
    """The plain values that a trainer saved beside the tensors, such as "epoch".

    Args:
      path: a checkpoint of a trainer, as `open_tensors` reads it.

    Returns:
      Texts, numbers, truth values and None by key, and dicts of these, such as the
      flags that the trainer was started with. Other values, and dicts with others, are
      left out, the state of an optimiser among them.

    Raises:
      UserError: as in `open_tensors`.
    """
    content = _content(path)
    if not isinstance(content, Mapping) or "model" not in content:
        return {}
    state = {}
    for key, value in content.items():
        if isinstance(value, Mapping) and key != "model":
            inside = {k: v for k, v in value.items() if _is_plain(v)}
            whole = len(inside) == len(value) or isinstance(value, Attributes)
            state[key] = inside if whole else None
        elif _is_plain(value):
            state[key] = value
    return {str(key): value for key, value in state.items() if value is not None}


def _open_file(path: Path) -> Tensors:
    found = _tensors(_content(path))
    if not found:
        raise UserError(f"{path}: has no tensors; name the file with the weights")
    return {name: _readable(path, name, tensor) for name, tensor in found.items()}


def _content(path: Path) -> Any:
    """What was saved in a file; errors as in `open_tensors`."""
    try:
        with open_regular_file(path) as file:
            zipped = file.read(4) == b"PK\x03\x04"
        return pytorch_zip.read(path) if zipped else _unpickle(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path}: cannot be read ({reason})") from error
    except UserError:
        raise
    except Exception as error:  # A broken file makes its parsers raise anything.
        raise UserError(
            f"{path}: is not a file of PyTorch, or is broken or cut off "
            f"({_reason(error)}); get it from its source again"
        ) from error


def _reason(error: Exception) -> str:
    """The first line of an error, without what could control a terminal."""
    text = str(error) or type(error).__name__
    return printable(text.splitlines()[0][:200])


def _unpickle(path: Path) -> Any:
    """What a file older than PyTorch 1.6 holds, if that is tensors and plain values.

    Raises:
      UserError: code would have to be run, or PyTorch is not installed.
      Exception: it is broken.
    """
    with open_regular_file(path) as file:
        if not file.read(2).startswith(b"\x80"):
            raise ValueError("it is neither a zip nor a pickle")
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path}: is in the format of PyTorch before 1.6, which PyTorch has to "
            "read, and that is not installed: pip install 'musilingo-jax[convert]'"
        ) from error
    try:
        with warnings.catch_warnings():
            # They concern the file's format and are meant for its authors.
            warnings.simplefilter("ignore")
            return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        if refused := re.search(r"GLOBAL (\S+)", str(error)):
            raise pytorch_zip.refusal(path, refused[1]) from error
        raise ValueError("PyTorch cannot read it") from error


def _tensors(content: Any) -> dict[str, Any]:
    """The tensors of what was saved, which may be the whole state of a trainer."""
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        content = {}
    tensors = {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and _is_tensor(value)
    }
    if all(name.startswith(_WRAPPED) for name in tensors):
        tensors = {name.removeprefix(_WRAPPED): t for name, t in tensors.items()}
    return tensors


def _is_plain(value: Any) -> bool:
    """Whether it is a text, a number, a truth value or None, or a list of these."""
    values = value if isinstance(value, list | tuple) else [value]
    return all(isinstance(one, str | int | float | None) for one in values)


def _is_tensor(value: Any) -> bool:
    """Whether it is one of a zip, or one of PyTorch, which need not be installed."""
    ours = isinstance(value, StoredTensor | Special)
    return ours or hasattr(value, "untyped_storage")


def _readable(path: Path, name: str, tensor: Any) -> LazyTensor:
    """A tensor as others read it.

    Raises:
      UserError: it is sparse, quantised, nested or of a type that safetensors does not
        have, or it has no values.
    """
    if isinstance(tensor, StoredTensor):
        return tensor
    if not isinstance(tensor, Special):
        tensor = _old_tensor(tensor)
    if isinstance(tensor, Special):
        raise UserError(f"{path}: {one_line(name)} {tensor.reason}")
    return tensor


def _old_tensor(tensor: Any) -> _OldTensor | Special:
    """The same memory as an array; types that numpy lacks are viewed by their bits."""
    import torch

    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_meta:
        return META
    plain = tensor.layout == torch.strided and not tensor.is_nested
    if not plain or kind not in SPELLINGS:
        return Special(
            f"is a {tensor.layout} tensor of type {kind}, which cannot be read; save "
            "it as plain floating-point numbers"
        )
    tensor = tensor.detach().resolve_neg()
    lacking = {
        torch.bfloat16: (torch.int16, ml_dtypes.bfloat16),
        torch.float8_e4m3fn: (torch.int8, ml_dtypes.float8_e4m3fn),
        torch.float8_e5m2: (torch.int8, ml_dtypes.float8_e5m2),
    }
    if tensor.dtype in lacking:
        bits, dtype = lacking[tensor.dtype]
        return _OldTensor(tensor.view(bits).numpy().view(dtype), SPELLINGS[kind])
    return _OldTensor(tensor.numpy(), SPELLINGS[kind])

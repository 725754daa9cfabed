"""The tensors in PyTorch's own files, read as lazily as those in safetensors.

A `.bin` or `.pth` is a pickle: a program that rebuilds the objects that were saved, and
that could do anything else. PyTorch rebuilds only tensors and plain values and refuses
the rest, so no such program is ever run. The values are stored beside the program, and
only those that are indexed are read.

    pytorch_model.bin                        {"model.norm.weight": tensor, …}
    pytorch_model.bin.index.json             the same over several files
    checkpoint_4.pth, as trainers write it   {"model": {…}, "optimizer": …, "epoch": 4}
                                             or {"state_dict": {"module.…": tensor, …}}
"""

import re
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from musilingo_jax.pretrained.lazy_tensors import Tensors, open_index
from musilingo_jax.pretrained.safetensors_file import TYPES
from musilingo_jax.runtime.errors import UserError

BIN = "pytorch_model.bin"
BIN_INDEX = "pytorch_model.bin.index.json"
ENDINGS = (".bin", ".pth", ".pt")

_SPELLINGS = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
"""PyTorch's name of a type → safetensors' name."""

# What PyTorch puts before all names of a model that it trained on several devices.
_WRAPPED = "module."
# Bytes read through a map before it is closed and reopened.
_MAPPED_BYTES = 256 * 2**20


class _File:
    """A file of PyTorch, mapped into memory while it is read.

    Pages of a map count as this process's memory once they were read. So the map is
    closed and reopened after every few hundred megabytes, which takes milliseconds:
    only the small program has to be read again. Files older than PyTorch 1.6 cannot be
    mapped; they are read whole, and stay in memory while any of their tensors is in
    use.
    """

    def __init__(self, path: Path):
        self.path = path
        self._tensors: dict[str, Any] | None = None
        self._read = 0
        self._lock = threading.Lock()
        try:
            with path.open("rb") as file:
                self._mapped = file.read(4) == b"PK\x03\x04"
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error

    def open(self) -> dict[str, Any]:
        """PyTorch's tensors by name; the caller must not keep them."""
        if self._tensors is None:
            self._tensors = _tensors(_unpickle(self.path, mapped=self._mapped))
        return self._tensors

    def read(self, name: str, index: Any) -> np.ndarray:
        """A copy of a part of a tensor."""
        with self._lock:
            part = np.array(_as_numpy(self.open()[name])[index])
            self._read += part.nbytes
            if self._mapped and self._read > _MAPPED_BYTES:
                self._tensors, self._read = None, 0
        return part


class PickledTensor:
    """A tensor in a PyTorch file.

    `tensor[index]` reads a part of it, as `safetensors_file.Tensor` does.

    Attributes:
      shape: its sizes.
      dtype: its type as safetensors spells it.
      nbytes: the size of all of its values.
    """

    def __init__(self, file: _File, name: str, tensor: Any):
        """Keeps where the tensor is, but not the tensor.

        Raises:
          UserError: the tensor is sparse, quantised or of a type that safetensors does
            not have, or it has no values.
        """
        kind = str(tensor.dtype).removeprefix("torch.")
        if tensor.is_meta:
            raise UserError(
                f"{file.path}: {name} has a shape but no values (it is on PyTorch's "
                "device meta); save the model after its weights were loaded"
            )
        if kind not in _SPELLINGS or str(tensor.layout) != "torch.strided":
            raise UserError(
                f"{file.path}: {name} is a {tensor.layout} tensor of type {kind}, "
                "which cannot be read; save it as plain floating-point numbers"
            )
        self.shape = tuple(tensor.shape)
        self.dtype = _SPELLINGS[kind]
        self.nbytes: int = tensor.numel() * TYPES[self.dtype].itemsize
        self._file = file
        self._name = name

    def __getitem__(self, index: Any) -> np.ndarray:
        return self._file.read(self._name, index)


def open_tensors(source: Path) -> Tensors:
    """All tensors of a file, or of the files of a folder, none of them read yet.

    Of a folder, opens `pytorch_model.bin`, else the files that its index names, else
    the only file with one of `ENDINGS`. Of a file, these are its tensors, or those
    under its key "model" or "state_dict" if it is a trainer's checkpoint; the "module."
    that training on several devices puts before all names is removed.

    Raises:
      UserError: PyTorch is not installed; there are no weights; a file is missing,
        broken or without tensors; or it holds objects that are not plain values, so
        that code would have to be run.
    """
    if source.is_file():
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


def _open_file(path: Path) -> Tensors:
    file = _File(path)
    found = file.open()
    if not found:
        raise UserError(f"{path}: has no tensors; name the file with the weights")
    return {name: PickledTensor(file, name, tensor) for name, tensor in found.items()}


def _unpickle(path: Path, *, mapped: bool) -> Any:
    """What a file holds, if that is tensors and plain values.

    Raises:
      UserError: it holds something else, or is broken, or PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path}: PyTorch's files are read by PyTorch, which is not installed: "
            "pip install 'musilingo-jax[convert]'"
        ) from error
    try:
        with warnings.catch_warnings():
            # They concern the file's format and are meant for its authors.
            warnings.simplefilter("ignore")
            return torch.load(path, mmap=mapped, weights_only=True, map_location="cpu")
    except Exception as error:  # A broken file makes its parsers raise anything.
        message = str(error)
        if refused := re.search(r"GLOBAL (\S+)", message):
            raise UserError(
                f"{path}: contains an object of type {refused[1]}, and making it would "
                "run the file's code; this was refused and nothing was run: get the "
                "weights as safetensors, or save the tensors alone"
            ) from error
        if "TorchScript" in message:
            raise UserError(
                f"{path}: is a TorchScript program, which is never run; get the "
                "weights as safetensors, or save the tensors alone"
            ) from error
        raise UserError(
            f"{path}: is not a file of PyTorch, or is broken or cut off; download or "
            "save it again"
        ) from error


def _tensors(content: Any) -> dict[str, Any]:
    """The tensors of what was saved, which may be the whole state of a trainer."""
    import torch

    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        content = {}
    tensors = {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor)
    }
    if all(name.startswith(_WRAPPED) for name in tensors):
        tensors = {name.removeprefix(_WRAPPED): t for name, t in tensors.items()}
    return tensors


def _as_numpy(tensor: Any) -> np.ndarray:
    """The same memory as an array; types that numpy lacks are viewed by their bits."""
    import torch

    tensor = tensor.detach()
    lacking = {
        torch.bfloat16: (torch.int16, ml_dtypes.bfloat16),
        torch.float8_e4m3fn: (torch.int8, ml_dtypes.float8_e4m3fn),
        torch.float8_e5m2: (torch.int8, ml_dtypes.float8_e5m2),
    }
    if tensor.dtype in lacking:
        bits, dtype = lacking[tensor.dtype]
        return tensor.view(bits).numpy().view(dtype)
    return tensor.numpy()

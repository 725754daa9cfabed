"""The tensors in PyTorch's own files, read as lazily as those of safetensors.

A `.bin` or `.pth` is a pickle: a program that makes the objects which were saved, and
could do anything else. PyTorch is asked to make tensors and plain values of it and to
refuse the rest, so no file's program is ever run. The numbers lie beside the program,
and only those that are asked for are read.

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

from musilingo_jax.pretrained.lazy_tensors import LazyTensor, open_index
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
"""PyTorch's names of types → safetensors'."""

# Before the names of a model that PyTorch trained on several devices.
_WRAPPED = "module."
# What was read of a mapped file stays in memory until the map is closed.
_MAPPED_BYTES = 256 * 2**20


class _File:
    """A file of PyTorch, mapped into memory while it is read.

    Pages of a map count as memory once they were looked at. So the map is closed and
    made anew after every few hundred megabytes, which costs milliseconds: all that is
    read for it is the small program. Files older than PyTorch 1.6 cannot be mapped;
    they are read whole, and are in memory while anyone holds one of their tensors.
    """

    def __init__(self, path: Path):
        self.path = path
        self._tensors = None
        self._read = 0
        self._lock = threading.Lock()
        try:
            with path.open("rb") as file:
                self._mapped = file.read(4) == b"PK\x03\x04"
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error

    def open(self) -> dict[str, Any]:
        """PyTorch's tensors by name; the caller lets go of them soon."""
        if self._tensors is None:
            self._tensors = _tensors(_unpickle(self.path, mapped=self._mapped))
        return self._tensors

    def read(self, name: str, index: Any) -> np.ndarray:
        """A part of a tensor, in memory of its own."""
        with self._lock:
            part = np.array(_as_numpy(self.open()[name])[index])
            self._read += part.nbytes
            if self._mapped and self._read > _MAPPED_BYTES:
                self._tensors, self._read = None, 0
        return part


class PickledTensor:
    """A tensor of a PyTorch file.

    `tensor[index]` reads a part of it, as `safetensors_format.Tensor` does.

    Attributes:
      shape: its sizes.
      dtype: its type as safetensors spells it.
      nbytes: of all of its numbers.
    """

    def __init__(self, file: _File, name: str, tensor: Any):
        """Keeps where the tensor is, but not the tensor.

        Raises:
          UserError: it is sparse, quantised or of a type that safetensors has not, or
            has no numbers.
        """
        kind = str(tensor.dtype).removeprefix("torch.")
        if tensor.is_meta:
            raise UserError(
                f"{file.path}: {name} has a shape but no numbers (it is on PyTorch's "
                "device meta); save the model after its weights were loaded"
            )
        if kind not in _SPELLINGS or str(tensor.layout) != "torch.strided":
            raise UserError(
                f"{file.path}: {name} is a tensor of type {kind}, which cannot be "
                "read; save it as plain floating-point numbers"
            )
        self.shape = tuple(tensor.shape)
        self.dtype = _SPELLINGS[kind]
        self.nbytes = tensor.numel() * TYPES[self.dtype].itemsize
        self._file = file
        self._name = name

    def __getitem__(self, index: Any) -> np.ndarray:
        return self._file.read(self._name, index)


def open_tensors(source: Path) -> dict[str, LazyTensor]:
    """All tensors of a file, or of the files of a folder, none of them read yet.

    Of a folder taken are `pytorch_model.bin`, else the files that its index names,
    else the only file with one of `ENDINGS`. Of a file taken are its tensors, or those
    under its key "model" or "state_dict" if it is a trainer's checkpoint, without the
    "module." that training on several devices puts before all names.

    Raises:
      UserError: PyTorch is not installed; there are no weights, or files are missing,
        broken or without tensors; or one holds objects that are no plain values, which
        would have to run code.
    """
    if source.is_file():
        return _open_file(source)
    if (source / BIN).is_file():
        return _open_file(source / BIN)
    if (source / BIN_INDEX).is_file():
        return open_index(source / BIN_INDEX, _open_file)
    files = [path for path in sorted(source.glob("*")) if path.suffix in ENDINGS]
    if not files:
        raise UserError(f"{source}: has no weights of PyTorch ({', '.join(ENDINGS)})")
    if len(files) > 1:
        names = ", ".join(path.name for path in files)
        raise UserError(f"{source}: which file is meant is not clear: {names}")
    return _open_file(files[0])


def _open_file(path: Path) -> dict[str, LazyTensor]:
    file = _File(path)
    found = file.open()
    if not found:
        raise UserError(f"{path}: has no tensors; name the file with the weights")
    return {name: PickledTensor(file, name, tensor) for name, tensor in found.items()}


def _unpickle(path: Path, *, mapped: bool) -> Any:
    """What a file holds, if that is tensors and plain values.

    Raises:
      UserError: it is not, or the file is broken, or PyTorch is not installed.
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
            # About formats, for people who write them.
            warnings.simplefilter("ignore")
            return torch.load(path, mmap=mapped, weights_only=True, map_location="cpu")
    except Exception as error:  # Whatever a broken file makes its parsers raise.
        said = str(error)
        if wanted := re.search(r"GLOBAL (\S+)", said):
            raise UserError(
                f"{path}: wants to make an object of type {wanted[1]}, which would "
                "have to run its code; this was refused and nothing was run: get the "
                "weights as safetensors, or save the tensors alone"
            ) from error
        if "TorchScript" in said:
            raise UserError(
                f"{path}: is a TorchScript program, which is never run; get the "
                "weights as safetensors, or save the tensors alone"
            ) from error
        raise UserError(
            f"{path}: is no file of PyTorch, or broken or cut off; download or save "
            "it again"
        ) from error


def _tensors(content: Any) -> dict[str, Any]:
    """The tensors of what was saved, which may be a whole trainer's state."""
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
    """The same memory as an array; types that numpy has not go by their bits."""
    import torch

    tensor = tensor.detach()
    theirs = {
        torch.bfloat16: (torch.int16, ml_dtypes.bfloat16),
        torch.float8_e4m3fn: (torch.int8, ml_dtypes.float8_e4m3fn),
        torch.float8_e5m2: (torch.int8, ml_dtypes.float8_e5m2),
    }
    if tensor.dtype in theirs:
        bits, dtype = theirs[tensor.dtype]
        return tensor.view(bits).numpy().view(dtype)
    return tensor.numpy()

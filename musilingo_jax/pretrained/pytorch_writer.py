r"""Writes tensors as PyTorch's `torch.save` does, without PyTorch.

    {"model": {"llama_proj.weight": tensor, "llama_proj.bias": tensor}}

`pretrained/pytorch_zip.py` describes the file and reads it. The pickle in it is written
by hand: for each tensor, a call of `_rebuild_tensor_v2` with a reference to its values.
"""

import math
import pickle
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from musilingo_jax.pretrained.pytorch_tensors import SPELLINGS, STORAGES
from musilingo_jax.pretrained.safetensors_file import TYPES, Layout

_ROOT = "archive"
_ALIGNMENT = 64  # bytes, at which PyTorch maps values into memory
_HEADER_BYTES = 30  # of each file in a zip, before its name


def write(
    path: Path, key: str, layout: Layout, arrays: Iterable[tuple[str, np.ndarray]]
) -> None:
    """Writes a dict of tensors under one key, one tensor after the other.

    Args:
      path: the file.
      key: as in the drawing above: "model".
      layout: name → shape and type, in the order in which they are written.
      arrays: the same with values.

    Raises:
      OSError: it cannot be written.
      ValueError: the arrays are others than the layout says, or PyTorch has no storage
        for a type.
    """
    with zipfile.ZipFile(path, "w") as archive:
        _add(archive, "data.pkl", _program(key, layout))
        _add(archive, "byteorder", b"little")
        written = iter(arrays)
        for number, (name, (shape, dtype)) in enumerate(layout.items()):
            found, array = next(written, ("nothing", np.zeros(0)))
            if found != name or array.shape != tuple(shape) or array.dtype != dtype:
                raise ValueError(f"{found} was written, but {name} is next")
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            _add(archive, f"data/{number}", np.ascontiguousarray(little).tobytes())
        if (extra := next(written, None)) is not None:
            raise ValueError(f"{extra[0]} was written, but nothing is next")
        _add(archive, "version", b"3\n")


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """A file in the zip, not compressed, whose contents begin at an aligned byte."""
    entry = zipfile.ZipInfo(f"{_ROOT}/{name}")
    # A field of the header that readers skip, called "FB" as in PyTorch's own files.
    begin = archive.start_dir + _HEADER_BYTES + len(entry.filename) + 4
    padding = -begin % _ALIGNMENT
    entry.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    archive.writestr(entry, content)


def _program(key: str, layout: Layout) -> bytes:
    """The pickle of {key: {name: tensor, …}}."""
    tensors = [
        _text(name) + _tensor(number, tuple(shape), np.dtype(dtype))
        for number, (name, (shape, dtype)) in enumerate(layout.items())
    ]
    inside = pickle.EMPTY_DICT + pickle.MARK + b"".join(tensors) + pickle.SETITEMS
    outside = pickle.EMPTY_DICT + _text(key) + inside + pickle.SETITEM
    return pickle.PROTO + b"\x02" + outside + pickle.STOP


def _tensor(number: int, shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """A call of `_rebuild_tensor_v2(storage, 0, shape, strides, False, {})`."""
    strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    storage = _tuple(
        _text("storage"),
        _global("torch", f"{_storage_name(dtype)}Storage"),
        _text(str(number)),
        _text("cpu"),
        _number(math.prod(shape)),
    )
    hooks = _global("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    arguments = _tuple(
        storage + pickle.BINPERSID,
        _number(0),
        _tuple(*map(_number, shape)),
        _tuple(*map(_number, strides)),
        pickle.NEWFALSE,
        hooks,
    )
    return _global("torch._utils", "_rebuild_tensor_v2") + arguments + pickle.REDUCE


def _storage_name(dtype: np.dtype) -> str:
    spelling = next(name for name, kind in TYPES.items() if kind == dtype)
    names: Mapping[str, str] = {SPELLINGS[t]: name for name, t in _PLAIN.items()}
    if spelling not in names:
        raise ValueError(f"PyTorch has no storage of {dtype}")
    return names[spelling]


_PLAIN = {name: dtype for name, dtype in STORAGES.items() if dtype in SPELLINGS}


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _tuple(*items: bytes) -> bytes:
    return pickle.MARK + b"".join(items) + pickle.TUPLE


def _text(text: str) -> bytes:
    content = text.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(content)) + content


def _number(number: int) -> bytes:
    content = pickle.encode_long(number)
    return pickle.LONG1 + bytes([len(content)]) + content

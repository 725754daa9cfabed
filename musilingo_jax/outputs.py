"""Folders of weights to be written: names, and tensors that are read when it is time.

However large the model, nothing is in memory but a tensor or two; and a folder appears
under its name when it is complete, or not at all.
"""

import contextlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from musilingo_jax import cli, files
from musilingo_jax.errors import UserError
from musilingo_jax.sources import PREPROCESSOR, TOKENIZER_FILES
from musilingo_jax.tensor_files import CONFIG, TYPES, Tensors, Writer

# Beside the weights of a part: all that says how to use them, and no program.
_SMALL_FILES = (PREPROCESSOR, "generation_config.json", *TOKENIZER_FILES)
_SPARE_BYTES = 64 * 2**20  # Of the disk, for headers and the small files.


@dataclass(frozen=True)
class Piece:
    """A tensor to be written: `read()` has this shape and type."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Output:
    """A folder to be written.

    Attributes:
      pieces: its tensors by name, in their order.
      config: the content of its `config.json`; None for no such file.
      beside: small files to copy.
      folder: where it is under the folder that the user named; "" is that one itself.
    """

    pieces: Mapping[str, Piece]
    config: Mapping[str, Any] | None
    beside: Sequence[Path] = field(default=())
    folder: str = field(default="")


def copies(tensors: Tensors) -> dict[str, Piece]:
    """Each tensor as it is, to the bit.

    Raises:
      UserError: one is of a type that numpy cannot hold.
    """
    pieces = {}
    for name, tensor in tensors.items():
        if tensor.dtype not in TYPES:
            raise UserError(f"{name}: numbers of type {tensor.dtype} are not known")
        read = partial(tensor.__getitem__, ...)
        pieces[name] = Piece(tuple(tensor.shape), TYPES[tensor.dtype], read)
    return pieces


def small_files(folder: Path) -> list[Path]:
    """The files to copy along with the weights of a folder, its configuration apart."""
    return [folder / name for name in _SMALL_FILES if (folder / name).is_file()]


def write(out: Path, outputs: Sequence[Output], *, shard_bytes: int) -> None:
    """Writes the outputs under `out`, which appears when all of them are complete.

    Args:
      out: a folder that is not there yet, or empty.
      outputs: what it will hold.
      shard_bytes: a file of weights becomes no larger than that, unless one tensor is.

    Raises:
      UserError: `out` is not empty, the disk has no room or must not be written, or a
        tensor cannot be read.
    """
    total = sum(piece.nbytes for output in outputs for piece in output.pieces.values())
    with (
        _appearing(out, total) as unfinished,
        cli.progress(total=total, unit="B", label=out.name, unit_scale=True) as bar,
    ):
        for output in outputs:
            folder = unfinished / output.folder
            layout = {
                name: (piece.shape, piece.dtype)
                for name, piece in output.pieces.items()
            }
            with Writer(folder, layout, shard_bytes=shard_bytes, metadata={}) as writer:
                for name, array in _read_ahead(output.pieces):
                    writer.write(name, array)
                    bar.update(array.nbytes)
            for path in output.beside:
                shutil.copyfile(path, folder / path.name)
            if output.config is not None:
                text = json.dumps(dict(output.config), indent=2) + "\n"
                (folder / CONFIG).write_text(text, encoding="utf-8")


def _read_ahead(pieces: Mapping[str, Piece]) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors in their order, the next one being read while one is written."""
    names = list(pieces)
    with ThreadPoolExecutor(1) as reader:
        reading = [reader.submit(pieces[name].read) for name in names[:1]]
        for name, following in zip_longest(names, names[1:]):
            array = reading.pop().result()
            if following is not None:
                reading.append(reader.submit(pieces[following].read))
            yield name, array


@contextlib.contextmanager
def _appearing(out: Path, total: int) -> Iterator[Path]:
    """A folder to write in, which becomes `out` at the end unless an error does."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out}: is there and not empty; choose another --out")
    unfinished = out.absolute().with_name(f"{out.absolute().name}.partial")
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from error
    files.claim(unfinished, doing="writing")
    lock = unfinished / "lock"
    try:
        for path in unfinished.iterdir():  # Of a conversion that was killed.
            if path.is_dir():
                shutil.rmtree(path)
            elif path != lock:
                path.unlink()
        free = shutil.disk_usage(unfinished).free
        if free < total + _SPARE_BYTES:
            raise UserError(
                f"{out}: needs {total / 1e9:.2f} GB and the disk has {free / 1e9:.2f} "
                "GB left; make room, or choose another disk"
            )
        yield unfinished
        lock.unlink(missing_ok=True)
        unfinished.replace(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)

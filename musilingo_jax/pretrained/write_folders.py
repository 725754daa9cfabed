"""Writes folders of weights, tensor by tensor, all files or none.

However large the model is, one or two tensors are in memory. A folder appears under its
name when it is complete, or not at all.
"""

import contextlib
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from musilingo_jax.pretrained import pytorch_writer
from musilingo_jax.pretrained.finite_tensors import finite
from musilingo_jax.pretrained.lazy_tensors import Tensors
from musilingo_jax.pretrained.lora_sum import LoraSum
from musilingo_jax.pretrained.safetensors_file import TYPES
from musilingo_jax.pretrained.safetensors_writer import (
    SafetensorsWriter,
    unwritable,
    write_config,
)
from musilingo_jax.pretrained.tensor_files import (
    PREPROCESSOR,
    TOKENIZER_FILES,
    WEIGHTS,
)
from musilingo_jax.runtime import cli, storage
from musilingo_jax.runtime.errors import UserError

CHECKPOINT = "checkpoint.pth"
"""The file of an `Output` with `checkpoint`."""

# The files beside the weights of a part that say how to use them. No code.
_SMALL_FILES = (
    *(PREPROCESSOR, "generation_config.json", "chat_template.jinja"),
    *TOKENIZER_FILES,
)
_SPARE_BYTES = 64 * 2**20  # on the disk, for headers and the small files
# A file in each unfinished folder, which marks that the folder may be removed.
_MARK = ".unfinished-conversion"


@dataclass(frozen=True)
class FolderPart:
    """A tensor to be written: `read()` has this shape and type."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """The number of its bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Output:
    """A folder to be written.

    Attributes:
      pieces: its tensors by name, in the order in which they are written.
      config: the content of its `config.json`; None for no such file.
      beside: small files to copy.
      folder: its name in the folder that the user named; "" for that folder itself.
      checkpoint: whether to write a `checkpoint.pth` as the original's trainer does,
        {"model": tensors}, in place of safetensors.
      single: the name of its only file of weights; "" for the usual names and sizes.
      texts: small files to write: name → content; a name may begin with a folder's.
    """

    pieces: Mapping[str, FolderPart]
    config: Mapping[str, Any] | None
    beside: Sequence[Path] = field(default=())
    folder: str = field(default="")
    checkpoint: bool = field(default=False)
    single: str = field(default="")
    texts: Mapping[str, bytes] = field(default_factory=dict)


def copies(tensors: Tensors, source: str | Path) -> dict[str, FolderPart]:
    """Each tensor as it is, to the bit, and checked for NaN and infinity.

    One to which a LoRA is added is rounded to the type of the base's.

    Args:
      tensors: by name.
      source: the folder or file that they are in, for messages.

    Raises:
      UserError: one has a type that numpy lacks.
    """
    pieces = {}
    for name, tensor in finite(tensors, str(source)).items():
        if tensor.dtype not in TYPES:
            raise UserError(f"{tensor.where}: type {tensor.dtype} is not supported")
        stored = tensor.tensor
        kind = TYPES[(stored.base if isinstance(stored, LoraSum) else stored).dtype]
        read = partial(replace(tensor, cast=kind).__getitem__, ...)
        pieces[name] = FolderPart(tuple(tensor.shape), kind, read)
    return pieces


def small_files(folder: Path) -> list[Path]:
    """The files to copy with the weights of a folder, apart from `config.json`."""
    return [folder / name for name in _SMALL_FILES if (folder / name).is_file()]


def write(out: Path, outputs: Sequence[Output], *, shard_bytes: int) -> None:
    """Writes the outputs under `out`, which appears when all of them are complete.

    Args:
      out: a folder that does not exist or is empty; or a link to one.
      outputs: what it will hold.
      shard_bytes: the largest size of a file of weights, unless one tensor is larger.

    Raises:
      UserError: `out` is not empty, the disk is full or cannot be written, or a tensor
        cannot be read.
    """
    total = sum(piece.nbytes for output in outputs for piece in output.pieces.values())
    try:
        with (
            _appearing(out, total) as unfinished,
            cli.progress(total=total, unit="B", label=out.name, unit_scale=True) as bar,
        ):
            for output in outputs:
                _write(unfinished / output.folder, output, shard_bytes, bar.update)
    except OSError as error:
        raise unwritable(out, error) from error


def _write(
    folder: Path, output: Output, shard_bytes: int, progress: Callable[[int], Any]
) -> None:
    """Writes the content of one folder; OSError as in `shutil.copyfile`."""
    layout = {name: (piece.shape, piece.dtype) for name, piece in output.pieces.items()}
    arrays = _counted(_read_ahead(output.pieces), progress)
    if output.checkpoint:
        path = folder / CHECKPOINT
        pytorch_writer.write(path, "model", layout, arrays)
        storage.sync(path)
    else:
        largest = sys.maxsize if output.single else shard_bytes
        with SafetensorsWriter(
            folder, layout, shard_bytes=largest, metadata={}
        ) as writer:
            for name, array in arrays:
                writer.write(name, array)
        if output.single:
            (folder / WEIGHTS).rename(folder / output.single)
            storage.sync(folder)
    for path in output.beside:
        storage.sync(Path(shutil.copyfile(path, folder / path.name)))
    for name, content in output.texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
        storage.sync(folder / name)
    if output.config is not None:
        write_config(folder, output.config)


def _counted(
    arrays: Iterable[tuple[str, np.ndarray]], progress: Callable[[int], Any]
) -> Iterator[tuple[str, np.ndarray]]:
    """The same tensors; the size of each is reported once it was written."""
    for name, array in arrays:
        yield name, array
        progress(array.nbytes)


def _read_ahead(pieces: Mapping[str, FolderPart]) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors in their order; the next one is read while one is written."""
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
    """A folder to write into, which becomes `out` unless an error leaves the block."""
    place = _place(out)
    unfinished = place.with_name(f"{place.name}.partial")
    _claim(unfinished)
    finished = False
    try:
        needed, free = total + _SPARE_BYTES, shutil.disk_usage(unfinished).free
        if free < needed:
            raise UserError(
                f"{out}: needs {needed / 1e9:.2f} GB, "
                f"{math.ceil((needed - free) / 1e6):,} MB more than the disk has left; "
                "free some space, or choose another disk"
            )
        yield unfinished
        finished = True
        try:
            unfinished.replace(place)
        except OSError as error:
            # Without the mark, no conversion will remove the folder.
            _unmark(unfinished)
            raise UserError(
                f"{out}: is complete, but cannot be given this name ({error.strerror});"
                f" it was kept as {unfinished}: rename it"
            ) from error
        # Who is killed before this leaves a mark in what is complete; `_place` removes
        # it. In the other order, the same command would not know what it has left.
        _unmark(place)
        storage.sync(place.parent)
    finally:
        if not finished:
            with contextlib.suppress(OSError):
                _empty(unfinished)
                _unmark(unfinished)
                unfinished.rmdir()


def _place(out: Path) -> Path:
    """The path that `out` will have: its target if it is a link.

    Raises:
      UserError: something is there already, or a folder cannot be moved there.
    """
    try:
        place = out.resolve()
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{out}: is a link that cannot be followed; choose another --out"
        ) from error
    if os.path.lexists(place) and not (place.is_dir() and not any(place.iterdir())):
        if (place / _MARK).is_file():
            _unmark(place)
        raise UserError(f"{out}: already exists and is not empty; choose another --out")
    if os.path.ismount(place):
        raise UserError(
            f"{out}: is a mount point, which cannot be replaced; choose a new folder in"
            f" it, such as {out / 'model'}"
        )
    return place


def _claim(unfinished: Path) -> None:
    """Creates the folder, or empties that of a conversion that was killed.

    Raises:
      UserError: it is not a conversion's, or another program is writing to it.
    """
    mark = unfinished / _MARK
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        if unfinished.is_symlink() or (any(unfinished.iterdir()) and not mark.exists()):
            raise _foreign(unfinished)
        mark.touch()
    except OSError as error:
        raise unwritable(unfinished, error) from error
    storage.lock_folder(unfinished, doing="writing")
    if not mark.exists():  # The other conversion has just finished.
        raise _foreign(unfinished)
    _empty(unfinished)


def _unmark(folder: Path) -> None:
    """Removes the mark and the lock of a conversion."""
    (folder / "lock").unlink(missing_ok=True)
    (folder / _MARK).unlink(missing_ok=True)


def _empty(unfinished: Path) -> None:
    """Removes all but the mark and the lock: this may be interrupted, too."""
    for path in unfinished.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in (_MARK, "lock"):
            path.unlink()


def _foreign(unfinished: Path) -> UserError:
    return UserError(
        f"{unfinished}: exists and is not an unfinished conversion, so it is kept; "
        "move it, or choose another --out"
    )

"""Folders of weights to be written: names, and tensors that are read when it is time.

However large the model, nothing is in memory but a tensor or two; and a folder appears
under its name when it is complete, or not at all.
"""

import contextlib
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from musilingo_jax.pretrained.lazy_tensors import Tensors
from musilingo_jax.pretrained.safetensors_file import TYPES
from musilingo_jax.pretrained.safetensors_writer import (
    SafetensorsWriter,
    unwritable,
    write_config,
)
from musilingo_jax.pretrained.sources import PREPROCESSOR, TOKENIZER_FILES
from musilingo_jax.runtime import cli, storage
from musilingo_jax.runtime.errors import UserError

# Beside the weights of a part: all that says how to use them, and no program.
_SMALL_FILES = (PREPROCESSOR, "generation_config.json", *TOKENIZER_FILES)
_SPARE_BYTES = 64 * 2**20  # Of the disk, for headers and the small files.
# A file in each unfinished folder, by which it is known that it may be removed.
_MARK = ".unfinished-conversion"


@dataclass(frozen=True)
class FolderPart:
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

    pieces: Mapping[str, FolderPart]
    config: Mapping[str, Any] | None
    beside: Sequence[Path] = field(default=())
    folder: str = field(default="")


def copies(tensors: Tensors) -> dict[str, FolderPart]:
    """Each tensor as it is, to the bit.

    Raises:
      UserError: one is of a type that numpy cannot hold.
    """
    pieces = {}
    for name, tensor in tensors.items():
        if tensor.dtype not in TYPES:
            raise UserError(f"{name}: numbers of type {tensor.dtype} are not known")
        read = partial(tensor.__getitem__, ...)
        pieces[name] = FolderPart(tuple(tensor.shape), TYPES[tensor.dtype], read)
    return pieces


def small_files(folder: Path) -> list[Path]:
    """The files to copy along with the weights of a folder, its configuration apart."""
    return [folder / name for name in _SMALL_FILES if (folder / name).is_file()]


def write(out: Path, outputs: Sequence[Output], *, shard_bytes: int) -> None:
    """Writes the outputs under `out`, which appears when all of them are complete.

    Args:
      out: a folder that is not there yet, or empty; or a link to such a place.
      outputs: what it will hold.
      shard_bytes: a file of weights becomes no larger than that, unless one tensor is.

    Raises:
      UserError: `out` is not empty, the disk has no room or must not be written, or a
        tensor cannot be read.
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
    with SafetensorsWriter(
        folder, layout, shard_bytes=shard_bytes, metadata={}
    ) as writer:
        for name, array in _read_ahead(output.pieces):
            writer.write(name, array)
            progress(array.nbytes)
    for path in output.beside:
        storage.sync(Path(shutil.copyfile(path, folder / path.name)))
    if output.config is not None:
        write_config(folder, output.config)


def _read_ahead(pieces: Mapping[str, FolderPart]) -> Iterator[tuple[str, np.ndarray]]:
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
    place = _place(out)
    unfinished = place.with_name(f"{place.name}.partial")
    _claim(unfinished)
    finished = False
    try:
        needed, free = total + _SPARE_BYTES, shutil.disk_usage(unfinished).free
        if free < needed:
            raise UserError(
                f"{out}: needs {needed / 1e9:.2f} GB, which is "
                f"{math.ceil((needed - free) / 1e6):,} MB more than the disk has left; "
                "make room, or choose another disk"
            )
        yield unfinished
        # The mark first: without it nobody thinks that this may be removed.
        (unfinished / _MARK).unlink()
        (unfinished / "lock").unlink(missing_ok=True)
        finished = True
        try:
            unfinished.replace(place)
        except OSError as error:
            raise UserError(
                f"{out}: is complete, but cannot be called so ({error.strerror}); it "
                f"was kept as {unfinished}: give it another name"
            ) from error
        storage.sync(place.parent)
    finally:
        if not finished:
            with contextlib.suppress(OSError):
                _empty(unfinished)
                (unfinished / "lock").unlink(missing_ok=True)
                (unfinished / _MARK).unlink(missing_ok=True)
                unfinished.rmdir()


def _place(out: Path) -> Path:
    """Where `out` will be: what it links to, if it is a link; nothing is there yet.

    Raises:
      UserError: something is there, or a folder cannot take its place.
    """
    try:
        place = out.resolve()
    except (OSError, RuntimeError) as error:
        raise UserError(f"{out}: leads nowhere; choose another --out") from error
    if os.path.lexists(place) and not (place.is_dir() and not any(place.iterdir())):
        raise UserError(f"{out}: is there and not empty; choose another --out")
    if os.path.ismount(place):
        raise UserError(
            f"{out}: is a whole disk, which has the name it has; choose a new folder on"
            f" it, like {out / 'model'}"
        )
    return place


def _claim(unfinished: Path) -> None:
    """Makes the folder, or empties that of a conversion that was killed.

    Raises:
      UserError: it is somebody else's, or another program is writing in it.
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
    if not mark.exists():  # Whoever had it has just finished.
        raise _foreign(unfinished)
    _empty(unfinished)


def _empty(unfinished: Path) -> None:
    """Removes all but what says whose the folder is: this may be cut short, too."""
    for path in unfinished.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in (_MARK, "lock"):
            path.unlink()


def _foreign(unfinished: Path) -> UserError:
    return UserError(
        f"{unfinished}: is there and no unfinished conversion, so that it must stay; "
        "move it, or choose another --out"
    )

"""Folders on this machine or in a bucket, and files that appear there whole.

A path may begin with `gs://`, `s3://`, `az://` or `hf://`; etils' `epath` opens those
with the `fsspec` package of that store, such as `gcsfs`.
"""

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from musilingo_jax.errors import UserError

PARTIAL = ".partial"


def open_folder(name: str | os.PathLike) -> epath.Path:
    """The folder of that name, which need not be there yet.

    Raises:
      UserError: it is in a bucket that cannot be reached.
    """
    folder = epath.Path(name)
    if not is_local(folder):
        try:
            folder.exists()
        # Each store has errors of its own.
        except Exception as error:
            raise UserError(
                f"{folder}: cannot be reached ({error}); install the package that "
                "opens it (`pip install gcsfs` for gs://), and log in"
            ) from error
    return folder


def is_local(path: epath.Path) -> bool:
    """Whether any library can open the path, not only `epath`."""
    return "://" not in os.fspath(path)


def sizes(folder: epath.Path) -> dict[str, int | None]:
    """The names of its files and how long they are; None where asking takes long."""
    try:
        if not is_local(folder):
            return {path.name: None for path in folder.iterdir()}
        with os.scandir(folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries}
    except FileNotFoundError:
        return {}


@contextlib.contextmanager
def whole(path: epath.Path) -> Iterator[Path]:
    """A local file to write, which appears at `path` when it is complete.

    Killed at any moment, or out of space, there is the old file at `path` or the new
    one, or none as before. Several processes may write the same file.

    Raises:
      OSError: it cannot be written.
    """
    if not is_local(path):
        with tempfile.TemporaryDirectory() as folder:
            partial = Path(folder) / path.name
            yield partial
            _upload(partial, path)
        return
    partial = _partial(path)
    try:
        yield partial
        _sync(partial)
        partial.replace(path)
        _sync(partial.parent)
    finally:
        partial.unlink(missing_ok=True)


def write(path: epath.Path, text: str) -> None:
    """Writes a text file, whole.

    Raises:
      OSError: it cannot be written.
    """
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def create(path: epath.Path, text: str) -> bool:
    """Writes a text file, whole, if there is none yet; whether this process did.

    Of several processes exactly one does, except in a bucket, where the last one wins.

    Raises:
      OSError: it cannot be written.
    """
    if not is_local(path):
        if path.exists():
            return False
        write(path, text)
        return True
    partial = _partial(path)
    try:
        partial.write_text(text, encoding="utf-8")
        _sync(partial)
        os.link(partial, path)  # Unlike renaming, it replaces nothing.
        _sync(partial.parent)
        return True
    except FileExistsError:
        return False
    finally:
        partial.unlink(missing_ok=True)


def sweep(folder: epath.Path, beginning: str) -> None:
    """Removes what killed processes left unfinished of files named like that."""
    if not is_local(folder):
        return  # Nothing unfinished ever is in a bucket.
    for name in sizes(folder):
        if name.startswith(beginning) and name.endswith(PARTIAL):
            (folder / name).unlink(missing_ok=True)


def _partial(path: epath.Path) -> Path:
    """A name beside `path` that no other process uses."""
    return Path(f"{os.fspath(path)}.{socket.gethostname()}-{os.getpid()}{PARTIAL}")


def _upload(local: Path, path: epath.Path) -> None:
    try:
        epath.Path(local).copy(path, overwrite=True)
    except OSError:
        raise
    except Exception as error:
        raise OSError(str(error)) from error


def _sync(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

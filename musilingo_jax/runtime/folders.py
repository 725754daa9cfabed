"""Folders on this machine or in a bucket, and files that appear there whole.

A path may begin with `gs://`, `s3://`, `az://` or `hf://`; etils' `epath` opens those
with the `fsspec` package of that store, such as `gcsfs`.
"""

import contextlib
import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.files import sync

PARTIAL = ".partial"

# Names that `_partial` gives. Other programs have unfinished files of their own.
_OURS = re.compile(
    r"(?:\d{8}\.(?:array_record|json)|index\.jsonl|\d{3,}\.json)"
    rf"\.(?P<host>.+)-(?P<process>\d+){re.escape(PARTIAL)}"
)
_FORGOTTEN_AFTER = 24 * 3600  # Seconds; nobody writes a file for so long.


def open_folder(name: str | os.PathLike) -> epath.Path:
    """The folder of that name, which need not be there yet.

    Raises:
      UserError: it has no name, is a file, or is in a bucket that cannot be reached.
    """
    if name is None or not os.fspath(name).strip():
        raise UserError(
            "the folder for the features has no name; choose one with "
            "--config.features.cache=…"
        )
    name = os.fspath(name)
    if is_local(name):
        folder = epath.Path(name)
        nearest = next(path for path in (folder, *folder.parents) if _is_there(path))
        if not nearest.is_dir():
            raise UserError(
                f"{folder}: {nearest} is a file, not a folder; choose another one with "
                "--config.features.cache=…"
            )
        return folder
    try:
        folder = epath.Path(name)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{name}: there is no store of the kind {name.split('://')[0]}://; folders "
            "are local, or on gs://, s3://, az:// or hf://"
        ) from error
    else:
        try:
            folder.exists()
        # Each store has errors of its own.
        except Exception as error:
            raise UserError(
                f"{folder}: cannot be reached ({error}); install the package that "
                "opens it (`pip install gcsfs` for gs://), and log in"
            ) from error
    return folder


def is_local(path: str | os.PathLike) -> bool:
    """Whether any library can open the path, not only `epath`."""
    return "://" not in os.fspath(path)


def sizes(folder: epath.Path) -> dict[str, int | None]:
    """The names of its files and how long they are; None where asking takes long."""
    try:
        if not is_local(folder):
            return {path.name: None for path in folder.iterdir()}
        with os.scandir(folder) as entries:
            return {entry.name: _size(entry) for entry in entries}
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
        sync(partial)
        partial.replace(path)
        sync(partial.parent)
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
        sync(partial)
        os.link(partial, path)  # Unlike renaming, it replaces nothing.
        sync(partial.parent)
        return True
    except FileExistsError:
        return False
    finally:
        partial.unlink(missing_ok=True)


def sweep(folder: epath.Path, beginning: str) -> None:
    """Removes what killed processes left unfinished of files named like that.

    What a living process is at stays, and so do files with names that are not ours.
    Of processes of other hosts nobody knows whether they live: theirs stay for a day.
    """
    if not is_local(folder):
        return  # Nothing unfinished ever is in a bucket.
    for name in sizes(folder):
        if name.startswith(beginning) and (ours := _OURS.fullmatch(name)):
            path = folder / name
            if _is_dead(ours["host"], int(ours["process"])) or _is_forgotten(path):
                path.unlink(missing_ok=True)


def _is_dead(host: str, process: int) -> bool:
    if host != socket.gethostname():
        return False
    try:
        os.kill(process, 0)  # Asks whether it is there, no more.
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass
    return False


def _is_forgotten(path: epath.Path) -> bool:
    try:
        return time.time() - os.stat(path).st_mtime > _FORGOTTEN_AFTER
    except FileNotFoundError:
        return False


def _is_there(path: epath.Path) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return path == path.parent  # Not to be seen, hence whatever it is.
    return True


def _size(entry: os.DirEntry) -> int:
    """0 of a file that another process removes just now, or of a dangling link."""
    try:
        return entry.stat().st_size
    except OSError:
        return 0


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

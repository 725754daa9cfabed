"""Files that are there whole or not at all, and folders that one program writes."""

import fcntl
import os
from pathlib import Path

from musilingo_jax.errors import UserError

# Locks that this process holds, by path: the system takes them back when it dies,
# however it dies.
_LOCKS = {}


def claim(folder: Path, *, doing: str) -> None:
    """Takes the folder for this process, until it ends.

    Raises:
      UserError: another process has it.
    """
    path = folder / "lock"
    if path in _LOCKS:
        return
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise UserError(
            f"{folder}: another program is {doing} here; wait for it, or choose "
            "another folder"
        ) from error
    _LOCKS[path] = file


def write_whole(path: Path, text: str) -> None:
    """Writes a text file so that a kill leaves the old one or the new one.

    The folder is made if there is none.

    Raises:
      OSError: it cannot be written; the old one, if there is one, stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        sync(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk.

    Raises:
      OSError: it did not get there.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Files that are there whole or not at all, and folders that one program writes."""

import fcntl
import os
import tempfile
from pathlib import Path

from musilingo_jax.runtime.errors import UserError

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


def check_file(path: Path, *, flag: str) -> None:
    """Checks that a file can be written, before there is anything to write.

    Nothing is left behind, neither the file nor its folder.

    Args:
      path: the file, which need not be there, nor its folder.
      flag: what named it, for the sentence.

    Raises:
      UserError: it cannot be written.
    """
    try:
        if path.is_dir():
            raise UserError(f"{flag}={path} is a folder: name a file in it")
        if path.exists():
            if not path.is_file():
                raise UserError(f"{flag}={path} is no ordinary file: name another")
            path.open("a").close()
    except OSError as error:
        raise _unwritable(path, flag, path, error) from error
    check_folder(path.parent, flag=flag, named=path)


def check_folder(path: Path, *, flag: str, named: Path | None = None) -> None:
    """Checks in the same way that files can be written into a folder.

    Args:
      path: the folder, which need not be there.
      flag: what named it, for the sentence.
      named: what the flag says, if that is not the folder.

    Raises:
      UserError: they cannot.
    """
    there = path
    try:
        there = next(p for p in (path, *path.absolute().parents) if p.exists())
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise _unwritable(named or path, flag, there, error) from error


def _unwritable(path: Path, flag: str, where: Path, error: OSError) -> UserError:
    return UserError(
        f"{flag}={path} cannot be written ({where}: {error.strerror}): name another "
        "place"
    )


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

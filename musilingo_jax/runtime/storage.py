"""Atomic writes, and a lock for folders with a single writer."""

import contextlib
import errno
import fcntl
import os
import re
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from etils import epath

from musilingo_jax.runtime import failures
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import file_sizes, is_local
from musilingo_jax.runtime.printable import printable

PARTIAL = ".partial"

# Open lock files of this process, by path. The system releases a lock when its process
# ends, even if it is killed.
_locks: dict[Path, Any] = {}

# Names of `_partial`, for files of jobs.
_LEFT_BEHIND = re.compile(
    r"(?:\d{8}\.(?:array_record|jsonl?)|index\.jsonl|\d{3,}\.json)"
    rf"\.(?P<host>.+)-(?P<process>\d+){re.escape(PARTIAL)}"
)
# Seconds after which an unfinished file of another host counts as left behind.
_ABANDONED_AFTER = 24 * 3600


def lock_folder(folder: Path, *, doing: str) -> None:
    """Makes this process the only writer of a folder, until it ends.

    Args:
      folder: an existing folder on this machine.
      doing: what this process does there, for the message to the next one.

    Raises:
      UserError: another process holds the lock, or there can be none.
    """
    path = folder / "lock"
    if path in _locks:
        return
    with writing(path, again="run the same command again"):
        file = open_lock(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise UserError(
            f"{folder}: another program is {doing} here; wait for it, or choose "
            "another folder"
        ) from error
    _locks[path] = file


def open_lock(path: str | os.PathLike) -> IO[str]:
    """Opens a file to be locked, which is made if it does not exist.

    Raises:
      OSError: it cannot be opened, or is not a regular file. Opening a pipe as usual
        would wait until another program reads from it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is not a regular file", os.fspath(path))
    return os.fdopen(descriptor, "r+")


@contextlib.contextmanager
def atomic(path: Path | epath.Path) -> Iterator[Path]:
    """Yields a local file to write; at the end of the block it replaces `path`.

    If the process is killed or the disk is full, `path` is what it was before: the old
    file, or no file. If several processes write the same file, one of them wins.
    Missing folders are made.

    Raises:
      OSError: it cannot be written.
    """
    if not is_local(path):
        with tempfile.TemporaryDirectory() as folder:
            partial = Path(folder) / path.name
            yield partial
            _upload(partial, epath.Path(path))
        return
    partial = _partial(path)
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        sync(partial)
        partial.replace(path)
        sync(partial.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path | epath.Path, text: str) -> None:
    """Writes a UTF-8 text file as `atomic` does.

    Raises:
      OSError: it cannot be written; an old file is kept.
    """
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


def create_text(path: epath.Path, text: str) -> bool:
    """Writes a UTF-8 text file unless it exists; returns whether this process did.

    Of several processes exactly one does, except in a bucket, where the last one wins.

    Raises:
      OSError: it cannot be written.
    """
    if not is_local(path):
        if path.exists():
            return False
        write_text(path, text)
        return True
    partial = _partial(path)
    try:
        partial.write_text(text, encoding="utf-8")
        sync(partial)
        os.link(partial, path)  # Unlike a rename, a link never replaces a file.
        sync(partial.parent)
        return True
    except FileExistsError:
        return False
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until a file's contents, or a folder's list of names, is on the disk.

    Raises:
      OSError: it could not be written.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partial_files(folder: epath.Path, beginning: str) -> None:
    """Removes unfinished files that killed processes have left in a folder.

    Files that a running process is writing are kept. Whether a process on another host
    is running cannot be known: its files are kept for a day.

    Args:
      folder: of a job.
      beginning: how the names of the files begin.
    """
    if not is_local(folder):
        return  # A bucket has no unfinished files: an upload is atomic.
    for name in file_sizes(folder):
        if name.startswith(beginning) and (ours := _LEFT_BEHIND.fullmatch(name)):
            path = folder / name
            if _is_dead(ours["host"], int(ours["process"])) or _is_abandoned(path):
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(where: str | os.PathLike, *, again: str) -> Iterator[None]:
    """Turns a failure to write within the block into one sentence.

    Args:
      where: as in `write_failure`.
      again: as in `write_failure`.

    Raises:
      UserError: the disk is full, for example; other errors are left as they are.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        failure = write_failure(where, error, again=again)
        if failure is None:
            raise
        raise failure from error


def write_failure(
    where: str | os.PathLike, error: Exception, *, again: str
) -> UserError | None:
    """The message for something that could not be written; None for any other error.

    Args:
      where: the file or folder.
      error: what was raised, by Python or by a library (`failures.system_error`).
      again: what to do once the cause is removed, such as "run the same command again".
    """
    number = failures.system_error(error)
    if number is None:
        return None
    reason = os.strerror(number)
    if number in failures.NO_SPACE:
        problem = f"there is no space left ({reason}): free some and {again}"
    elif number in failures.GONE:
        problem = (
            f"was moved or deleted while in use ({reason}): restore it and {again}"
        )
    else:
        problem = f"cannot be written ({reason}): make it writable and {again}"
    return UserError(f"{printable(os.fspath(where))}: {problem}")


def _partial(path: str | os.PathLike) -> Path:
    """A path in the same folder that no other process uses."""
    return Path(f"{os.fspath(path)}.{socket.gethostname()}-{os.getpid()}{PARTIAL}")


def _upload(local: Path, path: epath.Path) -> None:
    try:
        epath.Path(local).copy(path, overwrite=True)
    except OSError:
        raise
    except Exception as error:  # Each store has errors of its own.
        raise OSError(str(error)) from error


def _is_dead(host: str, process: int) -> bool:
    if host != socket.gethostname():
        return False
    try:
        os.kill(process, 0)  # Signal 0 only asks whether the process exists.
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass
    return False


def _is_abandoned(path: epath.Path) -> bool:
    try:
        return time.time() - os.stat(path).st_mtime > _ABANDONED_AFTER
    except FileNotFoundError:
        return False

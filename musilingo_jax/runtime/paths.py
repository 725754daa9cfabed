"""Opens and checks files and folders, on this machine or in a bucket.

A path may begin with `gs://`, `s3://`, `az://` or `hf://`; etils' `epath` opens it with
the `fsspec` package of that store, such as `gcsfs`.
"""

import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import BinaryIO

from etils import epath

from musilingo_jax.runtime.errors import UserError


def user_cache(name: str) -> Path:
    """The folder for one kind of data that is cached between runs, on this machine.

    `$XDG_CACHE_HOME/musilingo_jax/<name>`, by default in `~/.cache`.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "musilingo_jax" / name


def stat_regular_file(path: Path) -> os.stat_result:
    """The size and times of a regular file.

    Call it before opening a file that may be anything: opening a named pipe blocks
    until another program writes into it.

    Raises:
      OSError: the file does not exist or cannot be accessed, or it is a folder
        (`IsADirectoryError`), a pipe, a socket or a device.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return status


def open_regular_file(path: Path) -> BinaryIO:
    """Opens a regular file to be read, at once.

    Raises:
      OSError: as `stat_regular_file`.
    """
    # Not `stat` first: between the two, the file could be replaced by a pipe.
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        file.close()
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return file


def _without_waiting(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NONBLOCK)


def open_folder(
    name: str | os.PathLike | None, *, flag: str = "--config.features.cache"
) -> epath.Path:
    """The folder of a job, which need not exist yet.

    Args:
      name: of the folder.
      flag: what names it, for messages; by default the feature cache's.

    Raises:
      UserError: the name is empty, names a file, or is in a bucket that cannot be
        reached.
    """
    if name is None or not os.fspath(name).strip():
        raise UserError(
            f"the folder for the features has no name; name one with {flag}=…"
        )
    name = os.fspath(name)
    if is_local(name):
        folder = epath.Path(name)
        nearest = next(path for path in (folder, *folder.parents) if _exists(path))
        if not nearest.is_dir():
            raise UserError(
                f"{folder}: {nearest} is a file, not a folder; choose another one with "
                f"{flag}=…"
            )
        return folder
    try:
        folder = epath.Path(name)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{name}: {name.split('://')[0]}:// is not a known store; folders are "
            "local, or on gs://, s3://, az:// or hf://"
        ) from error
    else:
        try:
            folder.exists()
        except Exception as error:  # Each store has its own errors.
            raise UserError(
                f"{folder}: cannot be reached ({error}); install the package for "
                "this store (`pip install gcsfs` for gs://), and log in"
            ) from error
    return folder


def is_local(path: str | os.PathLike) -> bool:
    """Whether a path is on this machine, so that libraries other than epath open it."""
    return "://" not in os.fspath(path)


def file_sizes(folder: epath.Path) -> dict[str, int | None]:
    """Name → size in bytes of a folder's files; None in a bucket, where it is slow."""
    try:
        if not is_local(folder):
            return {path.name: None for path in folder.iterdir()}
        with os.scandir(folder) as entries:
            return {entry.name: _size(entry) for entry in entries}
    except FileNotFoundError:
        return {}


def _exists(path: epath.Path) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return path == path.parent  # It cannot be accessed, whatever it is.
    return True


def _size(entry: os.DirEntry) -> int:
    """The size; 0 for a dangling link, or a file that another process just removed."""
    try:
        return entry.stat().st_size
    except OSError:
        return 0


def check_writable_file(path: Path, *, flag: str) -> None:
    """Checks that a file can be written, without changing anything.

    Args:
      path: the file; neither it nor its folder needs to exist.
      flag: the flag that named it, for the message.

    Raises:
      UserError: it cannot be written.
    """
    try:
        if path.is_dir():
            raise UserError(f"{flag}={path} is a folder: name a file in it")
        if path.exists():
            if not path.is_file():
                raise UserError(f"{flag}={path} is not a regular file: name another")
            path.open("a").close()
    except OSError as error:
        raise _unwritable(path, flag, path, error) from error
    check_writable_folder(path.parent, flag=flag, named=path)


def check_writable_folder(path: Path, *, flag: str, named: Path | None = None) -> None:
    """Checks that files can be written into a folder, without changing anything.

    Args:
      path: the folder, which need not exist.
      flag: the flag that named it, for the message.
      named: what the flag named, if not the folder itself.

    Raises:
      UserError: they cannot be written.
    """
    nearest = path
    try:
        nearest = next(p for p in (path, *path.absolute().parents) if p.exists())
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        raise _unwritable(named or path, flag, nearest, error) from error


def _unwritable(path: Path, flag: str, where: Path, error: OSError) -> UserError:
    return UserError(
        f"{flag}={path} cannot be written ({where}: {error.strerror}): name another "
        "place"
    )

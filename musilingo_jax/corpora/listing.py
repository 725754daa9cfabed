"""What lies at or below a folder of sound: files to be heard, and what is none."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from musilingo_jax.corpora.records import SUFFIXES
from musilingo_jax.runtime.errors import UserError


class Found(NamedTuple):
    """A sound file, or what looks like one.

    Attributes:
      path: the folder's, and what follows it; links are not resolved.
      reason: why it cannot be heard; "" if it is a regular file.
    """

    path: str
    reason: str


def sounds(folder: Path, *, hidden: bool) -> Iterator[Found]:
    """Everything at or below a folder that is named like sound, or leads nowhere.

    Links to folders are followed. Each folder is listed once, however many links lead
    to it, by its own path rather than a link's if it lies in `folder` itself: so there
    are no circles, and another link changes no file's path.

    Args:
      folder: where to begin.
      hidden: whether files and folders whose names begin with a dot are wanted.
    """
    listed: set[tuple[int, int]] = set()
    # Links to folders wait until all that is reached without them has been listed.
    links = [str(folder)]
    while links:
        folders = [links.pop(0)]
        while folders:
            here = folders.pop()
            try:
                status = os.stat(here)
                if (status.st_dev, status.st_ino) in listed:
                    continue
                listed.add((status.st_dev, status.st_ino))
                with os.scandir(here) as entries:
                    entries = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                yield Found(here, f"cannot be opened: {error.strerror or error}")
                continue
            for entry in entries:
                if entry.name.startswith(".") and not hidden:
                    continue
                if _is(entry, os.DirEntry.is_dir):
                    (links if entry.is_symlink() else folders).append(entry.path)
                elif _is(entry, os.DirEntry.is_file):
                    if is_sound(entry.name):
                        yield Found(entry.path, "")
                elif entry.is_symlink() and not os.path.exists(entry.path):
                    # Whatever its name: whole albums may lie behind it.
                    yield Found(entry.path, "is a link to nothing")
                elif is_sound(entry.name):
                    yield Found(entry.path, "is no regular file")


def is_sound(name: str) -> bool:
    """Whether a file is named like sound."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def shown(path: Path | str) -> str:
    """A path as it can be printed and stored: what is no UTF-8 in it is escaped."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def check_name(path: Path | str) -> None:
    """Refuses a name that no JSON, Parquet or terminal would take.

    Raises:
      UserError: the path is no UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{shown(path)}: its name is not UTF-8, so that no results could name it; "
            "rename it (`convmv` does that for many)"
        ) from error


def _is(entry: os.DirEntry, what: Callable[[os.DirEntry], bool]) -> bool:
    """What an entry, or what it links to, is; links in circles are nothing."""
    try:
        return what(entry)
    except OSError:
        return False

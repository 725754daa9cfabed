"""Lists the sound files in a folder at any depth, and what cannot be one of them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from musilingo_jax.corpora.records import SUFFIXES
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import printable


class Found(NamedTuple):
    """A sound file, or something named like one.

    Attributes:
      path: begins with the listed folder's; links are not resolved.
      reason: why it cannot be read; "" if it is a regular file.
    """

    path: str
    reason: str


def sounds(folder: Path, *, hidden: bool) -> Iterator[Found]:
    """Everything in a folder, at any depth, that is named like sound or is a dead link.

    Links to folders are followed. Each folder is listed once, however many links lead
    to it, and by its own path rather than a link's if it is inside `folder`. So there
    are no circles, and a further link does not change the path of any file:

        songs/z/a.wav                listed as  songs/z/a.wav
        songs/again → songs/z        not listed again
        songs/album → /disk/album    listed as  songs/album/…

    Args:
      folder: where to begin.
      hidden: whether files and folders whose names begin with a dot are listed.
    """
    listed: set[tuple[int, int]] = set()
    # Links to folders wait until everything is listed that is reached without them.
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
                    # Whatever its name: it may have led to a whole album.
                    yield Found(entry.path, "is a link to nothing")
                elif is_sound(entry.name):
                    yield Found(entry.path, "is not a regular file")


def is_sound(name: str) -> bool:
    """Whether a file is named like sound."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def check_name(path: Path | str) -> None:
    """Refuses a name that cannot be written as JSON or Parquet, or printed.

    Raises:
      UserError: the path is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{printable(str(path))}: its name is not UTF-8, so results cannot name "
            "it; rename it (`convmv` does that for many files)"
        ) from error


def _is(entry: os.DirEntry, what: Callable[[os.DirEntry], bool]) -> bool:
    """Whether `what` holds for an entry or its target; False for a circle of links."""
    try:
        return what(entry)
    except OSError:
        return False

"""Finds files whose names are spelt in another Unicode form than the one given.

"é" is one character or two (a letter and an accent). macOS writes names the second way,
keyboards the first; they look the same, and to Linux they are two names.
"""

import os
import unicodedata
from pathlib import Path


def as_on_disk(
    path: Path, listings: dict[str, dict[str, list[str]]] | None = None
) -> Path:
    """The path of an existing file or folder, spelt as it is on the disk.

        given      songs/Café.ogg     é as one character
        on disk    songs/Café.ogg     e and an accent       → found

    Args:
      path: as someone has written it.
      listings: folder → its names by their composed form; filled by this function, so
        that a folder is listed once for many paths.

    Returns:
      The path itself if it exists, or if no name, or more than one, is the same in
      another form.
    """
    if str(path).isascii() or os.path.lexists(path):
        return path
    listings = {} if listings is None else listings
    found = Path(path.anchor)
    for part in path.relative_to(path.anchor).parts:
        if not os.path.lexists(found / part):
            folder = os.fspath(found)
            if folder not in listings:
                listings[folder] = _names(folder)
            same = listings[folder].get(composed(part), [])
            if len(same) != 1:
                return path
            part = same[0]
        found /= part
    return found


def composed(text: str) -> str:
    """The form of a text in which an accented letter is one character."""
    return unicodedata.normalize("NFC", text)


def _names(folder: str) -> dict[str, list[str]]:
    """Composed form → the names in a folder; empty if it cannot be listed."""
    names: dict[str, list[str]] = {}
    try:
        for name in os.listdir(folder):
            names.setdefault(composed(name), []).append(name)
    except OSError:
        return {}
    return names

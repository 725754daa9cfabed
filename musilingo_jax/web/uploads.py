"""The folder that uploaded songs are in: private, and gone at the end."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from musilingo_jax.audio.formats import numpy_arrays
from musilingo_jax.audio.formats.open_sound import beginning
from musilingo_jax.runtime.errors import UserError


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that only this user can read, for as long as the page is open to people.

    Gradio keeps what is uploaded, recorded and offered as a download in the folder that
    this variable names, and serves files from nowhere else.
    """
    with tempfile.TemporaryDirectory(prefix="musilingo-web-") as name:
        before = os.environ.get("GRADIO_TEMP_DIR")
        os.environ["GRADIO_TEMP_DIR"] = name
        try:
            yield Path(name)
        finally:
            if before is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = before


def checked(path: str | Path, inside: Path) -> Path:
    """The path of an uploaded song.

    Raises:
      UserError: it is not in the folder, whatever it is written as.
    """
    real = Path(path).resolve()
    if not real.is_relative_to(inside.resolve()) or not real.is_file():
        raise UserError("that is not a file which was uploaded here")
    return real


def check_content(path: Path) -> None:
    """Checks that a file may be a song, by its content.

    What else is no song is refused when it is decoded. But an array would be asked for
    its sampling rate, which a page has no place for.

    Raises:
      UserError: it is not.
    """
    if beginning(path).startswith(numpy_arrays.MAGIC):
        raise UserError(f"{path}: is an array of numbers, not a song")


def remove(path: Path, inside: Path) -> None:
    """Removes an uploaded song, and the folder that Gradio made for it alone."""
    path.unlink(missing_ok=True)
    parent = path.parent
    if parent != inside and parent.is_relative_to(inside) and not any(parent.iterdir()):
        shutil.rmtree(parent, ignore_errors=True)

"""What programs that listen have in common: this machine's names, and their secrets."""

import os
from pathlib import Path

from musilingo_jax.runtime.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""The names of this machine that no other machine reaches."""


def secret(path: str | None, *, flag: str, variable: str) -> tuple[str, str] | None:
    """A secret in a file, else that in the environment, and which of the two it is.

    White space around it is no part of it.

    Args:
      path: of the file; None for the environment.
      flag: with which the file was named, for messages.
      variable: of the environment.

    Returns:
      None if there is neither.

    Raises:
      UserError: the file cannot be read.
    """
    if path is None:
        found = os.environ.get(variable)
        return None if found is None else (found.strip(), variable)
    try:
        return Path(path).read_text(encoding="utf-8").strip(), path
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise UserError(f"{flag}={path}: cannot be read: {reason}") from error

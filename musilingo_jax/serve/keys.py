"""The key that clients must show."""

import hmac
import os
from pathlib import Path

from musilingo_jax.runtime.errors import UserError

VARIABLE = "MUSILINGO_API_KEY"
# A key that is tried at a thousand per second for a year.
_SHORTEST = 16


def load(path: str | None) -> str | None:
    """The key in a file, else that in the environment, else None.

    Raises:
      UserError: the file cannot be read, or the key is short or no visible ASCII.
    """
    if path is not None:
        try:
            key, source = Path(path).read_text(encoding="utf-8").strip(), path
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise UserError(
                f"--api-key-file={path}: cannot be read: {reason}"
            ) from error
    elif VARIABLE in os.environ:
        key, source = os.environ[VARIABLE].strip(), VARIABLE
    else:
        return None
    if len(key) < _SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(
            f"{source}: a key has at least {_SHORTEST} letters, digits or signs of "
            "ASCII and no spaces: make one with `openssl rand -hex 24`"
        )
    return key


def matches(key: str, header: str | None) -> bool:
    """Whether a header `Authorization: Bearer …` shows the key.

    The time that it takes does not tell how much of a wrong key is right.
    """
    scheme, _, shown = (header or "").partition(" ")
    same = hmac.compare_digest(shown.strip().encode(), key.encode())
    return same and scheme.lower() == "bearer"

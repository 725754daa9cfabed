"""The page's password, if it has one."""

import hmac
import os
from pathlib import Path

from musilingo_jax.runtime.errors import UserError

VARIABLE = "MUSILINGO_WEB_PASSWORD"
_SHORTEST = 8


def load(path: str | None) -> str | None:
    """The password in a file, else that in the environment, else None.

    Raises:
      UserError: the file cannot be read, or the password is short.
    """
    source = path or VARIABLE
    if path is not None:
        try:
            password = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise UserError(
                f"--password-file={path}: cannot be read: {reason}"
            ) from error
    elif VARIABLE in os.environ:
        password = os.environ[VARIABLE]
    else:
        return None
    if len(password) < _SHORTEST:
        raise UserError(f"{source}: a password has at least {_SHORTEST} characters")
    return password


def matches(password: str, given: str) -> bool:
    """Whether somebody gives the password; how long it takes does not tell."""
    return hmac.compare_digest(given.encode(), password.encode())

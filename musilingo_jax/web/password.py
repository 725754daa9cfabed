"""The page's password, if it has one."""

import hmac
import unicodedata

from musilingo_jax.runtime import listening
from musilingo_jax.runtime.errors import UserError

VARIABLE = "MUSILINGO_WEB_PASSWORD"
_SHORTEST = 8


def load(path: str | None) -> str | None:
    """The password in a file, else that in the environment, else None.

    Raises:
      UserError: the file cannot be read, or the password is short.
    """
    found = listening.secret(path, flag="--password-file", variable=VARIABLE)
    if found is None:
        return None
    password, source = found
    password = unicodedata.normalize("NFC", password)
    if len(password) < _SHORTEST:
        raise UserError(f"{source}: a password has at least {_SHORTEST} characters")
    return password


def matches(password: str, given: str) -> bool:
    """Whether somebody gives the password; how long it takes does not tell.

    Keyboards spell "é" in two ways, which are the same here.
    """
    given = unicodedata.normalize("NFC", given.strip())
    return hmac.compare_digest(given.encode(errors="replace"), password.encode())

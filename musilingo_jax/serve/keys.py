"""The key that clients must show."""

import hmac

from musilingo_jax.runtime import listening
from musilingo_jax.runtime.errors import UserError

VARIABLE = "MUSILINGO_API_KEY"
# A key that is tried at a thousand per second for a year.
_SHORTEST = 16


def load(path: str | None) -> str | None:
    """The key in a file, else that in the environment, else None.

    Raises:
      UserError: the file cannot be read, or the key is short or no visible ASCII.
    """
    found = listening.secret(path, flag="--api-key-file", variable=VARIABLE)
    if found is None:
        return None
    key, source = found
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

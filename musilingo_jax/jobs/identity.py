"""What the files of a job depend on besides its items, as its plans store it.

    {"encoder": "7de7…", "sample_rate": 24000, "window_frames": 108, …, "format": 3}

Files of one identity are never taken for those of another.
"""

from collections.abc import Mapping
from typing import Any

from etils import epath

from musilingo_jax.runtime.errors import UserError

StoredIdentity = Mapping[str, str | int | float]


def is_identity(value: Any) -> bool:
    """Whether a value of a file has the form of a `StoredIdentity`."""
    return isinstance(value, dict) and all(
        type(entry) in (str, int, float) for entry in value.values()
    )


def check_equal(
    folder: epath.Path,
    stored: StoredIdentity,
    expected: StoredIdentity,
    *,
    made: str,
    flag: str,
) -> None:
    """Checks that a file of a job has the expected identity.

    Args:
      folder: of the job.
      stored: what the file says.
      expected: what it should say.
      made: what the files hold, such as "these features".
      flag: what names another folder, such as "--out".

    Raises:
      UserError: it has another one; the message names the fields that differ.
    """
    differing = [
        f"{key} {stored.get(key, 'unset')}, not {expected.get(key, 'unset')}"
        for key in {**expected, **stored}
        if stored.get(key) != expected.get(key)
    ]
    if differing:
        raise UserError(
            f"{folder}: {made} were made with {'; '.join(differing)}. Choose another "
            f"folder with {flag}=…, or delete this one"
        )

"""The versions of JAX and its companions that this release was tested with.

`pyproject.toml` declares the oldest version of each, which `requirements.lock` pins for
Python 3.11; `requirements-newest.lock` pins the newest, tested with Python 3.13.
tests/runtime/test_tested_versions.py compares them with this table.
"""

import functools
import re
from importlib import metadata

from musilingo_jax.runtime.printable import print_note

# Package: the oldest and the newest version.
TESTED = {
    "jax": ("0.10.2", "0.12.0.1"),
    "flax": ("0.12.8", "0.12.12"),
    "optax": ("0.2.8", "0.2.8"),
    "orbax-checkpoint": ("0.12.8", "0.12.8"),
    "transformers": ("5.23", "5.24.0"),
}


@functools.cache
def warn() -> None:
    """Prints one sentence on stderr, once, if an untested version is installed.

    Reads the metadata of the packages and imports none of them.
    """
    found = [
        sentence
        for package, tested in TESTED.items()
        if (sentence := _difference(package, *tested))
    ]
    if found:
        print_note(
            f"note: {'; '.join(found)}. If something fails, install the tested "
            "versions: pip install -r requirements.lock"
        )


def _difference(package: str, oldest: str, newest: str) -> str | None:
    """How the installed version differs from the tested ones, if it does."""
    try:
        installed = metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
    if release(installed) > release(newest):
        return f"{package} {installed} is newer than the tested {newest}"
    if release(installed) < release(oldest):
        return f"{package} {installed} is older than the tested {oldest}"
    return None


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version, without what follows them: "5.23.0rc1" → (5, 23)."""
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    parts = [int(part) for part in numbers[0].split(".")] if numbers else []
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)

"""Finds a config by path or by name: in a checkout, or in the installed package.

    --config=configs/tiny.py             a file, from where the command is run
    --config=tiny                        configs/tiny.py of the checkout or the package
    --config=finetune_music_instruct     …
    --config=features/mert_330m:CORPUS   after the colon, the argument of `get_config`

A checkout has the configs in `configs/`, beside the package; a wheel has the same files
within it, in `musilingo_jax/configs/`.
"""

from pathlib import Path

import musilingo_jax
from musilingo_jax.runtime.errors import UsageError
from musilingo_jax.runtime.paths import stat_regular_file

_PACKAGE = Path(musilingo_jax.__file__).parent
# Bytes of a config, at most.
_LARGEST = 10_000_000
_FOLDERS = (_PACKAGE / "configs", _PACKAGE.parent / "configs")


def find_config(named: str) -> str:
    """The path of a config, with its argument if there is one.

    A file that exists as it is named takes precedence over a config of that name. A
    path into `configs/` that does not exist from here is looked up there, too, so that
    a command from the documentation works without a checkout.

    Args:
      named: `path.py`, a name, or either with `:argument`.

    Raises:
      UsageError: there is no such file and no config of that name; the message lists
        those there are.
    """
    path, colon, argument = named.partition(":")
    if _exists(path):
        return named
    name = path.removeprefix("configs/").removesuffix(".py")
    for folder in _FOLDERS:
        found = folder / f"{name}.py"
        if name and found.is_file():
            return f"{found}{colon}{argument}"
    raise UsageError(
        f"--config={named}: there is no file {path!r} and no config of that name; "
        f"choose one of {', '.join(names())}, or give the path of a file"
    )


def _exists(path: str) -> bool:
    """Whether there is such a file.

    Raises:
      UsageError: there is, but it cannot be a config.
    """
    try:
        size = stat_regular_file(Path(path)).st_size
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        # A folder may have the name of a config.
        if isinstance(error, IsADirectoryError) and not path.endswith(".py"):
            return False
        reason = error.strerror or str(error)
        raise UsageError(f"--config={path}: cannot be read ({reason})") from error
    if size > _LARGEST:
        raise UsageError(
            f"--config={path}: has {size:,} bytes, too many for a config: is it "
            "another file?"
        )
    return True


def names() -> list[str]:
    """The names of the configs that come with the package, sorted."""
    return sorted(
        found.relative_to(folder).with_suffix("").as_posix()
        for folder in _FOLDERS
        if folder.is_dir()
        for found in folder.rglob("*.py")
    )

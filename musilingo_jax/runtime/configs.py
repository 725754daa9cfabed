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

_PACKAGE = Path(musilingo_jax.__file__).parent
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
    if Path(path).is_file():
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


def names() -> list[str]:
    """The names of the configs that come with the package, sorted."""
    return sorted(
        found.relative_to(folder).with_suffix("").as_posix()
        for folder in _FOLDERS
        if folder.is_dir()
        for found in folder.rglob("*.py")
    )

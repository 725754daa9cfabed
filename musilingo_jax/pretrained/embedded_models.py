"""The models in the package, whose names end in a version.

    musilingo-tiny-1    this model and no other, in every version of the package
    musilingo-tiny      what a person types for the newest of them

Whatever is recorded has the first form: a program that makes something begins with
`settle`. A run goes on with the model that it was begun with, whichever is the newest:

    the config says     its run records      used
    musilingo-tiny      (not begun)          musilingo-tiny-5, the newest
    musilingo-tiny      musilingo-tiny-1     musilingo-tiny-1, and a note tells of the 5
    musilingo-tiny      musilingo-tiny       musilingo-tiny-1
    musilingo-tiny-5    musilingo-tiny-1     5: to train is refused, as the run differs

The third kind of run was made before the names had versions, by the first model.
"""

import math
import os
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from musilingo_jax.pretrained.tensor_files import CONFIG
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json
from musilingo_jax.runtime.printable import print_note

_VERSIONED = re.compile(r"(?P<family>.+)-(?P<version>[1-9][0-9]{0,8})", re.ASCII)
# Of the models that were called by a name without a version when runs recorded them.
_FIRST = 1
_KEYS = ("pretrained", "encoder", "language_model", "adapter")


def assets() -> Path:
    """The folder of the embedded models."""
    return Path(str(resources.files("musilingo_jax"))) / "assets"


def versions(family: str) -> list[int]:
    """The versions of a model that are in the package, in ascending order.

    Args:
      family: the name without a version, "musilingo-tiny".
    """
    found = [_VERSIONED.fullmatch(name) for name in names()]
    return sorted(int(m["version"]) for m in found if m and m["family"] == family)


def names() -> list[str]:
    """The exact names of all embedded models."""
    folders = sorted(path.parent.name for path in assets().glob(f"*/{CONFIG}"))
    return [name for name in folders if _VERSIONED.fullmatch(name)]


def exact(source: str) -> str:
    """The source with the newest version in its name, if it is an embedded model's.

    "musilingo-tiny/adapter" → "musilingo-tiny-5/adapter". All other sources, also
    folders of this name, stay as they are.
    """
    return _with_version(source, None)


def as_recorded(model: Mapping[str, Any] | ConfigDict) -> dict[str, Any]:
    """The section `model` of a run's `config.json`, with the versions that it means."""
    return {
        key: _with_version(value, _FIRST)
        if key in _KEYS and isinstance(value, str)
        else value
        for key, value in model.items()
    }


def missing(source: str) -> str | None:
    """Why a source that names a version of an embedded model does not exist.

    Returns:
      A clause whose subject is the source; None for any other source.
    """
    name = _VERSIONED.fullmatch(source.partition("/")[0])
    there = versions(name["family"]) if name else []
    if not name or not there or int(name["version"]) in there or os.path.isdir(source):
        return None
    family = name["family"]
    *others, newest = (f"{family}-{version}" for version in there)
    known = f"{', '.join(others)} and {newest}" if others else newest
    return (
        f"is not in this version of musilingo_jax, which has {known}: install one that "
        "has it (docs/embedded-model.md lists them)"
    )


def settle(config: ConfigDict) -> None:
    """Gives the embedded models in `config.model` their versions, for good.

    To be called after `platforms.start`, before anything reads the section.

    Args:
      config: with the section `model`, and `run` if it has one.

    Raises:
      UserError: the run's config cannot be read, or the run was begun with a version
        that is not in the package.
    """
    model = config.get("model")
    if not isinstance(model, ConfigDict):
        return  # Whoever reads the section says what is wrong.
    typed = {key: model.get(key) for key in _KEYS}
    short = {k: v for k, v in typed.items() if isinstance(v, str) and v != exact(v)}
    if not short:
        return
    path, begun = _begun_with(config)
    older = set()
    for key, source in short.items():
        family = source.partition("/")[0]
        model[key] = settled = _with_version(source, begun.get(family))
        used = key != "pretrained" or not all(typed[kind] for kind in _KEYS[1:])
        problem = missing(settled)
        if problem and used:
            raise UserError(
                f"{path}: the run was begun with {settled}, which {problem}, or choose "
                "another folder with --config.run=…"
            )
        if begun.get(family, math.inf) < versions(family)[-1] and used:
            older.add(family)
    for family in sorted(older) if jax.process_index() == 0 else ():
        print_note(
            f"note: {config.run} was begun with {family}-{begun[family]} and goes on "
            f"with it; for {exact(family)}, choose another folder with --config.run=…"
        )


def _begun_with(config: ConfigDict) -> tuple[Path, dict[str, int]]:
    """The `config.json` of a config's run, and family → version that it records.

    Raises:
      UserError: the file cannot be read.
    """
    run = config.get("run")
    path = Path(run if isinstance(run, str) else "") / CONFIG
    if not run or not path.is_file():
        return path, {}
    try:
        described = read_json(path).get("model")
    except UserError as error:
        raise UserError(
            f"{error}. So this run cannot be resumed: restore the file, or choose "
            "another folder with --config.run=…"
        ) from error
    if not isinstance(described, dict):
        return path, {}
    recorded = as_recorded(described)
    names = [recorded[key] for key in _KEYS if isinstance(recorded.get(key), str)]
    found = [_VERSIONED.fullmatch(name.partition("/")[0]) for name in names]
    return path, {m["family"]: int(m["version"]) for m in reversed(found) if m}


def _with_version(source: str, version: int | None) -> str:
    """As `exact`, with a version other than the newest if one is given."""
    family, slash, rest = source.partition("/")
    known = versions(family)
    if not known or os.path.isdir(source):
        return source
    return f"{family}-{version or known[-1]}{slash}{rest}"

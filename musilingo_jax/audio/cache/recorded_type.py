"""Replaces `config.model.dtype = "auto"` at the beginning of a program, for good.

The first program that makes something decides, and what it makes records the type:

    a run        config.json    …, "model": {"dtype": "float32", …}
    a cache      plans/000.json {"identity": {"dtype": "float32", …}, …}

Whoever continues takes the recorded type, whatever its processor: the run's, or else
that of the cache from which the features are read, or else what `number_type.py` says
of this machine. Of several processes, the first one decides for all. So identities,
digests and files only ever hold a type, and a config that says "auto" resumes a run
that was made before there was "auto".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from musilingo_jax.audio.cache import cache_state
from musilingo_jax.audio.cache.feature_cache import CacheConfig
from musilingo_jax.pretrained import model_config, model_folder, number_type
from musilingo_jax.pretrained.model_config import DTYPES
from musilingo_jax.pretrained.number_type import AUTO
from musilingo_jax.pretrained.tensor_files import CONFIG
from musilingo_jax.runtime import paths, settings
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json
from musilingo_jax.runtime.printable import print_note

FROZEN = ("encoder", "language_model")
"""The parts that have this type in a program that trains or answers."""


@dataclass(frozen=True)
class _Given:
    """What a config may say of the type."""

    dtype: str = settings.setting(choices=(*DTYPES, AUTO))


def settle(config: ConfigDict, parts: Sequence[str] = FROZEN) -> bool:
    """Replaces "auto" in `config.model.dtype` by the type that it stands for.

    To be called after `platforms.start`, before anything reads the type.

    Args:
      config: with the sections `model` and `features`, and `run` if it has one.
      parts: kinds of the frozen parts that the program loads.

    Returns:
      Whether there was "auto" to replace.

    Raises:
      UserError: the config says something else than a type, a record cannot be read, or
        a part of the model is not found.
    """
    settings.check_keys(_Given, config.model, ("dtype",), "config.model")
    if config.model.dtype != AUTO:
        return False
    if jax.process_count() == 1:
        dtype = _decide(config, parts)
    else:
        first = jax.process_index() == 0
        number = DTYPES.index(_decide(config, parts)) if first else 0
        number = multihost_utils.broadcast_one_to_all(np.array(number))
        dtype = DTYPES[int(number)]
    config.model.dtype = dtype
    return True


def _decide(config: ConfigDict, parts: Sequence[str]) -> str:
    """The recorded type, or else this machine's."""
    if dtype := _of_run(config):
        return dtype
    sources = {kind: model_config.named(config, kind) for kind in parts}
    quantization = config.model.get("quantization", "")
    if dtype := of_cache(config):
        if dtype == "float32" and jax.default_backend() == "cpu":
            _tell_if_too_large(config, number_type.too_large(sources, quantization))
        return dtype
    return number_type.of_this_machine(sources, quantization)


def _of_run(config: ConfigDict) -> str | None:
    """The type with which the run of a config was begun; None if it was not.

    Raises:
      UserError: the run's config cannot be read, or holds no type.
    """
    if not config.get("run"):
        return None
    path = Path(config.run) / CONFIG
    if not path.is_file():
        return None
    described = read_json(path)
    if not model_folder.is_run(described):
        return None
    dtype = described["model"].get("dtype")
    if dtype not in DTYPES:
        raise UserError(
            f"{path}: model.dtype is {dtype!r}, which is no type of numbers: restore "
            "the file, or choose another folder with --config.run=…"
        )
    return dtype


def of_cache(config: ConfigDict) -> str | None:
    """The type with which the cache of a config is filled; None if there is no cache.

    Raises:
      UserError: the cache cannot be read, or its folder cannot be used.
    """
    folder = paths.open_folder(CacheConfig.from_config(config).cache)
    recorded = cache_state.read(folder, None).plans.identity or {}
    dtype = recorded.get("dtype")
    return dtype if dtype in DTYPES else None


def _tell_if_too_large(config: ConfigDict, problem: str | None) -> None:
    """Says that a cache's type may need more memory than there is."""
    if problem:
        print_note(
            f'note: the dtype "{AUTO}" is float32, as in {config.features.cache}; but '
            f"{problem}: with bfloat16, give another --config.features.cache"
        )

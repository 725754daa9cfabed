"""A language model whose layers were trained with an adapter: it lies inside it.

    runs/mine/adapter/config.json, model.safetensors        the bridge
    runs/mine/adapter/language_model/config.json, …         the language model

So a copy of the folder `adapter/` has all that was learnt. Whoever uses such an adapter
uses this language model, in place of the one that a config names: the training began
with that one.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import jax
from jax.typing import DTypeLike

from musilingo_jax.models.llama import Llama
from musilingo_jax.pretrained import sources, weights
from musilingo_jax.pretrained.model_config import ModelConfig
from musilingo_jax.pretrained.tensor_files import CONFIG
from musilingo_jax.pretrained.write_folders import small_files

FOLDER = "language_model"
"""The name of its folder."""


def with_adapter(model: ModelConfig, adapter: str) -> ModelConfig:
    """A model with another adapter, and the language model that lies inside that.

    Raises:
      UserError: the adapter cannot be found.
    """
    inside = sources.find(adapter, "adapter").folder / FOLDER
    if (inside / CONFIG).is_file():
        model = replace(model, language_model=str(inside))
    return replace(model, adapter=adapter)


def save(llama: Llama, adapter: Path, *, dtype: DTypeLike, origin: str) -> Path:
    """Writes a language model into the folder of its adapter, with its tokenizer.

    Args:
      llama: all of it.
      adapter: the folder of the adapter, which is written afterwards.
      dtype: the stored type.
      origin: the language model that the training began with.

    Returns:
      Its folder.

    Raises:
      UserError: something cannot be read or written.
    """
    folder = adapter / FOLDER
    weights.save_language_model(llama, folder, dtype=dtype)
    part = sources.find(origin, "language_model")
    if part.tokenizer is not None and jax.process_index() == 0:
        for path in small_files(part.tokenizer):
            shutil.copyfile(path, folder / path.name)
    return folder

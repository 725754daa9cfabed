"""Resolves a name to a folder with a model in it, and reads its `config.json` once.

A source is a folder, the name of an embedded model, a GGUF file, or a name on the hub.
Its `config.json`, and the folders beside it, decide between six layouts:

    part       config.json, model.safetensors (or shards and their index); or a language
               model in Meta's own layout, which has a params.json instead
    lora       adapter_config.json, adapter_model.safetensors, and no weights of a model
    whole      encoder/, language_model/, adapter/: each of them a part
    run        adapter/, and a config.json that names the other two
    release    one config.json, one set of shards with all three parts in it
    mu_llama   checkpoint.pth with all parts in it, as MU-LLaMA's trainer saved them
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from musilingo_jax.pretrained import (
    embedded_models,
    foreign_models,
    gguf_cache,
    hub,
    meta_layout,
    mu_llama_release,
)
from musilingo_jax.pretrained.gguf_file import ENDING
from musilingo_jax.pretrained.model_config import KINDS
from musilingo_jax.pretrained.tensor_files import CONFIG, has_weights
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json

Layout = Literal["part", "lora", "whole", "run", "release", "mu_llama"]


@dataclass(frozen=True)
class ModelFolder:
    """A folder with a model in it, and the content of its `config.json`.

    Attributes:
      name: the name that the user gave.
      folder: the folder, which may be one of the hub's cache.
      config: the content of `config.json`, that of a run as it is meant today; or what
        Meta's `params.json` says in its place; None if there is no such file.
      subfolders: the kinds of part that have a folder with a `config.json` in it.
      origin: the name on the hub, without a revision; None if it is not on the hub.
      remote: the name under which the tensors are read on the hub, because only the
        small files of the model were downloaded; None if they are in the folder.
    """

    name: str
    folder: Path
    config: Mapping[str, Any] | None
    subfolders: tuple[str, ...]
    origin: str | None
    remote: str | None

    @classmethod
    def open(cls, source: str | Path, *, weights: bool) -> "ModelFolder":
        """Resolves a name, and reads the `config.json` of the model.

        Args:
          source: a folder or a name.
          weights: whether to download the weights of a model on the hub. If not, its
            tensors are read there, but for a release of MU-LLaMA, which describes
            itself nowhere else. Without a connection, weights that were downloaded
            before are used.

        Raises:
          UserError: the source does not exist, or is not a model.
        """
        name, origin, remote = str(source), None, None
        folder = _local(source)
        if folder is None:
            origin = _hub_name(source).partition("@")[0]
            if weights:
                folder = hub.download(name, weights=True)
            elif not hub.is_available(name):
                folder = hub.cached(name)
            if folder is None:  # The tensors will be read on the hub.
                folder, remote = hub.download(name, weights=False), name
                if _only_in_a_checkpoint(name):  # Whose sizes only its tensors say.
                    folder, remote = hub.download(name, weights=True), None
        config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else None
        if config is not None and is_run(config):
            meant = embedded_models.as_recorded(config["model"])
            config = {**config, "model": meant}
        if config is None and meta_layout.is_layout(folder):
            config = meta_layout.read_config(folder)
        subfolders = tuple(kind for kind in KINDS if (folder / kind / CONFIG).is_file())
        model = cls(name, folder, config, subfolders, origin, remote)
        if config is None and not subfolders and model.layout == "part":
            names = hub.files(name) if remote else None
            known = foreign_models.recognised(folder, names)
            problem = known or f"not a model folder, because it has no {CONFIG}"
            raise UserError(f"{folder}: {problem}")
        return model

    @property
    def layout(self) -> Layout:
        """One of the six; a release may have subfolders, and so may a run."""
        if self.config is not None and is_release(self.config):
            return "release"
        if self.config is not None and is_run(self.config):
            return "run"
        if self.config is None and mu_llama_release.is_layout(self.folder):
            return "mu_llama"
        if self.subfolders:
            return "whole"
        return "lora" if self._is_lora() else "part"

    def _is_lora(self) -> bool:
        """Whether a LoRA is here, and no weights that it could be added to."""
        if not (self.folder / foreign_models.LORA_CONFIG).is_file():
            return False
        if self.remote:
            return not has_weights(hub.files(self.remote))
        return not has_weights([path.name for path in self.folder.iterdir()])

    def remote_folder(self, folder: str) -> tuple[str, str] | None:
        """Where a folder's tensors are read on the hub; None if they are local.

        Args:
          folder: its name; "" for the top.
        """
        return (self.remote, folder) if self.remote else None


def resolve(source: str | Path, *, weights: bool = True) -> Path:
    """The folder that a source names, downloaded from the hub if needed.

    Args:
      source: a folder or a name.
      weights: whether to download the weights of a model on the hub, too.

    Raises:
      UserError: the source does not exist.
    """
    return _local(source) or hub.download(_hub_name(source), weights=weights)


def is_release(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is that of a MusiLingo release: all parts in one."""
    return config.get("model_type") == "musilingo" or "llama_model" in config


def is_run(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is that of a run, which names the parts it used."""
    return isinstance(config.get("model"), dict) and "stages" in config


def _only_in_a_checkpoint(source: str) -> bool:
    """Whether a model on the hub is a state of MU-LLaMA's trainer, and no more."""
    return hub.has_file(source, mu_llama_release.CHECKPOINT) and not hub.has_file(
        source, CONFIG
    )


def _local(source: str | Path) -> Path | None:
    """The folder, if `source` is one, is the name of an embedded model, or is GGUF."""
    if str(source) and (converted := gguf_cache.find(source)):
        return converted
    embedded = embedded_models.assets() / embedded_models.exact(str(source))
    for folder in (Path(source), embedded) if str(source) else ():
        # Unlike pathlib's, this test accepts names of any length.
        if os.path.isdir(folder):
            return folder
    return None


def _hub_name(source: str | Path) -> str:
    """`source` as a name on the hub.

    Raises:
      UserError: it cannot be one.
    """
    if os.path.exists(source):
        raise UserError(f"{source}: is a file; name the folder of the model it is in")
    if problem := embedded_models.missing(str(source)):
        raise UserError(f"{source} {problem}, or name another model")
    if hub.is_name(str(source)):
        return str(source)
    assets = embedded_models.assets()
    found = {path.parent.relative_to(assets) for path in assets.rglob(CONFIG)}
    embedded = ", ".join(sorted(folder.as_posix() for folder in found))
    raise UserError(
        f"{source}: there is no such folder; give the folder of a model, its name on "
        f"the hub (owner/name), a {ENDING} file, {gguf_cache.SMOLLM2}"
        + (f", or the name of an embedded one ({embedded})" if embedded else "")
    )

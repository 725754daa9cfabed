"""Where a model lies: what users may name, and which part of it is meant.

A source is a folder, the name of an embedded model, or a name on the hub. It holds one
part or several, in one of four layouts:

    a part             config.json, model.safetensors (or shards and their index)
    a whole model      encoder/, language_model/, adapter/: a part each
    a run              adapter/, and a config.json that names the other two
    a MusiLingo        one config.json, one set of shards with all three in it:
      release            model.audio_encoder.*  model.llama_model.*  model.llama_proj.*

Wherever a part is asked for, any source that holds it will do.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from musilingo_jax.models.int8 import check as check_quantization
from musilingo_jax.pretrained import hub
from musilingo_jax.pretrained.lazy_tensors import Tensors, under
from musilingo_jax.pretrained.tensor_files import CONFIG, open_tensors
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import read_json

KINDS = ("encoder", "language_model", "adapter")
PREFIXES = {
    "encoder": "model.audio_encoder.",
    "language_model": "model.llama_model.",
    "adapter": "model.",
}
"""What stands before the names of a part's tensors in a MusiLingo release."""

PREPROCESSOR = "preprocessor_config.json"
TOKENIZER_FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
# Frames that the released adapters average over (4.33 s); their files do not say it.
RELEASED_WINDOW_FRAMES = 325
# Largest mean norm scale that is taken for a difference of two models. Trained scales
# of a LLaMA's last norm are above 1; fine-tuning moved Vicuna's by thousandths.
_LARGEST_DELTA = 0.05

_ADAPTER_TENSORS = ("llama_proj.weight", "llama_proj.bias")
_IN_RELEASE = ("model.audio_encoder.", "model.llama_model.", "model.llama_proj.")


@dataclass(frozen=True)
class Part:
    """One of the three parts of a model, wherever it lies.

    Attributes:
      kind: "encoder", "language_model" or "adapter".
      source: what the user called it, for messages.
      folder: where its tensors are.
      prefix: of its tensors' names there.
      config: its own configuration, `preprocessor_config.json` included.
      tokenizer: the folder of its tokenizer; None if there is none.
      remote: where its tensors are if not in the folder: a name on the hub, and a
        folder there.
    """

    kind: str
    source: str
    folder: Path
    prefix: str
    config: Mapping[str, Any]
    tokenizer: Path | None
    remote: tuple[str, str] | None = None

    def tensors(self) -> Tensors:
        """Its tensors, under the names that they have when it lies alone.

        Raises:
          UserError: as in `open_tensors`.
        """
        tensors = under(_open(self.folder, self.remote), self.prefix)
        if self.kind == "adapter" and self.prefix:
            # The other parts' names begin like its own.
            tensors = {n: t for n, t in tensors.items() if n.startswith("llama_proj.")}
        return tensors


@dataclass(frozen=True)
class ModelConfig:
    """The section `model` of a config: which parts make up the model.

    Attributes:
      encoder: source of the music encoder.
      language_model: source of the language model.
      adapter: source of the adapter to begin with, or "random".
      dtype: of the frozen parts in memory.
      quantization: "int8" for the language model's matrices in 8 bits, "" for `dtype`.
    """

    encoder: str
    language_model: str
    adapter: str
    dtype: str
    quantization: str

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "ModelConfig":
        """Reads the section.

        Raises:
          UserError: a part is named nowhere, or there is no such quantization.
        """
        parts = {kind: named(config, kind) for kind in KINDS}
        model = config["model"]
        # A run from before there was a choice made none.
        quantization = model.get("quantization", "")
        check_quantization(quantization)
        return cls(**parts, dtype=model["dtype"], quantization=quantization)


def named(config: Mapping[str, Any], kind: str) -> str:
    """The source of one part; if the section leaves it empty, that of `pretrained`.

    Raises:
      UserError: both are empty.
    """
    model = config["model"]
    source = model.get(kind) or model.get("pretrained")
    if not source:
        raise UserError(
            f"config.model.{kind} is empty: name a model there, or a whole one in "
            "config.model.pretrained"
        )
    return source


def resolve(source: str | Path, *, weights: bool = True) -> Path:
    """The folder that `source` means, downloaded from the hub if need be.

    Args:
      source: a folder or a name.
      weights: whether the weights of a model on the hub are wanted there, too.

    Raises:
      UserError: there is no such thing.
    """
    return _local(source) or hub.download(_name(source), weights=weights)


def _open(folder: Path, remote: tuple[str, str] | None) -> Tensors:
    return hub.look_into(*remote) if remote else open_tensors(folder)


def glance(source: str | Path, kind: str) -> Part:
    """As `find`, but a model on the hub is looked into where it is."""
    if _local(source):
        return find(source, kind)
    name = _name(source)
    try:
        hub.files(name)
    except UserError:
        # Without a connection, what was downloaded is what there is.
        if folder := hub.cached(name):
            return _find(name, folder, kind, remote=None)
        raise
    return _find(name, hub.download(name, weights=False), kind, remote=(name, ""))


def find(source: str | Path, kind: str) -> Part:
    """The part of that kind which a source holds.

    Raises:
      UserError: there is no such source, or it holds no such part, or not what
        describes it.
    """
    return _find(str(source), resolve(source), kind, remote=None)


def _find(
    source: str, folder: Path, kind: str, *, remote: tuple[str, str] | None
) -> Part:
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else None
    # First, because a release may have descriptions of its parts in their folders.
    if config is not None and is_release(config):
        return _released(source, folder, kind, config, remote)
    if (folder / kind / CONFIG).is_file():
        return _alone(source, folder / kind, kind, remote and (remote[0], kind))
    if config is None:
        raise UserError(f"{folder}: not a model folder, for it has no {CONFIG}")
    if is_run(config):
        if kind == "adapter":
            raise UserError(
                f"{folder}: this run has no trained adapter (yet): let its training "
                "finish, or name another adapter"
            )
        return find(named(config, kind), kind)
    return _alone(source, folder, kind, remote)


def kinds(source: str | Path) -> list[str]:
    """Which parts a source holds, in the order of `KINDS`.

    Raises:
      UserError: there is no such source, or no part in it.
    """
    folder = resolve(source, weights=False)
    found = [kind for kind in KINDS if (folder / kind / CONFIG).is_file()]
    if not (folder / CONFIG).is_file():
        if found:
            return found
        raise UserError(f"{folder}: not a model folder, for it has no {CONFIG}")
    config = read_json(folder / CONFIG)
    if is_release(config):
        return list(KINDS)
    if is_run(config):
        return [kind for kind in KINDS if kind != "adapter" or kind in found]
    if found:
        return found
    if "encoder_width" in config:
        return ["adapter"]
    if "conv_dim" in config:
        return ["encoder"]
    if "rms_norm_eps" in config:
        return ["language_model"]
    raise UserError(
        f"{folder / CONFIG}: describes no encoder (MERT, HuBERT), no LLaMA and no "
        f"adapter, but a model of the type {config.get('model_type')!r}"
    )


def is_release(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is that of a MusiLingo in one piece."""
    return config.get("model_type") == "musilingo" or "llama_model" in config


def released_window(config: Mapping[str, Any]) -> int:
    """Encoder frames per vector of a release, by its `config.json`."""
    return config.get("window_frames", RELEASED_WINDOW_FRAMES)


def is_run(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is that of a run, which names the parts that it used."""
    return isinstance(config.get("model"), dict) and "stages" in config


def is_delta(tensors: Tensors) -> bool:
    """Whether a language model is only its difference to another one.

    Of such files no number is alarming, and what they say is no language: their norms
    scale by nearly nothing.
    """
    last = tensors.get("model.norm.weight")
    if last is None:
        return False
    scale = np.abs(np.asarray(last[...], np.float32)).mean()
    return bool(scale < _LARGEST_DELTA)


def _alone(
    source: str, folder: Path, kind: str, remote: tuple[str, str] | None
) -> Part:
    """A part in a folder of its own."""
    config = read_json(folder / CONFIG)
    if kind == "encoder":
        config = _preprocessing(folder) | config
    tokenizer = folder if kind == "language_model" and _has_tokenizer(folder) else None
    return Part(kind, source, folder, "", config, tokenizer, remote)


def _released(
    source: str,
    folder: Path,
    kind: str,
    config: Mapping[str, Any],
    remote: tuple[str, str] | None,
) -> Part:
    """A part of a MusiLingo release.

    The release's `config.json` says in `mert_model` and `llama_model` of which models
    it was made, by their names on the hub or by folders; their configuration and
    tokenizer files are there. Files in `encoder/` or `language_model/` beside the
    shards, or sections of these names in `config.json`, come first.
    """
    prefix = PREFIXES[kind]
    tensors = _open(folder, remote)
    if strange := [name for name in tensors if not name.startswith(_IN_RELEASE)]:
        raise UserError(
            f"{folder}: its {CONFIG} is that of a MusiLingo release, but these tensors "
            f"are none of one: {', '.join(strange)}"
        )
    if kind == "adapter":
        tensors = under(tensors, prefix)
        if missing := [name for name in _ADAPTER_TENSORS if name not in tensors]:
            raise UserError(
                f"{folder}: is no MusiLingo release, for it lacks "
                f"{', '.join(prefix + name for name in missing)}"
            )
        shape = tensors["llama_proj.weight"].shape
        if len(shape) != 2:
            raise UserError(
                f"{folder}: {prefix}llama_proj.weight {list(shape)} is no matrix; "
                "download it again"
            )
        said = {
            "encoder_width": shape[1],
            "language_model_width": shape[0],
            "window_frames": released_window(config),
            "prompt_template": config.get("prompt_template") or "",
        }
        return Part(kind, source, folder, prefix, said, None, remote)
    if isinstance(section := config.get(kind), dict):
        described = folder
    else:
        described = _description(folder, kind, config)
        section = read_json(described / CONFIG)
        if kind == "encoder":
            section = _preprocessing(described) | section
    tokenizer = None
    if kind == "language_model":
        places = [folder, folder / kind, described]
        tokenizer = next(filter(_has_tokenizer, places), None)
    return Part(kind, source, folder, prefix, section, tokenizer, remote)


def _description(folder: Path, kind: str, config: Mapping[str, Any]) -> Path:
    """The folder with the configuration of the model that a release was made of."""
    if (folder / kind / CONFIG).is_file():
        return folder / kind
    key = {"encoder": "mert_model", "language_model": "llama_model"}[kind]
    origin = config.get(key)
    advice = f"put its {CONFIG} and the small files beside it into {folder / kind}"
    if not isinstance(origin, str) or not origin:
        raise UserError(
            f"{folder / CONFIG}: does not say in {key} of which model it is made; "
            f"{advice}"
        )
    try:
        described = _local(origin) or hub.download(_name(origin), weights=False)
    except UserError as error:
        raise UserError(
            f"{folder}: its {kind.replace('_', ' ')} is described in {origin}, which "
            f"cannot be had ({error}); {advice}"
        ) from error
    if not (described / CONFIG).is_file():
        raise UserError(f"{origin}: has no {CONFIG}; {advice}")
    return described


def _preprocessing(folder: Path) -> dict[str, Any]:
    """What released files say beside their config about the waveform."""
    if not (folder / PREPROCESSOR).is_file():
        return {}
    said = read_json(folder / PREPROCESSOR)
    renamed = {"do_normalize": "do_normalize", "sampling_rate": "sample_rate"}
    return {ours: said[theirs] for theirs, ours in renamed.items() if theirs in said}


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER_FILES[:2])


def _local(source: str | Path) -> Path | None:
    """The folder, if `source` is one or the name of an embedded model."""
    for folder in (Path(source), _assets() / source) if str(source) else ():
        if os.path.isdir(folder):  # Which, unlike pathlib, takes names of any length.
            return folder
    return None


def _name(source: str | Path) -> str:
    """`source` as a name on the hub, or a refusal."""
    if os.path.isfile(source):
        raise UserError(f"{source}: is a file; name the folder of the model it is in")
    if hub.is_name(str(source)):
        return str(source)
    assets = _assets()
    found = {path.parent.relative_to(assets) for path in assets.rglob(CONFIG)}
    embedded = ", ".join(sorted(folder.as_posix() for folder in found))
    raise UserError(
        f"{source}: there is no such folder; give the folder of a model, its name on "
        "the hub (owner/name)"
        + (f", or the name of an embedded one ({embedded})" if embedded else "")
    )


def _assets() -> Path:
    return Path(str(resources.files("musilingo_jax"))) / "assets"

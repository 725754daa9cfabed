"""Finds one part of a model in a source, whichever layout the source has.

    find("musilingo-tiny", "encoder")            a whole model
    find("runs/mine", "adapter")                 a run
    find("m-a-p/MusiLingo-long-v1", "adapter")   a release: one config.json, one set of
                                                 shards with all three parts in it:
        model.audio_encoder.*    model.llama_model.*    model.llama_proj.*
    find("m-a-p/MERT-v1-330M", "encoder")        a part alone
    find("loras/mine", "language_model")         a LoRA, with the base that it names

`pretrained/model_folder.py` resolves the names and tells the layouts apart. Each
`config.json` is read once for a part.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from musilingo_jax.models import decoder_families
from musilingo_jax.models.bridges import linear as linear_bridges
from musilingo_jax.pretrained import (
    foreign_models,
    hub,
    meta_layout,
    mu_llama_release,
    pytorch_files,
    stored_frames,
)
from musilingo_jax.pretrained.lazy_tensors import Tensors, shortened, under
from musilingo_jax.pretrained.model_config import KINDS, named
from musilingo_jax.pretrained.model_folder import ModelFolder, resolve
from musilingo_jax.pretrained.peft_lora import Lora
from musilingo_jax.pretrained.tensor_files import (
    CONFIG,
    PREPROCESSOR,
    TOKENIZER_FILES,
    open_tensors,
)
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json
from musilingo_jax.runtime.printable import one_line

PREFIXES = {
    "encoder": "model.audio_encoder.",
    "language_model": "model.llama_model.",
    "adapter": "model.",
}
"""What a MusiLingo release puts before the names of a part's tensors."""

# The other prefixes begin like the adapter's, so its tensors need a longer one.
_BEGINNINGS = PREFIXES | {"adapter": "model.llama_proj."}

TRAINED_WITH = "trained_with"
"""The key of an adapter's `config.json`, or a release's, for `trained_with.py`."""

_ORIGINS = {"encoder": "mert_model", "language_model": "llama_model"}
"""The key of a release's `config.json` that names the model it took the part from."""

_KINDS_BY_KEY = {
    "encoder_width": "adapter",
    "conv_dim": "encoder",
    "rms_norm_eps": "language_model",
}
"""A key that only the `config.json` of this kind of part has."""

# Frames that the released adapters average over (4.33 s). Their files do not say so.
RELEASED_WINDOW_FRAMES = 325


@dataclass(frozen=True)
class Part:
    """One of the three parts of a model, with what is needed to load it.

    Attributes:
      kind: "encoder", "language_model" or "adapter".
      source: the name that the user gave, for messages.
      folder: where its files are.
      prefix: what its tensors' names begin with there and do not when it is alone.
      config: its own configuration, with what `preprocessor_config.json` adds.
      tokenizer: the folder of its tokenizer; None if it has none.
      remote: None if its tensors are in the folder; else where they are read on the
        hub: the name of a model, and a folder in it.
      origin: the name by which others can find this part, on the hub or as its release
        gives it; None if that is not known.
      lora: what is added to its tensors when they are read; None for nothing.
      opened: opens its tensors where they are not under a prefix in the files of the
        folder; None where they are.
      checkpoint: the state of a trainer that its tensors are in; None if they are not.
    """

    kind: str
    source: str
    folder: Path
    prefix: str
    config: Mapping[str, Any]
    tokenizer: Path | None
    remote: tuple[str, str] | None = None
    origin: str | None = None
    lora: Lora | None = None
    opened: Callable[[], Tensors] | None = None
    checkpoint: Path | None = None

    def tensors(self) -> Tensors:
        """Its tensors, under the names that they have when it is alone.

        Raises:
          UserError: as `open_tensors` and `Lora.add_to`.
        """
        if self.opened is not None:
            return self.opened()
        found = _open(self.folder, self.remote, lora=self.lora is not None)
        if self.prefix:
            start = _BEGINNINGS[self.kind]
            own = {name: t for name, t in found.items() if name.startswith(start)}
            found = under(own, self.prefix)
        if self.lora is None:
            return found
        tied = bool(decoder_families.tied(self.config))
        return self.lora.add_to(found, str(self.folder), tied=tied)

    def trainer(self) -> dict[str, Any]:
        """What its trainer saved beside the tensors, such as its flags.

        Raises:
          UserError: the file cannot be read.
        """
        if self.checkpoint is None:
            return {}
        return pytorch_files.trainer_state(self.checkpoint)


def find(source: str | Path, kind: str, *, weights: bool = True) -> Part:
    """The part of one kind in a source.

    Args:
      source: a folder, the name of an embedded model, or a name on the hub.
      kind: one of `KINDS`.
      weights: whether to download the weights of a model on the hub. If not, its
        tensors are read there when they are needed.

    Raises:
      UserError: the source does not exist, or holds no such part, or lacks the files
        that describe the part.
    """
    return _find(source, kind, weights, ())


def _find(source: str | Path, kind: str, weights: bool, runs: tuple[Path, ...]) -> Part:
    """As `find`; `runs` are those whose `config.json` led here."""
    model = ModelFolder.open(source, weights=weights)
    match model.layout:
        case "part":
            return _part_alone(model, kind)
        case "lora":
            return _with_lora(model, kind, weights, runs)
        case "whole":
            return _part_of_whole(model, kind)
        case "run":
            return _part_of_run(model, kind, weights, runs)
        case "release":
            return _part_of_release(model, kind)
        case "mu_llama":
            return _part_of_mu_llama(model, kind)


def kinds(source: str | Path) -> list[str]:
    """Which parts a source holds, in the order of `KINDS`.

    Raises:
      UserError: the source does not exist, or holds no part.
    """
    model = ModelFolder.open(source, weights=False)
    match model.layout:
        case "part":
            return [_kind_of(model)]
        case "lora":
            return ["language_model"]
        case "whole":
            return list(model.subfolders)
        case "run":
            named_parts = ("encoder", "language_model")
            return [kind for kind in KINDS if kind in (*named_parts, *model.subfolders)]
        case "release" | "mu_llama":
            return list(KINDS)


def released_window(config: Mapping[str, Any], where: str | Path = CONFIG) -> int:
    """Encoder frames per vector of an adapter; those of the releases by default.

    Args:
      config: the `config.json` of a release or of an adapter.
      where: what holds it, for messages.

    Raises:
      UserError: it has something else than a positive whole number.
    """
    frames = config.get("window_frames", RELEASED_WINDOW_FRAMES)
    if not isinstance(frames, int) or isinstance(frames, bool) or frames < 1:
        raise UserError(
            f"{where}: window_frames = {frames!r} is not a positive whole number; "
            f"write the one that the adapter was trained with into its {CONFIG}"
        )
    return frames


def _kind_of(model: ModelFolder) -> str:
    """The kind of a part that is alone in its folder, from its `config.json`."""
    config = model.config or {}
    for key, kind in _KINDS_BY_KEY.items():
        if key in config:
            return kind
    raise UserError(
        f"{model.folder / CONFIG}: does not describe an encoder (MERT, HuBERT), a "
        f"LLaMA or an adapter, but a model of type {config.get('model_type')!r}"
    )


def _part_alone(model: ModelFolder, kind: str) -> Part:
    """A part whose files are at the top of its source."""
    config, remote = model.config or {}, model.remote_folder("")
    part = _in_own_folder(model.name, kind, model.folder, config, remote)
    return replace(part, origin=model.origin)


def add_lora(lora: Lora, base: Part, source: str) -> Part:
    """A language model that is read with a LoRA, and with its tokenizer if it has one.

    Raises:
      UserError: the base has a LoRA itself.
    """
    if base.lora is not None:
        raise UserError(
            f"{lora.folder}: its base {base.source} is read with a LoRA itself, which "
            "must be merged first: `python -m musilingo_jax.convert merge --lora=…`"
        )
    own = lora.folder if _has_tokenizer(lora.folder) else base.tokenizer
    return replace(base, source=source, lora=lora, tokenizer=own, origin=None)


def _with_lora(
    model: ModelFolder, kind: str, weights: bool, runs: tuple[Path, ...]
) -> Part:
    """The base that a LoRA names, with the LoRA."""
    lora = Lora.open(model.folder)
    if kind != "language_model":
        raise UserError(f"{model.folder}: is a LoRA of a language model, not an {kind}")
    lora.check_base(cyclic=model.folder in runs)
    try:
        base = _find(lora.base, kind, weights, (*runs, model.folder))
    except UserError as error:
        raise UserError(
            f"{model.folder}: is a LoRA of {one_line(lora.base)}, which cannot be used "
            f"({error}); {lora.advice}"
        ) from error
    return add_lora(lora, base, model.name)


def _part_of_whole(model: ModelFolder, kind: str) -> Part:
    """A part in `encoder/`, `language_model/` or `adapter/`."""
    if kind in model.subfolders:
        folder, remote = model.folder / kind, model.remote_folder(kind)
        config = read_json(folder / CONFIG)
        return _in_own_folder(model.name, kind, folder, config, remote)
    if model.config is not None:  # Such as an encoder with an adapter/ beside it.
        return _part_alone(model, kind)
    raise UserError(
        f"{model.folder}: has no folder {kind} with a {CONFIG} in it, only "
        f"{' and '.join(model.subfolders)}; name another source for this part"
    )


def _part_of_run(
    run: ModelFolder, kind: str, weights: bool, runs: tuple[Path, ...]
) -> Part:
    """A part that a run learnt, or one that its `config.json` names."""
    if kind in run.subfolders:
        return _part_of_whole(run, kind)
    if kind == "adapter":
        raise UserError(
            f"{run.folder}: this run has no trained adapter (yet): let its training "
            "finish, or name another adapter"
        )
    if run.folder in runs:
        raise UserError(
            f"{run.folder / CONFIG}: the source of its {kind} leads back to this run; "
            "name the model that it was trained with"
        )
    return _find(named(run.config or {}, kind), kind, weights, (*runs, run.folder))


def _part_of_release(release: ModelFolder, kind: str) -> Part:
    """A part of a MusiLingo release.

    The `config.json` of a release names in `mert_model` and `llama_model` the models
    that it was made from, on the hub or in folders; their configuration and tokenizer
    are there. Files in `encoder/` or `language_model/` beside the shards, or sections
    of these names in `config.json`, take precedence.
    """
    folder, config = release.folder, release.config or {}
    remote = release.remote_folder("")
    tensors = _open(folder, remote, lora=False)
    if strange := [n for n in tensors if not n.startswith(tuple(_BEGINNINGS.values()))]:
        raise UserError(
            f"{folder}: its {CONFIG} is that of a MusiLingo release, but a release has "
            f"no such tensors: {shortened(strange)}"
        )
    part = Part(kind, release.name, folder, PREFIXES[kind], {}, None, remote)
    if kind == "adapter":
        return replace(part, config=_released_adapter_config(folder, config, tensors))
    section, described = config.get(kind), folder
    if not isinstance(section, dict):
        described = _description(folder, kind, config)
        section = _configuration(described, kind, read_json(described / CONFIG))
    origin = config.get(_ORIGINS[kind])
    places = (folder, folder / kind, described) if kind == "language_model" else ()
    return replace(
        part,
        config=section,
        tokenizer=next(filter(_has_tokenizer, places), None),
        origin=origin if isinstance(origin, str) and origin else None,
    )


def _part_of_mu_llama(release: ModelFolder, kind: str) -> Part:
    """A part of a released MU-LLaMA; its encoder is described where it is from."""
    folder, origin, tokenizer = release.folder, None, None
    if kind == "encoder":
        origin = mu_llama_release.ENCODER
        described = _description(folder, kind, {_ORIGINS[kind]: origin})
        config = _configuration(described, kind, read_json(described / CONFIG))
    else:
        config = mu_llama_release.read_config(folder, kind)
    if kind == "language_model":
        places = mu_llama_release.tokenizer_folders(folder)
        tokenizer = next(filter(_has_tokenizer, places), None)
    opened = partial(mu_llama_release.open_part, folder, kind)
    return Part(
        kind,
        release.name,
        folder,
        "",
        config,
        tokenizer,
        origin=origin,
        opened=opened,
        checkpoint=folder / mu_llama_release.CHECKPOINT,
    )


def _released_adapter_config(
    folder: Path, config: Mapping[str, Any], tensors: Tensors
) -> dict[str, Any]:
    """The configuration of a release's adapter: no file has it, its shapes say it."""
    names = [PREFIXES["adapter"] + str(name) for name in linear_bridges.NAMES.values()]
    if missing := [name for name in names if name not in tensors]:
        raise UserError(
            f"{folder}: is not a complete MusiLingo release: it lacks "
            f"{', '.join(missing)}"
        )
    kernel = names[0]
    if len(shape := tensors[kernel].shape) != 2:
        raise UserError(
            f"{folder}: {kernel} {list(shape)} is not a matrix, so this is not the "
            "adapter of a MusiLingo release"
        )
    known = {TRAINED_WITH: config[TRAINED_WITH]} if TRAINED_WITH in config else {}
    return {
        "encoder_width": shape[1],
        "language_model_width": shape[0],
        "window_frames": released_window(config, folder),
        "prompt_template": config.get("prompt_template") or "",
        **known,
    }


def _description(folder: Path, kind: str, config: Mapping[str, Any]) -> Path:
    """The folder with the configuration of the model that a release was made from."""
    if (folder / kind / CONFIG).is_file():
        return folder / kind
    origin = config.get(_ORIGINS[kind])
    advice = f"put its {CONFIG} and the small files beside it into {folder / kind}"
    if not isinstance(origin, str) or not origin:
        raise UserError(
            f"{folder / CONFIG}: does not name in {_ORIGINS[kind]} the model that it "
            f"was made from; {advice}"
        )
    try:
        described = resolve(origin, weights=False)
    except UserError as error:
        raise UserError(
            f"{folder}: its {kind.replace('_', ' ')} is described in {origin}, which "
            f"is not available ({error}); {advice}"
        ) from error
    if not (described / CONFIG).is_file():
        raise UserError(f"{origin}: has no {CONFIG}; {advice}")
    return described


def _in_own_folder(
    source: str,
    kind: str,
    folder: Path,
    config: Mapping[str, Any],
    remote: tuple[str, str] | None,
) -> Part:
    """A part that has a folder to itself."""
    config = _configuration(folder, kind, config)
    part = Part(kind, source, folder, "", config, None, remote)
    if kind == "encoder" and stored_frames.KEY in config:
        return replace(part, opened=dict)  # It has no tensors.
    if kind != "language_model":
        return part
    places = filter(_has_tokenizer, meta_layout.tokenizer_folders(folder))
    has_lora = (folder / foreign_models.LORA_CONFIG).is_file()
    lora = Lora.open(folder) if has_lora else None
    return replace(part, tokenizer=next(places, None), lora=lora)


def _configuration(
    folder: Path, kind: str, config: Mapping[str, Any]
) -> Mapping[str, Any]:
    """A `config.json`, with what an encoder's preprocessor says about the waveform.

    Raises:
      UserError: the two contradict each other.
    """
    if kind != "encoder" or not os.path.lexists(folder / PREPROCESSOR):
        return config
    preprocessor = read_json(folder / PREPROCESSOR)
    renamed = {"do_normalize": "do_normalize", "sampling_rate": "sample_rate"}
    added = {
        ours: preprocessor[theirs]
        for theirs, ours in renamed.items()
        if theirs in preprocessor
    }
    for key, value in added.items():
        if key in config and config[key] != value:
            raise UserError(
                f"{folder}: {PREPROCESSOR} says {key} {value!r}, but {CONFIG} says "
                f"{config[key]!r}; correct the one that is wrong"
            )
    return {**added, **config}


def _open(folder: Path, remote: tuple[str, str] | None, *, lora: bool) -> Tensors:
    if remote is None:
        return open_tensors(folder, lora=lora)
    if not lora:
        foreign_models.check_no_lora(folder)
    return hub.look_into(*remote)


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER_FILES[:2])

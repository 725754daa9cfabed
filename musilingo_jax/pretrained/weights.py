"""Loads the three parts of a model from any source, and saves them.

A part is a `config.json` and safetensors, ours or those of the transformers library:
each reads what the other writes. `pretrained/sources.py` finds the part in a source.
"""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import AbstractMesh, Mesh
from jax.typing import DTypeLike

from musilingo_jax.models import int8 as quantizations
from musilingo_jax.models import llama as llamas
from musilingo_jax.models import lora
from musilingo_jax.models import mert as merts
from musilingo_jax.models.bridges import Bridge, frames, gated_values
from musilingo_jax.models.bridges import linear as linear_bridges
from musilingo_jax.models.bridges.frames import Frames
from musilingo_jax.models.bridges.gated_values import GatedValues, GatedValuesConfig
from musilingo_jax.models.bridges.linear import LinearBridge
from musilingo_jax.models.int8 import quantize_language_model
from musilingo_jax.models.llama import Llama
from musilingo_jax.models.llama_config import LinearScaling, Llama3Scaling, LlamaConfig
from musilingo_jax.models.lora import MapSizes, Tuning, TuningConfig
from musilingo_jax.models.mert import Mert
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.models.names import Names
from musilingo_jax.models.parts import Parts
from musilingo_jax.models.released_config import LARGEST_SIZE
from musilingo_jax.pretrained import (
    digests,
    module_writer,
    sources,
    stored_frames,
    tokenizer,
)
from musilingo_jax.pretrained.lazy_tensors import LazyTensor, Tensors
from musilingo_jax.pretrained.lora_sum import LoraSum
from musilingo_jax.pretrained.sources import Part
from musilingo_jax.pretrained.stored_frames import StoredFrames, StoredFramesConfig
from musilingo_jax.pretrained.tensor_files import (
    CONFIG,
    TOKENIZER_FILES,
    report_unread,
)
from musilingo_jax.pretrained.tensor_map import abstract, load, without
from musilingo_jax.pretrained.tokenizer import Tokenizer
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import describe, plain, read_section

SHARD_BYTES = 5 * 10**9
"""The largest size of a file of weights; larger ones are inconvenient to copy."""

_WIDTHS = ("encoder_width", "language_model_width")
TUNING = "tuning"
"""The section of an adapter's `config.json` on what was trained beside the weights."""
# The largest mean of a norm's scale that marks a delta. Trained scales of a LLaMA's
# last norm are above 1, and fine-tuning changed Vicuna's by thousandths.
_LARGEST_DELTA = 0.05
# Part of every digest: with another name here, caches and runs would not be recognised.
_CONFIG_NAMES = {
    MertConfig: "MertConfig",
    LlamaConfig: "LlamaConfig",
    LinearScaling: "LinearScaling",
    Llama3Scaling: "Llama3Scaling",
    StoredFramesConfig: "StoredFramesConfig",
}


class Blueprint(NamedTuple):
    """What a configuration describes, without values.

    Attributes:
      module: abstract, as under `jax.eval_shape`.
      names: our parameter path → released name.
      ignored: patterns of released tensors that are not used.
    """

    module: Any
    names: Names
    ignored: tuple[str, ...]


def encoder_blueprint(config: Mapping[str, Any]) -> Blueprint:
    """A MERT, or frames in its place; raises what `from_dict` of its config does."""
    if stored_frames.KEY in config:
        frames = StoredFrames(StoredFramesConfig.from_dict(config))
        return Blueprint(frames, {}, ())
    settings = MertConfig.from_dict(config)
    module = jax.eval_shape(lambda: Mert(settings, rngs=nnx.Rngs(0)))
    return Blueprint(module, merts.NAMES, merts.IGNORED)


def language_model_blueprint(config: Mapping[str, Any]) -> Blueprint:
    """A LLaMA; raises what `LlamaConfig.from_dict` does."""
    settings = LlamaConfig.from_dict(dict(config))
    module = jax.eval_shape(lambda: Llama(settings, rngs=nnx.Rngs(0)))
    # Some files with a tied head hold a copy of the embedding for it.
    copies = (r"lm_head\.weight",) if settings.tied else ()
    return Blueprint(module, llamas.NAMES, (*llamas.IGNORED, *copies))


def adapter_blueprint(config: Mapping[str, Any]) -> Blueprint:
    """An adapter: a bridge, which the keys of its configuration choose, and tuning.

    Raises:
      UserError: a size is missing or is not a positive integer.
    """
    bridge, bridge_names = _bridge(config)
    names = {f"bridge.{path}": name for path, name in bridge_names.items()}
    described = config.get(TUNING)
    if described is None:
        return Blueprint(Parts(bridge=bridge), names, ())
    tuning, sizes = _tuning(described)
    fresh = functools.partial(Tuning.fresh, sizes, tuning)
    parts = Parts(bridge, tuning=jax.eval_shape(lambda: fresh(rngs=nnx.Rngs(0))))
    names |= {f"tuning.{path}": name for path, name in lora.NAMES.items()}
    return Blueprint(parts, names, ())


def tuning_of(config: Mapping[str, Any]) -> TuningConfig | None:
    """What was trained beside the weights, as an adapter's configuration says.

    None if nothing was.

    Raises:
      UserError: it is described otherwise than `TuningConfig` says.
    """
    described = config.get(TUNING)
    return None if described is None else _tuning(described)[0]


def tuning_section(tuning: TuningConfig, sizes: MapSizes) -> dict[str, Any]:
    """What an adapter's `config.json` says of it."""
    return dataclasses.asdict(tuning) | dataclasses.asdict(sizes)


def _tuning(described: Any) -> tuple[TuningConfig, MapSizes]:
    """What an adapter's `config.json` says of what was trained beside the weights."""
    where = f"{CONFIG}: {TUNING}"
    section = plain(described, where)
    own = {entry.name for entry in dataclasses.fields(MapSizes)}
    rest = {key: value for key, value in section.items() if key not in own}
    tuning = read_section(TuningConfig, rest, where)
    tuning.check(where)
    return tuning, read_section(MapSizes, section, where, allow_others=True)


def bridge_kind(config: Mapping[str, Any]) -> type[Bridge]:
    """The bridge that an adapter's configuration describes, from its keys."""
    if "encoder_states" in config:
        return GatedValues
    return Frames if config.get("marks") else LinearBridge


def _bridge(config: Mapping[str, Any]) -> tuple[Bridge, Names]:
    """The bridge of an adapter, abstract, and the names of its tensors."""
    if bridge_kind(config) is GatedValues:
        sizes = GatedValuesConfig.from_dict(config)
        module = jax.eval_shape(lambda: GatedValues(sizes, rngs=nnx.Rngs(0)))
        return module, gated_values.NAMES
    widths = [config.get(key) for key in _WIDTHS]
    valid = [
        width for width in widths if type(width) is int and 0 < width <= LARGEST_SIZE
    ]
    if len(valid) != len(widths):
        raise UserError(
            "an adapter's config.json needs encoder_width and language_model_width, "
            f"both positive whole numbers, at most {LARGEST_SIZE:,}"
        )
    marks = config.get("marks", False)
    if type(marks) is not bool:
        raise UserError(f"an adapter's config.json has marks {marks!r}: true or false")
    if marks:
        module = jax.eval_shape(lambda: Frames(*valid, rngs=nnx.Rngs(0)))
        return module, frames.NAMES
    module = jax.eval_shape(lambda: LinearBridge(*valid, rngs=nnx.Rngs(0)))
    return module, linear_bridges.NAMES


def blueprint(part: Part) -> Blueprint:
    """What a part's configuration describes.

    Raises:
      UserError: the configuration cannot be used; the message begins with its folder.
    """
    describe_part = {
        "encoder": encoder_blueprint,
        "language_model": language_model_blueprint,
        "adapter": adapter_blueprint,
    }[part.kind]
    try:
        return describe_part(part.config)
    except UserError as error:
        raise UserError(f"{part.folder}: {error}") from error


def load_encoder(source: str | Path, *, dtype: DTypeLike, mesh: Mesh | None) -> Mert:
    """A MERT; arguments and errors as in `sources.find` and `tensor_map.load`.

    Raises:
      UserError: also if the source has frames in place of an encoder.
    """
    part = sources.find(source, "encoder")
    described = blueprint(part)
    if isinstance(described.module, StoredFrames):
        raise UserError(
            f"{part.folder}: holds frames of songs that another program encoded, and "
            "hears no song: put the frames into a feature cache, by `python -m "
            "musilingo_jax.cache`, and train, evaluate or generate from that"
        )
    return _load(part, described, dtype, mesh)


def load_frames(source: str | Path) -> StoredFrames | None:
    """The stored frames of a source; None if it is an encoder.

    Raises:
      UserError: as in `sources.find`.
    """
    part = sources.find(source, "encoder")
    if stored_frames.KEY not in part.config:
        return None
    return dataclasses.replace(blueprint(part).module, folder=part.folder)


def load_language_model(
    source: str | Path, *, dtype: DTypeLike, quantization: str, mesh: Mesh | None
) -> Llama:
    """A LLaMA; arguments and errors as in `sources.find` and `tensor_map.load`.

    Args:
      source: a folder or a name.
      dtype: type of what is not quantised.
      quantization: "int8" to store the kernels of linear layers in 8 bits, or "".
      mesh: where the arrays go.

    Raises:
      UserError: also if the files are only the difference to another model, or the
        quantization is unknown.
    """
    quantizations.check(quantization)
    part = sources.find(source, "language_model")
    if is_delta(part.tensors()):
        raise UserError(
            f"{part.folder}: these are only differences to another model (its norms "
            "scale by nearly 0), which cannot generate text until they are merged: "
            "`python -m musilingo_jax.convert merge --base=… "
            f"--delta={part.source} --out=…`"
        )
    described = blueprint(part)
    if quantization:
        module = jax.eval_shape(quantize_language_model, described.module)
        described = described._replace(module=module)
    return _load(part, described, dtype, mesh)


def is_delta(tensors: Tensors) -> bool:
    """Whether the tensors are only a language model's difference to another one.

    Such weights look plausible but generate nonsense. Their norms give them away: they
    scale by nearly 0.
    """
    last = tensors.get("model.norm.weight")
    if last is None:
        return False
    scale = np.abs(np.asarray(last[...], np.float32)).mean()
    return bool(scale < _LARGEST_DELTA)


def abstract_language_model(
    config: LlamaConfig,
    *,
    dtype: DTypeLike,
    quantization: str,
    mesh: Mesh | AbstractMesh,
) -> Llama:
    """What `load_language_model` would return, as shapes, types and shardings alone.

    Programs can be compiled with it for machines and models that are not at hand.

    Raises:
      UserError: the quantization is unknown.
    """
    quantizations.check(quantization)
    module = jax.eval_shape(lambda: Llama(config, rngs=nnx.Rngs(0)))
    if quantization:
        module = jax.eval_shape(quantize_language_model, module)
    return abstract(module, llamas.NAMES, dtype=dtype, mesh=mesh)


def load_adapter(source: str | Path, *, mesh: Mesh | None) -> Parts:
    """A bridge, and what was trained beside a language model's weights, if anything.

    In float32, because they are trained; errors as in `load_encoder`.
    """
    part = sources.find(source, "adapter")
    return _load(part, blueprint(part), np.float32, mesh)


def save_encoder(mert: Mert, folder: Path, *, dtype: DTypeLike) -> None:
    """Writes what `load_encoder` and transformers' `HubertModel` read."""
    # Unless masking is off, HubertModel needs the vector of masked frames.
    unmasked = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}
    _save(mert, merts.NAMES, folder, dtype, mert.config.to_dict() | unmasked)


def save_language_model(llama: Llama, folder: Path, *, dtype: DTypeLike) -> None:
    """Writes what `load_language_model` and transformers' `LlamaForCausalLM` read."""
    _save(llama, llamas.NAMES, folder, dtype, llama.config.to_dict())


def save_adapter(
    learnt: Parts,
    folder: Path,
    *,
    dtype: DTypeLike,
    window_frames: int,
    trained_with: Mapping[str, Any] | None,
) -> None:
    """Writes what `load_adapter` reads.

    Args:
      learnt: a bridge, and what was trained beside a language model's weights.
      folder: as in `module_writer.save`.
      dtype: the stored type.
      window_frames: encoder frames per vector that the adapter was trained with, for
        whoever computes features for it; not written for a bridge that reads other
        features.
      trained_with: the encoder and the language model that it was trained with, as of
        `TrainedWith.stored`; None if they are not known.
    """
    bridge, tuning = learnt.bridge, learnt.tuning
    assert bridge is not None  # Without it nothing is heard.
    config: dict[str, Any] = dict(bridge.sizes)
    if bridge.splices:
        config["window_frames"] = window_frames
    if tuning is not None and tuning.sizes is not None:
        config[TUNING] = tuning_section(tuning.config, tuning.sizes)
    if trained_with is not None:
        config[sources.TRAINED_WITH] = dict(trained_with)
    names = adapter_blueprint(config).names
    _save(Parts(bridge, tuning=tuning), names, folder, dtype, config)


def load_tokenizer(source: str | Path) -> Tokenizer:
    """The tokenizer of a language model; no code of its folder is run.

    Raises:
      UserError: it does not exist or cannot be read, or it has tokens that the language
        model has no embedding for.
    """
    part = sources.find(source, "language_model")
    if part.tokenizer is None:
        raise UserError(
            f"{part.folder}: has no tokenizer; copy the "
            f"{' or '.join(TOKENIZER_FILES[:2])} of the language model there"
        )
    found = tokenizer.load(part.tokenizer)
    rows = blueprint(part).module.config.vocab
    if found.size > rows:
        raise UserError(
            f"{part.tokenizer}: the tokenizer has {found.size} tokens but the language "
            f"model embeds only {rows}; copy the tokenizer of this language model there"
        )
    return found


def digest(source: str | Path, kind: str) -> str:
    """A fingerprint of a part: of what it computes, not of how it is stored.

    It is the sha256 of the part's configuration, of the names, types and contents of
    the tensors that it uses, and of its tokenizer. The same part has the same digest
    alone, in a whole model, in a release, in one file or in many.

    Raises:
      UserError: as in `sources.find` and `open_tensors`.
    """
    part = sources.find(source, kind)
    tensors = part.tensors()
    folders = {part.folder, part.tokenizer or part.folder}
    folders |= {part.lora.folder} if part.lora else set()
    files = [path for folder in folders for path in folder.iterdir() if path.is_file()]
    names = (kind, part.prefix, repr(sorted(part.config.items())))
    return digests.remembered(names, files, lambda: _digest(part, tensors))


def _digest(part: Part, tensors: Tensors) -> str:
    """As `digest`, from the contents of all files."""
    module, _, ignored = blueprint(part)
    if part.kind == "adapter":
        keys = tuple(module.bridge.sizes)
        keys += ("window_frames",) if module.bridge.splices else ()
        keys += (TUNING,) if module.tuning is not None else ()
        described = str({key: part.config.get(key) for key in keys})
    else:
        described = describe(module.config, _CONFIG_NAMES)
    total = hashlib.sha256(f"{part.kind} {described}\n".encode())
    used = dict(sorted(without(tensors, ignored).items()))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        contents = pool.map(_content_digest, used.values())
        for (name, tensor), content in zip(used.items(), contents, strict=True):
            line = f"{name} {tensor.dtype} {tensor.shape} {content}\n"
            # A name may hold what UTF-8 cannot; loading refuses it.
            total.update(line.encode(errors="backslashreplace"))
    paths = (
        [part.tokenizer / name for name in TOKENIZER_FILES] if part.tokenizer else []
    )
    for path in filter(Path.is_file, paths):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.name} {content}\n".encode())
    return total.hexdigest()


def _content_digest(tensor: LazyTensor) -> str:
    if isinstance(tensor, LoraSum):  # The last bits of a sum depend on the processor.
        contents = [_content_digest(part) for part in (tensor.base, tensor.a, tensor.b)]
        described = f"{contents} {tensor.scale!r} {tensor.embeds}"
        return hashlib.sha256(described.encode()).hexdigest()
    # Viewed as bytes, because the buffer protocol has no bfloat16.
    return hashlib.sha256(tensor[...].reshape(-1).view(np.uint8).data).hexdigest()


def _load(part: Part, described: Blueprint, dtype: DTypeLike, mesh: Mesh | None) -> Any:
    if part.remote is None:
        report_unread(part.folder)
    return load(
        *described,
        part.tensors(),
        source=str(part.folder),
        dtype=dtype,
        mesh=mesh,
    )


def _save(
    module: Any,
    names: Names,
    folder: Path,
    dtype: DTypeLike,
    config: Mapping[str, Any],
) -> None:
    module_writer.save(
        module,
        names,
        folder,
        dtype=dtype,
        config=config,
        metadata={},
        shard_bytes=SHARD_BYTES,
    )

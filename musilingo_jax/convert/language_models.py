"""Writes language models that are put together while they are read.

Meta's files            →  the transformers library's layout    `safetensors`
a base and a LoRA       →  a model without a LoRA               `merge --lora`
a base and an adapter   →  both, without what was trained
                           beside the weights of the base       `merge --adapter`
"""

from collections.abc import Mapping
from typing import Any

from musilingo_jax.convert import musilingo_releases, peft_folders
from musilingo_jax.models.decoder_families import ATTENTION, MLP
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.lora import MapSizes, TuningConfig
from musilingo_jax.pretrained import model_folder, sources, tensor_map
from musilingo_jax.pretrained.lazy_tensors import LazyTensor, Tensors
from musilingo_jax.pretrained.lora_sum import LoraSum
from musilingo_jax.pretrained.peft_lora import Lora
from musilingo_jax.pretrained.row_tensors import plus, transposed, zeros
from musilingo_jax.pretrained.sources import Part
from musilingo_jax.pretrained.tensor_files import CONFIG
from musilingo_jax.pretrained.weights import (
    blueprint,
    bridge_kind,
    is_delta,
    language_model_blueprint,
)
from musilingo_jax.pretrained.write_folders import Output, copies, small_files
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json


def merge_lora(base: str | None, lora: str) -> list[Output]:
    """A language model with a LoRA added to it, each sum rounded to the base's type.

    Args:
      base: the language model; None for the one that the LoRA names, or the one in its
        folder.
      lora: a folder or a name.

    Raises:
      UserError: the two do not fit together, or one cannot be read.
    """
    if base is None:
        part = sources.find(lora, "language_model")
        if part.lora is None:
            raise UserError(f"{lora}: has no LoRA; name the folder of one as --lora")
    else:
        opened = Lora.open(model_folder.resolve(lora, weights=False))
        below = sources.find(base, "language_model")
        part = sources.add_lora(opened, below, lora)
    return written(part)


def merge_adapter(source: str, base: str | None) -> list[Output]:
    """A language model with what an adapter trained beside it added, and the adapter.

    Sums are computed in float32 and rounded once, to the type of the base's matrix;
    biases and scales of norms stay in float32. The folders are `language_model/` and
    `adapter/`, which has its bridge alone; and `encoder/`, if the source knows it.

    Args:
      source: of the adapter: a run, or a folder with an adapter.
      base: the language model; None for the one of the source.

    Raises:
      UserError: nothing was trained beside the weights; or the sum would compute
        something else: a bridge hears through a map that changes, the base was in int8,
        or its family has no place for the biases.
    """
    part = sources.find(source, "adapter")
    tuning = peft_folders.tuning_in(part)
    _check_unrounded(part)
    changed = {*tuning.config.biases}
    changed |= {*tuning.config.targets} if tuning.config.rank else set()
    if not bridge_kind(part.config).splices and "value" in changed:
        raise UserError(
            f"{source}: its bridge hears through the language model's value maps as "
            "they were before the LoRA; merged, it would hear something else: use the "
            "adapter with the language model as it is"
        )
    below = sources.find(base or source, "language_model")
    peft_folders.check_language_model(part, base or source)
    content = below.tensors()
    plan = blueprint(below)
    tensor_map.check(*plan, content, source=str(below.folder))
    if is_delta(content):
        raise UserError(f"{below.folder}: is only a delta; merge it first")
    sizes = MapSizes.of(plan.module.config)
    if sizes != tuning.sizes:
        raise UserError(
            f"{source}: was trained beside weights of other sizes than those of "
            f"{below.source}: name the language model that it was trained with as "
            "--base"
        )
    config = _with_biases(below, tuning.config)
    merged = _merged(content, part.tensors(), tuning.config, sizes, config)
    tensor_map.check(
        *language_model_blueprint(config), merged, source=str(below.folder)
    )
    outputs = [
        Output(
            copies(merged, below.folder),
            config,
            small_files(below.tokenizer) if below.tokenizer else [],
            "language_model",
        ),
        musilingo_releases.bridge_alone(part),
    ]
    if "encoder" in sources.kinds(source):
        outputs.append(musilingo_releases.encoder_alone(source))
    return outputs


def _check_unrounded(part: Part) -> None:
    """Checks that an adapter's run did not learn beside weights in int8.

    Raises:
      UserError: it did.
    """
    path = part.folder.parent / CONFIG
    config = read_json(path) if path.is_file() else {}
    if model_folder.is_run(config) and config["model"].get("quantization"):
        raise UserError(
            f"{part.source}: was trained beside weights in "
            f"{config['model']['quantization']}, which no file holds: the sum with the "
            "weights that were rounded would be another model; use the adapter with "
            "the language model as it is"
        )


def _with_biases(base: Part, tuning: TuningConfig) -> dict[str, Any]:
    """The base's `config.json`, with biases where the merged model needs them.

    Raises:
      UserError: its family cannot have them.
    """
    groups = {"attention_bias": ATTENTION, "mlp_bias": MLP}
    before: LlamaConfig = blueprint(base).module.config
    lacking = set(tuning.biases) - set(before.biases)
    added = {key: True for key, maps in groups.items() if lacking.intersection(maps)}
    config = {**base.config, **added}
    try:
        possible = LlamaConfig.from_dict(config).biases
    except UserError:
        possible = ()
    if lacking - set(possible):
        raise UserError(
            f"{base.source}: a language model of its family has no biases of "
            f"{', '.join(sorted(lacking))}, which were trained: use the adapter with "
            "the language model as it is"
        )
    return config


def _merged(
    base: Tensors,
    learnt: Tensors,
    tuning: TuningConfig,
    sizes: MapSizes,
    config: Mapping[str, Any],
) -> Tensors:
    """The tensors of the base with everything added or replaced."""
    merged: dict[str, LazyTensor] = dict(base)
    biased = LlamaConfig.from_dict(dict(config)).biases
    for layer in range(sizes.depth):
        for name, (_, (width, _)) in sizes.ends().items():
            ours = f"tuning.layers.{layer}.{name}"
            theirs = peft_folders.module(name, layer)
            if tuning.rank and name in tuning.targets:
                merged[f"{theirs}.weight"] = LoraSum(
                    base[f"{theirs}.weight"],
                    transposed(learnt[f"{ours}.a"]),
                    transposed(learnt[f"{ours}.b"]),
                    tuning.alpha / tuning.rank,
                    False,
                    theirs,
                )
            bias = base.get(f"{theirs}.bias")
            if name in tuning.biases:
                own = learnt[f"{ours}.bias"]
                merged[f"{theirs}.bias"] = own if bias is None else plus(bias, own)
            elif bias is None and name in biased:
                merged[f"{theirs}.bias"] = zeros((width,))
    if tuning.norms:
        names = peft_folders.norms(sizes.depth)
        merged |= {theirs: learnt[ours] for theirs, ours in names.items()}
    return merged


def written(part: Part) -> list[Output]:
    """A language model as a folder of its own.

    Raises:
      UserError: it is incomplete, or only a delta.
    """
    content = part.tensors()
    tensor_map.check(*blueprint(part), content, source=str(part.folder))
    if is_delta(content):
        raise UserError(f"{part.folder}: is only a delta; merge it first")
    beside = small_files(part.tokenizer) if part.tokenizer else []
    return [Output(copies(content, part.folder), part.config, beside)]

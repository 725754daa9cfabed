"""What was trained beside a language model, as a folder of the PEFT library and back.

    adapter_config.json          r, lora_alpha, target_modules, lora_bias …
    adapter_model.safetensors    base_model.model.{module}.lora_A.weight  [r, in]
                                 base_model.model.{module}.lora_B.weight  [out, r]
                                 base_model.model.{module}.lora_B.bias    [out]
                                 base_model.model.{norm}.weight           [width]

A LLaMA has no biases that PEFT could train, but PEFT's factors may have them: with
`lora_bias`, each `lora_B` has a bias, which counts `alpha / r` times as the product
does. So ours are divided by the scale, and are zeros for targets without one. Trained
norms are `modules_to_save`. A bridge has no place there: it stays in its adapter.
"""

import json
from dataclasses import replace
from typing import Any

from musilingo_jax.convert import musilingo_releases
from musilingo_jax.models import llama as llamas
from musilingo_jax.models.lora import MAPS, MapSizes, Tuning, TuningConfig
from musilingo_jax.pretrained import (
    embedded_models,
    model_folder,
    sources,
    tensor_map,
    weights,
)
from musilingo_jax.pretrained.foreign_models import LORA_CONFIG, LORA_WEIGHTS
from musilingo_jax.pretrained.lazy_tensors import LazyTensor, shortened
from musilingo_jax.pretrained.peft_lora import Lora, LoraChanges
from musilingo_jax.pretrained.row_tensors import scaled, transposed, zeros
from musilingo_jax.pretrained.sources import Part
from musilingo_jax.pretrained.trained_with import FrozenPart, TrainedWith
from musilingo_jax.pretrained.weights import TUNING, blueprint, tuning_section
from musilingo_jax.pretrained.write_folders import Output, copies
from musilingo_jax.runtime.errors import UserError

_PREFIX = "base_model.model."
_NORMS = ("input_layernorm", "post_attention_layernorm", "model.norm")


def module(name: str, layer: int) -> str:
    """The transformers library's name of a map of a layer, without its ".weight"."""
    theirs = str(llamas.NAMES[f"layers.{name}.kernel"])
    return theirs.format(layer).removesuffix(".weight")


def norms(depth: int) -> dict[str, str]:
    """Trained scales of norms: the library's name → the one in an adapter."""
    found = {str(llamas.NAMES["norm.scale"]): "tuning.norm"}
    for layer in range(depth):
        for name in ("attention_norm", "mlp_norm"):
            theirs = str(llamas.NAMES[f"layers.{name}.scale"]).format(layer)
            found[theirs] = f"tuning.layers.{layer}.{name}"
    return found


def tuning_in(adapter: Part) -> Tuning:
    """What was trained beside the weights, abstract; its tensors were checked.

    Raises:
      UserError: nothing was, or the adapter is incomplete.
    """
    plan = blueprint(adapter)
    tensor_map.check(*plan, adapter.tensors(), source=str(adapter.folder))
    tuning: Tuning | None = plan.module.tuning
    if tuning is None:
        raise UserError(
            f"{adapter.source}: nothing was trained beside the language model's "
            "weights; name an adapter that was trained with a rank in config.….tuning"
        )
    return tuning


def check_language_model(adapter: Part, base: str) -> None:
    """Checks that a language model is the one of an adapter's training, if known.

    Raises:
      UserError: it is another.
    """
    known = TrainedWith.of_adapter(adapter)
    if known is not None:
        given = FrozenPart(
            embedded_models.exact(base), weights.digest(base, "language_model")
        )
        known.refuse_other(
            replace(known, language_model=given),
            f"the adapter {adapter.source}",
            otherwise="train an adapter anew",
        )


def export(source: str, base: str | None) -> list[Output]:
    """The LoRA of an adapter as a folder that the PEFT library reads.

    Args:
      source: of the adapter.
      base: the name of the language model for others; None for where it was found when
        the adapter was trained, if that is known.

    Raises:
      UserError: it has no LoRA, or has biases of maps without one.
    """
    part = sources.find(source, "adapter")
    tuning = tuning_in(part)
    config, sizes = tuning.config, tuning.sizes
    assert sizes is not None
    if not config.rank:
        raise UserError(f"{source}: has no LoRA, without which PEFT reads nothing")
    if apart := [name for name in config.biases if name not in config.targets]:
        raise UserError(
            f"{source}: has trained biases of {', '.join(apart)}, which have no LoRA, "
            "and PEFT has no place for them"
        )
    content, scale = part.tensors(), config.alpha / config.rank
    ends = sizes.ends()
    theirs: dict[str, LazyTensor] = {}
    for layer in range(sizes.depth):
        for name in (name for name in MAPS if name in config.targets):
            ours, into = f"tuning.layers.{layer}.{name}", _PREFIX + module(name, layer)
            theirs[f"{into}.lora_A.weight"] = transposed(content[f"{ours}.a"])
            theirs[f"{into}.lora_B.weight"] = transposed(content[f"{ours}.b"])
            if config.biases:
                bias = zeros((ends[name][1][0],))
                if name in config.biases:
                    bias = _divided(content[f"{ours}.bias"], scale)
                theirs[f"{into}.lora_B.bias"] = bias
    if config.norms:
        theirs |= {_PREFIX + n: content[ours] for n, ours in norms(sizes.depth).items()}
    known = TrainedWith.of_adapter(part)
    base = base or (known.language_model.name if known else None)
    described = _config(config, base)
    return [
        Output(
            copies(theirs, part.folder),
            None,
            single=LORA_WEIGHTS[0],
            texts={LORA_CONFIG: json.dumps(described, indent=2).encode()},
        )
    ]


def with_lora(source: str, lora: str, base: str | None) -> list[Output]:
    """An adapter with a LoRA of the PEFT library beside the language model.

    Args:
      source: of the adapter, whose bridge is kept.
      lora: a folder or a name.
      base: the language model; None for the one that the LoRA names.

    Raises:
      UserError: the adapter has a LoRA itself, the LoRA does not belong to the language
        model, or it changes what an adapter cannot.
    """
    part = sources.find(source, "adapter")
    content = dict(part.tensors())
    tensor_map.check(*blueprint(part), content, source=str(part.folder))
    if TUNING in part.config:
        raise UserError(
            f"{source}: has something trained beside the weights itself; name an "
            "adapter without it"
        )
    opened = Lora.open(model_folder.resolve(lora))
    if base is None:
        opened.check_base(cyclic=False)
    below = sources.find(base or opened.base, "language_model")
    check_language_model(part, base or opened.base)
    sizes = MapSizes.of(blueprint(below).module.config)
    if part.config.get("language_model_width") != sizes.width:
        raise UserError(
            f"{source}: is for a language model of width "
            f"{part.config.get('language_model_width')}, but {below.source} has "
            f"{sizes.width}; name the one that both were trained with"
        )
    changes = opened.changes(below.tensors(), str(below.folder))
    config = _tuning_config(changes, sizes, lora)
    content |= _ours(changes, config, sizes)
    described = dict(musilingo_releases.adapter_config(part))
    described |= {TUNING: tuning_section(config, sizes)}
    described |= musilingo_releases.record_of(part)
    part = Part("adapter", source, part.folder, "", described, None)
    tensor_map.check(*blueprint(part), content, source=lora)
    return [Output(copies(content, lora), described)]


def _config(config: TuningConfig, base: str | None) -> dict[str, Any]:
    """The content of `adapter_config.json`."""
    alpha = config.alpha
    targets = [
        module(name, 0).rpartition(".")[2] for name in MAPS if name in config.targets
    ]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "target_modules": targets,
        "modules_to_save": list(_NORMS) if config.norms else None,
        "bias": "none",
        "lora_bias": bool(config.biases),
        "use_rslora": False,
        "use_dora": False,
        "fan_in_fan_out": False,
        "lora_dropout": 0.0,
        "init_lora_weights": True,
        "inference_mode": True,
    }


def _tuning_config(changes: LoraChanges, sizes: MapSizes, lora: str) -> TuningConfig:
    """What a LoRA trained, if an adapter can hold it.

    Raises:
      UserError: it cannot.
    """
    modules = {
        f"{module(name, layer)}.weight": name
        for layer in range(sizes.depth)
        for name in MAPS
    }
    if foreign := [key for key in changes.sums if key not in modules]:
        raise UserError(
            f"{lora}: changes {shortened(foreign)}, which are no maps of a layer; "
            "merge it into the language model"
        )
    targets = [n for n in MAPS if n in {modules[key] for key in changes.sums}]
    lacking = [
        key for key, n in modules.items() if n in targets and key not in changes.sums
    ]
    kinds = {(total.a.shape[0], total.scale) for total in changes.sums.values()}
    if lacking or len(kinds) > 1:
        problem = f"none for {shortened(lacking)}" if lacking else "several ranks"
        raise UserError(
            f"{lora}: has factors that differ between layers or maps ({problem}), "
            "which an adapter cannot hold; merge it into the language model"
        )
    trained_norms = norms(sizes.depth).keys()
    if changes.whole and changes.whole.keys() != trained_norms:
        raise UserError(
            f"{lora}: replaces {shortened(sorted(changes.whole))}, but an adapter "
            "holds all norms of the residual stream or none; merge it into the "
            "language model"
        )
    ((rank, scale),) = kinds
    return TuningConfig(
        rank=rank,
        alpha=float(scale * rank),
        targets=tuple(targets),
        biases=tuple(targets) if changes.biases else (),
        norms=bool(changes.whole),
    )


def _ours(
    changes: LoraChanges, config: TuningConfig, sizes: MapSizes
) -> dict[str, LazyTensor]:
    """The tensors of a LoRA under the names in an adapter."""
    found: dict[str, LazyTensor] = {}
    scale = config.alpha / config.rank
    for layer in range(sizes.depth):
        for name in config.targets:
            ours, theirs = f"tuning.layers.{layer}.{name}", module(name, layer)
            total = changes.sums[f"{theirs}.weight"]
            found[f"{ours}.a"] = transposed(total.a)
            found[f"{ours}.b"] = transposed(total.b)
            if name in config.biases:
                found[f"{ours}.bias"] = scaled(changes.biases[theirs], scale)
    for theirs, ours in norms(sizes.depth).items():
        if config.norms:
            found[ours] = changes.whole[theirs]
    return found


def _divided(tensor: LazyTensor, scale: float) -> LazyTensor:
    return tensor if scale == 1 else scaled(tensor, 1 / scale)

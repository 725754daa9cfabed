"""Exports models with MU-LLaMA's bridge as its authors' code reads them.

    encoder/  language_model/  adapter/    →    checkpoint.pth: {"model": tensors}

The inverse of `pretrained/mu_llama_release.py`: a release that was split is the same
again, each number and its type. Two things of other trainings are computed, because the
file has no place for them:

    scale of LoRA       the second factor is multiplied by it; in their file it is 1
    trained norms       take the place of the language model's
"""

import json
from functools import partial

from musilingo_jax.answering import released
from musilingo_jax.convert import musilingo_releases
from musilingo_jax.models.bridges.gated_values import GatedValues
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.lora import Tuning
from musilingo_jax.pretrained import mu_llama_release as release
from musilingo_jax.pretrained import sources, tensor_map, trained_with
from musilingo_jax.pretrained.lazy_tensors import LazyTensor, Tensors
from musilingo_jax.pretrained.meta_names import to_meta
from musilingo_jax.pretrained.model_config import KINDS
from musilingo_jax.pretrained.row_tensors import (
    interleaved,
    reshaped,
    row,
    scaled,
    transposed,
)
from musilingo_jax.pretrained.sources import Part
from musilingo_jax.pretrained.tensor_files import CONFIG
from musilingo_jax.pretrained.weights import blueprint, is_delta
from musilingo_jax.pretrained.write_folders import Output, copies, small_files
from musilingo_jax.runtime.errors import UserError


def export(encoder: str, language_model: str, adapter: str) -> list[Output]:
    """A whole model in one file, as the original's trainer saves it.

    Args:
      encoder: source of the encoder.
      language_model: source of the language model.
      adapter: source of the adapter, with what was trained beside the weights.

    Raises:
      UserError: the parts do not fit together, one is incomplete, or the original's
        code could not compute the same.
    """
    parts = {
        kind: sources.find(source, kind)
        for kind, source in zip(KINDS, (encoder, language_model, adapter), strict=True)
    }
    trained_with.check(adapter, encoder, language_model)
    found = {kind: _checked(part) for kind, part in parts.items()}
    plan = blueprint(parts["language_model"])
    llama: LlamaConfig = plan.module.config
    learnt = blueprint(parts["adapter"]).module
    _check_language_model(parts["language_model"], llama, found["language_model"])
    _check_adapter(parts["adapter"], learnt.bridge, learnt.tuning, llama)
    beside = found["adapter"]
    inside = dict(tensor_map.without(found["language_model"], plan.ignored))
    inside |= _norms(beside, learnt.tuning)
    theirs: dict[str, LazyTensor] = {
        f"{release.ENCODER_PREFIX}{name}": t for name, t in found["encoder"].items()
    }
    theirs |= _bridge(beside, learnt.bridge)
    theirs |= {
        f"{release.LLAMA_PREFIX}{name}": tensor
        for name, tensor in to_meta(inside, llama.head_dim).items()
    }
    if learnt.tuning is not None:
        theirs |= _tuning(beside, learnt.tuning, llama.head_dim)
    described = json.dumps(dict(parts["encoder"].config), indent=2).encode()
    folder = parts["language_model"].tokenizer
    return [
        Output(
            copies(theirs, adapter),
            None,
            small_files(folder) if folder else [],
            checkpoint=True,
            texts={f"encoder/{CONFIG}": described},
        )
    ]


def _checked(part: Part) -> Tensors:
    """A part's tensors, checked to be complete."""
    content = part.tensors()
    tensor_map.check(*blueprint(part), content, source=str(part.folder))
    return content


def _check_language_model(part: Part, config: LlamaConfig, content: Tensors) -> None:
    """Checks that the original's language model computes the same.

    Raises:
      UserError: it does not, or the tensors are only a delta.
    """
    if is_delta(content):
        raise UserError(f"{part.source}: is only a delta; merge it first")
    needed = LlamaConfig(
        vocab=config.vocab,
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        key_heads=config.heads,
        head_dim=config.width // config.heads,
        mlp_width=config.mlp_width,
        norm_eps=release.NORM_EPS,
        rope_theta=release.ROPE_THETA,
        rope_scaling=None,
        tied=False,
    )
    for key, value in vars(needed).items():
        if (own := getattr(config, key)) != value:
            raise UserError(
                f"{part.source}: has {key} {own}, but the original's language model "
                f"always has {value}: this model cannot be one of its files"
            )


def _check_adapter(
    part: Part, bridge: GatedValues, tuning: Tuning | None, llama: LlamaConfig
) -> None:
    """Checks that an adapter belongs to the language model and to the original's code.

    Raises:
      UserError: it does not.
    """
    wanted = (llama.width, llama.depth, llama.heads)
    sizes = bridge.config
    own = (
        sizes.language_model_width,
        sizes.language_model_depth,
        sizes.language_model_heads,
    )
    if own != wanted:
        raise UserError(
            f"{part.source}: is for a language model of width, depth and heads {own}, "
            f"but is given one of {wanted}; name the one that it was trained with"
        )
    biases = () if tuning is None else tuning.config.biases
    if foreign := [name for name in biases if name not in release.BIASED]:
        raise UserError(
            f"{part.source}: has trained biases of {', '.join(foreign)}, which the "
            "original's modules do not have: this model cannot be one of its files"
        )
    text = musilingo_releases.template_of(part)
    usual = released.MU_LLAMA_RELEASED_PROMPT.instruction
    if text is not None and text != usual:
        raise UserError(
            f"{part.source}: was trained with the prompt {text!r}, but the original's "
            f"code always puts {usual!r}: train with that one as the stage's "
            "prompt.instruction to export a model"
        )


def _norms(content: Tensors, tuning: Tuning | None) -> dict[str, LazyTensor]:
    """The trained scales of norms under the language model's names."""
    if tuning is None or not tuning.config.norms or tuning.sizes is None:
        return {}
    found = {"model.norm.weight": content["tuning.norm"]}
    for layer in range(tuning.sizes.depth):
        names = {
            "attention_norm": "input_layernorm",
            "mlp_norm": "post_attention_layernorm",
        }
        for ours, theirs in names.items():
            tensor = content[f"tuning.layers.{layer}.{ours}"]
            found[f"model.layers.{layer}.{theirs}.weight"] = tensor
    return found


def _bridge(content: Tensors, bridge: GatedValues) -> dict[str, LazyTensor]:
    """The bridge under the names of the file; the inverse of how it is read."""
    sizes = bridge.config
    theirs: dict[str, LazyTensor] = {
        name: content[ours] for name, ours in release.SINGLE.items()
    }
    shape = (1, sizes.encoder_states, 1)
    theirs[release.MIX] = reshaped(content["mix.weight"], shape)
    for block in range(sizes.blocks):
        for name, ours in release.BLOCKS.items():
            tensor = content[f"blocks.{block}.{ours}.weight"]
            theirs[f"mu_mert_{name}_{block + 1}.weight"] = tensor
    for layer in range(sizes.language_model_depth):
        name = f"{release.LLAMA_PREFIX}layers.{layer}.attention.gate"
        shape = (1, sizes.language_model_heads, 1, 1)
        theirs[name] = row(content["gates"], layer, shape)
    return theirs


def _tuning(content: Tensors, tuning: Tuning, head_dim: int) -> dict[str, LazyTensor]:
    """LoRA and biases under the names of the file."""
    config, theirs = tuning.config, {}
    assert tuning.sizes is not None
    scale = config.alpha / config.rank if config.rank else 1.0
    for layer in range(tuning.sizes.depth):
        for name, (ours, turns) in release.MAPS.items():
            path = f"tuning.layers.{layer}.{ours}"
            turned = partial(_turned, head_dim) if turns else _as_it_is
            if config.rank and ours in config.targets:
                second = transposed(content[f"{path}.b"])
                second = second if scale == 1 else scaled(second, scale)
                first = transposed(content[f"{path}.a"])
                theirs[release.lora_name(layer, name, "l1")] = first
                theirs[release.lora_name(layer, name, "l2")] = turned(second)
            if ours in config.biases:
                bias = f"{release.LLAMA_PREFIX}layers.{layer}.{name}.bias"
                theirs[bias] = turned(content[f"{path}.bias"])
    return theirs


def _turned(head_dim: int, tensor: LazyTensor) -> LazyTensor:
    return interleaved(tensor, head_dim)


def _as_it_is(tensor: LazyTensor) -> LazyTensor:
    return tensor

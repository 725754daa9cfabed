"""The released files, by name, shape and size, without a number in them.

What must be in a file is asked of the public library, whose modules are built without
memory on torch's "meta" device, and compared with what our loader takes and our writer
would write.
"""

import math
from dataclasses import dataclass

import jax
import numpy as np
import pytest
import torch
import transformers
from helpers.released_configs import (
    CODE_LLAMA_7B,
    LLAMA_1_7B,
    LLAMA_2_7B,
    LLAMA_2_13B,
    LLAMA_2_70B,
    LLAMA_3_1_8B,
    LLAMA_3_2_1B,
    LLAMA_3_2_1B_COPY,
    LLAMA_3_2_3B,
    LLAMA_3_8B,
    LLAMA_3_70B,
    MERT_95M,
    MERT_330M,
    VICUNA_7B_V0,
    VICUNA_7B_V1_5,
    VICUNA_7B_V1_5_16K,
    VICUNA_13B_V0,
)

from musilingo_jax.pretrained import module_writer, tensor_map, weights
from musilingo_jax.pretrained.lazy_tensors import under
from musilingo_jax.pretrained.sources import PREFIXES
from musilingo_jax.runtime.errors import UserError

POSITIONAL = "encoder.pos_conv_embed.conv"
RESPELLED = {
    f"{POSITIONAL}.parametrizations.weight.original0": f"{POSITIONAL}.weight_g",
    f"{POSITIONAL}.parametrizations.weight.original1": f"{POSITIONAL}.weight_v",
}
MERTS = {
    "MERT 330M": (MERT_330M, 315_428_992),
    "MERT 95M": (MERT_95M, 94_371_712),
}
LLAMAS = {
    "LLaMA 7B": (LLAMA_1_7B, 6_738_415_616),
    "Vicuna v0 7B": (VICUNA_7B_V0, 6_738_423_808),
    "Vicuna v0 13B": (VICUNA_13B_V0, 13_015_874_560),
    "Vicuna v1.5 7B": (VICUNA_7B_V1_5, 6_738_415_616),
    "Vicuna v1.5 16k 7B": (VICUNA_7B_V1_5_16K, 6_738_415_616),
    "LLaMA 2 7B": (LLAMA_2_7B, 6_738_415_616),
    "LLaMA 2 13B": (LLAMA_2_13B, 13_015_864_320),
    "LLaMA 2 70B": (LLAMA_2_70B, 68_976_648_192),
    "CodeLlama 7B": (CODE_LLAMA_7B, 6_738_546_688),
    "Llama 3 8B": (LLAMA_3_8B, 8_030_261_248),
    "Llama 3 70B": (LLAMA_3_70B, 70_553_706_496),
    "Llama 3.1 8B": (LLAMA_3_1_8B, 8_030_261_248),
    "Llama 3.2 1B": (LLAMA_3_2_1B, 1_235_814_400),
    "Llama 3.2 1B, a copy": (LLAMA_3_2_1B_COPY, 1_235_814_400),
    "Llama 3.2 3B": (LLAMA_3_2_3B, 3_212_749_824),
}


@dataclass(frozen=True)
class Header:
    """A tensor of which only the file's header was read."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self):
        return math.prod(self.shape) * {"F32": 4, "F16": 2}[self.dtype]

    def __getitem__(self, index):
        raise AssertionError("its numbers were read")


def headers(model, dtype):
    return {
        name: Header(tuple(tensor.shape), dtype)
        for name, tensor in model.state_dict().items()
    }


def mert_file(config):
    """As released: by a version of torch that knows weight norm by its old names."""
    said = {name: value for name, value in config.items() if name != "model_type"}
    with torch.device("meta"):
        model = transformers.HubertModel(transformers.HubertConfig(**said))
    found = headers(model, "F32")
    return {RESPELLED.get(name, name): header for name, header in found.items()}


def llama_file(config):
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config))
    found = headers(model, "F16")
    if config.get("tie_word_embeddings"):
        del found["lm_head.weight"]  # It is the embedding.
    return found


def rotary_buffers(config):
    """What versions of the library before mid-2023 stored besides."""
    head_dim = config["hidden_size"] // config["num_attention_heads"]
    return {
        f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": Header(
            (head_dim // 2,), "F32"
        )
        for layer in range(config["num_hidden_layers"])
    }


def numbers(file):
    return sum(math.prod(header.shape) for header in file.values())


def written(blueprint):
    module, names, _ = blueprint
    stored = module_writer.layout(module, names, dtype=np.float32)
    return {name: shape for name, (shape, _) in stored.items()}


def shapes(file):
    return {name: header.shape for name, header in file.items()}


@pytest.mark.parametrize("name", MERTS)
def test_every_tensor_of_a_mert_has_its_place(name):
    config, count = MERTS[name]
    file = mert_file(config)
    assert numbers(file) == count
    assert file[f"{POSITIONAL}.weight_g"].shape == (1, 1, 128)
    width = config["hidden_size"]
    assert file[f"{POSITIONAL}.weight_v"].shape == (width, width // 16, 128)

    blueprint = weights.encoder_blueprint(config)
    tensor_map.check(*blueprint, file, source=name)
    # The vector that stands for masked frames is of training only.
    del file["masked_spec_embed"]
    tensor_map.check(*blueprint, file, source=name)
    new = {old: new for new, old in RESPELLED.items()}
    respelled = {new.get(name, name): header for name, header in file.items()}
    tensor_map.check(*blueprint, respelled, source=name)
    assert written(blueprint) == shapes(respelled)
    # Weight norm keeps 128 magnitudes beside the directions; we keep the product.
    ours = sum(leaf.size for leaf in jax.tree.leaves(blueprint.module))
    assert ours == count - width - 128


@pytest.mark.parametrize("name", LLAMAS)
def test_every_tensor_of_a_llama_has_its_place(name):
    config, count = LLAMAS[name]
    file = llama_file(config)
    assert numbers(file) == count
    blueprint = weights.language_model_blueprint(config)
    assert sum(leaf.size for leaf in jax.tree.leaves(blueprint.module)) == count
    tensor_map.check(*blueprint, file, source=name)
    tensor_map.check(*blueprint, file | rotary_buffers(config), source=name)
    assert written(blueprint) == shapes(file)


def test_a_tensor_too_many_or_too_few_is_noticed():
    config, _ = LLAMAS["Llama 3.2 1B"]
    blueprint = weights.language_model_blueprint(config)
    file = llama_file(config)
    last = file.pop("model.layers.15.mlp.up_proj.weight")
    file["model.layers.16.mlp.up_proj.weight"] = last
    with pytest.raises(UserError) as refusal:
        tensor_map.check(*blueprint, file, source="the file")
    assert "missing: model.layers.15.mlp.up_proj.weight" in str(refusal.value)
    assert "unused: model.layers.16.mlp.up_proj.weight" in str(refusal.value)


def test_a_musilingo_release_to_the_byte():
    """14,755,365,376 bytes, which is what its index says.

    The encoder and the adapter are stored in float32, the language model in float16,
    and the angles of its 32 layers, 64 each, in float32 again.
    """
    adapter = {
        "llama_proj.weight": Header((4096, 1024), "F32"),
        "llama_proj.bias": Header((4096,), "F32"),
    }
    parts = {
        "encoder": mert_file(MERT_330M),
        "adapter": adapter,
        "language_model": llama_file(VICUNA_7B_V0) | rotary_buffers(VICUNA_7B_V0),
    }
    release = {
        PREFIXES[kind] + name: header
        for kind, file in parts.items()
        for name, header in file.items()
    }
    assert len(release) == sum(map(len, parts.values()))
    assert {
        "model.audio_encoder.encoder.pos_conv_embed.conv.weight_g",
        "model.audio_encoder.feature_extractor.conv_layers.0.layer_norm.weight",
        "model.audio_encoder.encoder.layers.23.final_layer_norm.bias",
        "model.llama_proj.weight",
        "model.llama_proj.bias",
        "model.llama_model.model.embed_tokens.weight",
        "model.llama_model.model.layers.31.self_attn.rotary_emb.inv_freq",
        "model.llama_model.lm_head.weight",
    } < release.keys()
    assert sum(header.nbytes for header in release.values()) == 14_755_365_376

    blueprints = {
        "encoder": weights.encoder_blueprint(MERT_330M),
        "language_model": weights.language_model_blueprint(VICUNA_7B_V0),
    }
    for kind, blueprint in blueprints.items():
        tensor_map.check(*blueprint, under(release, PREFIXES[kind]), source=kind)
    widths = {"encoder_width": 1024, "language_model_width": 4096}
    blueprint = weights.adapter_blueprint(widths)
    tensor_map.check(*blueprint, adapter, source="adapter")
    assert written(blueprint) == shapes(adapter)
    assert numbers(adapter) == 4_198_400

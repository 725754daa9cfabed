"""The `config.json` that the fields of a GGUF file amount to.

    llama.embedding_length                   hidden_size
    llama.attention.head_count_kv            num_key_value_heads
    llama.rope.freq_base                     rope_theta
    rope_freqs.weight (a tensor)             rope_scaling of type llama3

As with `config.json` itself, a field that would change the arithmetic must not be
overlooked: each is used, compared with the one value that is supported, or ignored by
name, and anything else is an error. Mistral, SmolLM2 and others are of the architecture
"llama", too.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from musilingo_jax.models.llama_config import Llama3Scaling
from musilingo_jax.models.released_config import LARGEST_SIZE
from musilingo_jax.pretrained.gguf_file import GgufFile
from musilingo_jax.pretrained.lazy_tensors import shortened
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import one_line

FAMILIES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
}
"""Architecture, and `model_type` of the transformers library → its class there."""

ROPE_FREQUENCIES = "rope_freqs.weight"
EMBEDDING, HEAD = "token_embd.weight", "output.weight"

_USED = """
    block_count context_length embedding_length feed_forward_length vocab_size
    attention.head_count attention.head_count_kv attention.key_length
    attention.value_length attention.layer_norm_rms_epsilon rope.freq_base
    rope.dimension_count rope.scaling.type rope.scaling.factor
"""
_FIXED = {
    "attention.causal": True,
    "expert_count": 0,
    "expert_used_count": 0,
    "attention.sliding_window": 0,
    "rope.scaling.attn_factor": 1.0,
    "tensor_data_layout": "Meta AI original pth",
}
# What the file was made from and by, and how it is divided into parts.
_IGNORED = ("GGUF.", "general.", "split.", "quantize.", "tokenizer.")
# How long the texts of pretraining were: no formula of the supported scalings uses it.
_IGNORED_OF_FAMILY = ("rope.scaling.original_context_length", "rope.scaling.finetuned")

# The numbers of LLaMA 3.1 to 3.3; only `factor` differs between them.
_LLAMA_3 = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def config_json(file: GgufFile) -> dict[str, Any]:
    """The `config.json` of a model, as the transformers library would write it.

    Raises:
      UserError: the architecture, a field or a value is not supported, or missing.
    """
    family = file.fields.get("general.architecture")
    if not isinstance(family, str) or family not in FAMILIES:
        raise UserError(
            f"{file.name}: its architecture is {_shown(family)}, but only "
            f"{', '.join(FAMILIES)} can be converted"
        )
    own = _checked(file, family)
    width, heads = _size(file, own, "embedding_length"), _heads(file, own)
    if "attention.key_length" not in own and width % heads:
        raise UserError(
            f"{file.name}: its width {width} is not a multiple of its {heads} heads"
        )
    head_dim = _size(file, own, "attention.key_length", width // heads)
    if head_dim % 2:
        raise UserError(
            f"{file.name}: its heads are {head_dim} wide: it must be an even number, "
            "because rotary angles turn pairs"
        )
    for name in ("attention.value_length", "rope.dimension_count"):
        if (size := _size(file, own, name, head_dim)) != head_dim:
            raise UserError(
                f"{file.name}: {name} is {size}, but only that of a whole head, "
                f"{head_dim}, is supported"
            )
    if EMBEDDING not in file.tensors:
        raise UserError(f"{file.name}: lacks the tensor {EMBEDDING}; get it again")
    shape = file.tensors[EMBEDDING].shape
    if len(shape) != 2:
        raise UserError(
            f"{file.name}: {EMBEDDING} has the shape {list(shape)}, which is not that "
            "of a matrix; get it again"
        )
    vocab = shape[0]
    if (size := _size(file, own, "vocab_size", vocab)) != vocab:
        raise UserError(
            f"{file.name}: vocab_size is {size:,}, but {EMBEDDING} has {vocab:,} rows; "
            "get it again"
        )
    depth = _size(file, own, "block_count")
    if depth > len(file.tensors):  # Before a name is made for each of its tensors.
        raise UserError(
            f"{file.name}: has {len(file.tensors)} tensors, too few for the {depth:,} "
            "layers that its fields say; get it again"
        )
    base = _decimal(file, own, "rope.freq_base", 10_000.0)
    scaling = _scaling(file, own, head_dim, base)
    said = {
        "architectures": [FAMILIES[family]],
        "model_type": family,
        "hidden_act": "silu",
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": _size(file, own, "feed_forward_length"),
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "num_key_value_heads": _size(file, own, "attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": _size(file, own, "context_length"),
        "rms_norm_eps": _decimal(file, own, "attention.layer_norm_rms_epsilon"),
        "rope_theta": base,
        "rope_scaling": scaling,
        "rope_parameters": {"rope_theta": base} | (scaling or {"rope_type": "default"}),
        "tie_word_embeddings": HEAD not in file.tensors,
    }
    if family != "qwen2":  # Its queries, keys and values have biases, always.
        said["attention_bias"] = "blk.0.attn_q.bias" in file.tensors
    if family in ("llama", "smollm3"):
        said["mlp_bias"] = "blk.0.ffn_up.bias" in file.tensors
    if family == "smollm3":  # llama.cpp has it as a constant of the architecture.
        said["no_rope_layer_interval"] = 4
    return said


def _checked(file: GgufFile, family: str) -> dict[str, Any]:
    """The fields of the architecture, without its name, each of them accounted for."""
    if (kind := file.fields.get("general.type", "model")) != "model":
        raise UserError(
            f"{file.name}: is of the type {_shown(kind)}, not a whole model"
        )
    prefix = f"{family}."
    own = {
        name.removeprefix(prefix): value
        for name, value in file.fields.items()
        if name.startswith(prefix)
    }
    foreign = [n for n in file.fields if not n.startswith((prefix, *_IGNORED))]
    known = {*_USED.split(), *_FIXED, *_IGNORED_OF_FAMILY}
    unknown = [*foreign, *(prefix + name for name in own if name not in known)]
    if unknown:
        raise UserError(
            f"{file.name}: it is not known whether these fields change what the model "
            f"computes: {shortened(sorted(unknown))}; get the safetensors that it was "
            "made from"
        )
    for name, only in _FIXED.items():
        if name in own and own[name] != only:
            raise UserError(
                f"{file.name}: {prefix}{name} is {_shown(own[name])}, but only "
                f"{only!r} is supported"
            )
    return own


def _heads(file: GgufFile, own: Mapping[str, Any]) -> int:
    heads = _size(file, own, "attention.head_count")
    key_heads = _size(file, own, "attention.head_count_kv", heads)
    if heads % key_heads:
        raise UserError(
            f"{file.name}: its {heads} heads are not a multiple of its {key_heads} key "
            "heads"
        )
    return heads


def _scaling(
    file: GgufFile, own: Mapping[str, Any], head_dim: int, base: float
) -> dict[str, Any] | None:
    """The `rope_scaling` of a model; None for rotary angles as they are."""
    # As in llama.cpp, a factor alone is a linear one.
    usual = "linear" if "rope.scaling.factor" in own else "none"
    kind = own.get("rope.scaling.type", usual)
    if ROPE_FREQUENCIES in file.tensors:
        if kind != "none":
            raise UserError(
                f"{file.name}: has both {ROPE_FREQUENCIES} and a scaling of type "
                f"{_shown(kind)}, which is not supported"
            )
        return _llama_3(file, head_dim, base)
    if kind == "none":
        return None
    if kind != "linear":
        raise UserError(
            f"{file.name}: its rotary angles are scaled by {_shown(kind)}, but only "
            "linear and that of LLaMA 3 are supported"
        )
    factor = _decimal(file, own, "rope.scaling.factor")
    return {"rope_type": "linear", "factor": factor}


def _llama_3(file: GgufFile, head_dim: int, base: float) -> dict[str, Any] | None:
    """The scaling from which the divisors of the frequencies were computed.

    The slowest frequency is divided by `factor` itself; whether the other numbers are
    those of LLaMA 3 shows when all divisors are computed again.

    Raises:
      UserError: the divisors are others.
    """
    divisors = file.tensors[ROPE_FREQUENCIES][...].astype(np.float32).reshape(-1)
    exponents = np.arange(0, head_dim, 2) / head_dim
    frequencies = 1 / base**exponents
    if len(divisors) == len(frequencies) and np.isfinite(divisors).all():
        if (divisors == 1).all():
            return None
        scaling = Llama3Scaling(factor=_shortest(divisors[-1]), **_LLAMA_3)
        expected = frequencies / scaling(frequencies)
        if np.allclose(divisors, expected, rtol=1e-5, atol=0):
            return {"rope_type": "llama3"} | asdict(scaling)
    raise UserError(
        f"{file.name}: {ROPE_FREQUENCIES} does not divide the rotary frequencies as "
        "LLaMA 3.1 does, which alone is supported; get the safetensors that it was "
        "made from"
    )


def _size(
    file: GgufFile, own: Mapping[str, Any], name: str, default: int | None = None
) -> int:
    """A positive whole number among the fields."""
    value = own.get(name, default)
    if not (type(value) is int and 0 < value <= LARGEST_SIZE):
        raise UserError(
            f"{file.name}: {name} is {_shown(value)}: it must be one positive whole "
            f"number, at most {LARGEST_SIZE:,}"
        )
    return value


def _decimal(
    file: GgufFile, own: Mapping[str, Any], name: str, default: float | None = None
) -> float:
    """A positive number among the fields: 1e-05, which float32 has as 9.9999997e-06."""
    value = own.get(name, default)
    if not (isinstance(value, float) and 0 < value < np.inf):
        raise UserError(
            f"{file.name}: {name} is {_shown(value)}: it must be a positive number"
        )
    return _shortest(value)


def _shortest(value: Any) -> float:
    """The shortest decimal number that rounds to this one in float32."""
    return float(str(np.float32(value)))


def _shown(value: Any) -> str:
    return one_line(repr(value)[:80])

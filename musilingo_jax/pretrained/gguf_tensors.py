"""The tensors of a GGUF file, named and ordered as the transformers library has them.

    blk.3.attn_q.weight      model.layers.3.self_attn.q_proj.weight
    blk.3.ffn_norm.weight    model.layers.3.post_attention_layernorm.weight
    token_embd.weight        model.embed_tokens.weight

llama.cpp turns neighbouring rows of a head together, and the transformers library rows
that are half a head apart. So for the architectures that its converter derives from
"llama", the rows of queries and keys have another order, here of a head of 8 rows:

    GGUF            0 4 1 5 2 6 3 7
    transformers    0 1 2 3 4 5 6 7
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Shaped

from musilingo_jax.pretrained.finite_tensors import FiniteTensor
from musilingo_jax.pretrained.gguf_config import EMBEDDING, HEAD, ROPE_FREQUENCIES
from musilingo_jax.pretrained.gguf_file import GgufFile
from musilingo_jax.pretrained.lazy_tensors import shortened
from musilingo_jax.pretrained.safetensors_file import TYPES
from musilingo_jax.pretrained.write_folders import FolderPart
from musilingo_jax.runtime.errors import UserError

PERMUTED = ("llama", "smollm3")
"""Architectures whose rows of queries and keys have GGUF's order."""

# Part of a layer → its name there, and its sizes by their names in `_sizes`.
_LAYER = {
    "attn_norm": ("input_layernorm", "width"),
    "attn_q": ("self_attn.q_proj", "queries width"),
    "attn_k": ("self_attn.k_proj", "keys width"),
    "attn_v": ("self_attn.v_proj", "keys width"),
    "attn_output": ("self_attn.o_proj", "width queries"),
    "ffn_norm": ("post_attention_layernorm", "width"),
    "ffn_gate": ("mlp.gate_proj", "hidden width"),
    "ffn_up": ("mlp.up_proj", "hidden width"),
    "ffn_down": ("mlp.down_proj", "width hidden"),
}
_HEAD_NORMS = {  # qwen3
    "attn_q_norm": ("self_attn.q_norm", "head"),
    "attn_k_norm": ("self_attn.k_norm", "head"),
}
_OUTER = {
    EMBEDDING: ("model.embed_tokens.weight", "vocab width"),
    "output_norm.weight": ("model.norm.weight", "width"),
    HEAD: ("lm_head.weight", "vocab width"),
}


def folder_parts(
    file: GgufFile, config: Mapping[str, Any], dtype: np.dtype | None
) -> dict[str, FolderPart]:
    """The tensors to write, by their names there.

    Args:
      file: where they are read.
      config: the model's `config.json`.
      dtype: their type; None for that of the file, and float32 for those that the file
        has in a few bits.

    Raises:
      UserError: a tensor is missing, unknown, or of another shape.
    """
    named = _names(config)
    known = {*named, ROPE_FREQUENCIES}
    if unknown := sorted(file.tensors.keys() - known):
        raise UserError(
            f"{file.name}: a model of this architecture has no such tensors: "
            f"{shortened(unknown)}; get the safetensors that it was made from"
        )
    if missing := sorted(named.keys() - file.tensors.keys()):
        raise UserError(
            f"{file.name}: lacks the tensors {shortened(missing)}; get it again"
        )
    parts = {}
    for name, (theirs, shape) in named.items():
        tensor = file.tensors[name]
        if tensor.shape != shape:
            raise UserError(
                f"{file.name}: {name} has the shape {list(tensor.shape)}, not "
                f"{list(shape)} as its fields say; get it again"
            )
        written = TYPES[tensor.dtype] if dtype is None else dtype
        values = FiniteTensor(tensor, name, file.name, written)
        read = partial(_read, values, _heads(name, config))
        parts[theirs] = FolderPart(shape, written, read)
    return parts


def halves(rows: Shaped[np.ndarray, "rows ..."], heads: int) -> np.ndarray:
    """Rows of queries or keys in the order of the transformers library.

    Args:
      rows: of a matrix or a bias, in GGUF's order.
      heads: how many heads they are; those of keys may be fewer.
    """
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def _read(tensor: FiniteTensor, heads: int) -> np.ndarray:
    """All of a tensor; in another order of rows if it has that of `heads` heads."""
    values = tensor[...]
    return halves(values, heads) if heads else values


def _heads(name: str, config: Mapping[str, Any]) -> int:
    """How many heads of rows to put in another order; 0 for none."""
    if config["model_type"] not in PERMUTED:
        return 0
    part = name.split(".")[2] if name.startswith("blk.") else ""
    counts = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
    return config[counts[part]] if part in counts else 0


def _names(config: Mapping[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name in GGUF → name there and shape, of all tensors that a model has."""
    sizes = {
        "vocab": config["vocab_size"],
        "width": config["hidden_size"],
        "hidden": config["intermediate_size"],
        "head": config["head_dim"],
        "queries": config["num_attention_heads"] * config["head_dim"],
        "keys": config["num_key_value_heads"] * config["head_dim"],
    }
    layer = _LAYER | (_HEAD_NORMS if config["model_type"] == "qwen3" else {})
    biased = set()
    if config["model_type"] == "qwen2" or config["attention_bias"]:
        biased |= {"attn_q", "attn_k", "attn_v"}
    if config.get("attention_bias"):
        biased.add("attn_output")
    if config.get("mlp_bias"):
        biased |= {"ffn_gate", "ffn_up", "ffn_down"}

    def shape(spelled: str) -> tuple[int, ...]:
        return tuple(sizes[name] for name in spelled.split())

    names = {
        ours: (theirs, shape(spelled)) for ours, (theirs, spelled) in _OUTER.items()
    }
    if config["tie_word_embeddings"]:
        del names[HEAD]
    for number in range(config["num_hidden_layers"]):
        for part, (theirs, spelled) in layer.items():
            ours, there = f"blk.{number}.{part}", f"model.layers.{number}.{theirs}"
            names[f"{ours}.weight"] = f"{there}.weight", shape(spelled)
            if part in biased:
                names[f"{ours}.bias"] = f"{there}.bias", shape(spelled)[:1]
    return names

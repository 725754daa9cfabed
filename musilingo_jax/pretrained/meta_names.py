"""The tensors of a LLaMA under Meta's names and under the transformers library's.

    tok_embeddings.weight            model.embed_tokens.weight
    layers.3.attention.wq.weight     model.layers.3.self_attn.q_proj.weight
    layers.3.ffn_norm.weight         model.layers.3.post_attention_layernorm.weight

Rows of queries and keys are in another order, too: Meta's code turns neighbouring rows
of a head by one rotary angle, the transformers library the two halves of a head.
"""

import re

from musilingo_jax.pretrained.lazy_tensors import LazyTensor, Tensors
from musilingo_jax.pretrained.row_tensors import halved, interleaved

EMBEDDING, HEAD = "tok_embeddings.weight", "output.weight"
TURNED = ("attention.wq", "attention.wk")
"""The maps whose rows are in another order."""

_NAMES = {
    EMBEDDING: "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    HEAD: "lm_head.weight",
}
_LAYER_NAMES = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_METAS_NAMES = {theirs: metas for metas, theirs in _NAMES.items()}
_METAS_LAYER_NAMES = {theirs: metas for metas, theirs in _LAYER_NAMES.items()}
_METAS = re.compile(r"layers\.(\d+)\.(.+)\.weight")
_THEIRS = re.compile(r"model\.layers\.(\d+)\.(.+)\.weight")


def to_transformers(tensors: Tensors, head_dim: int) -> dict[str, LazyTensor]:
    """Whole tensors under Meta's names, under the transformers library's.

    Args:
      tensors: of a language model; names that Meta's files do not have stay.
      head_dim: rows of a head of queries or keys, which are reordered.
    """
    renamed: dict[str, LazyTensor] = {}
    for name, tensor in tensors.items():
        found = _METAS.fullmatch(name)
        layer, key = (found[1], found[2]) if found else ("", "")
        inside = f"model.layers.{layer}.{_LAYER_NAMES.get(key)}.weight"
        ours = inside if key in _LAYER_NAMES else _NAMES.get(name, name)
        renamed[ours] = halved(tensor, head_dim) if key in TURNED else tensor
    return renamed


def to_meta(tensors: Tensors, head_dim: int) -> dict[str, LazyTensor]:
    """The inverse of `to_transformers`, for what Meta's files have a name for.

    Raises:
      KeyError: they have none for a tensor.
    """
    renamed: dict[str, LazyTensor] = {}
    for name, tensor in tensors.items():
        if (found := _THEIRS.fullmatch(name)) is None:
            renamed[_METAS_NAMES[name]] = tensor
            continue
        key = _METAS_LAYER_NAMES[found[2]]
        turned = interleaved(tensor, head_dim) if key in TURNED else tensor
        renamed[f"layers.{found[1]}.{key}.weight"] = turned
    return renamed

"""Language models as Meta hands them out, written with PyTorch."""

import json

import torch

from helpers.transformers_models import tiny_llama

NAMES = {
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "embed_tokens": "tok_embeddings",
    "lm_head": "output",
}
# Which axis several files divide; LLaMA 3 divides the embedding along its rows.
ROWS = ("wq", "wk", "wv", "w1", "w3", "output")
COLUMNS = ("wo", "w2")

# [width, mlp] = [16, 48]: two thirds of 64, rounded up to a multiple of 8.
LLAMA_1 = {
    "dim": 16,
    "multiple_of": 8,
    "n_heads": 4,
    "n_layers": 2,
    "norm_eps": 1e-6,
    "vocab_size": -1,
}
LLAMA_3 = {
    "dim": 16,
    "ffn_dim_multiplier": 1.3,
    "multiple_of": 8,
    "n_heads": 4,
    "n_kv_heads": 2,
    "n_layers": 2,
    "norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "use_scaled_rope": True,
    "rope_scaling_factor": 8,
    "vocab_size": 50,
}


def hub_model(params):
    """The transformers library's model of the same architecture, in float32."""
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    rope = scaling if params.get("use_scaled_rope") else {"rope_type": "default"}
    model = tiny_llama(
        intermediate_size=56 if "ffn_dim_multiplier" in params else 48,
        num_key_value_heads=params.get("n_kv_heads", 4),
        rms_norm_eps=params["norm_eps"],
        rope_parameters=rope | {"rope_theta": params.get("rope_theta", 10_000.0)},
    )
    for name, parameter in model.named_parameters():  # Norms that are not all ones.
        if "norm" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
        else:
            parameter.data *= 10
    return model


def neighbours(weight, heads):
    """Rows x0 x1 … y0 y1 … of each head as x0 y0 x1 y1 …."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.transpose(1, 2).reshape(rows, columns)


def meta_tensors(model):
    """The tensors of a model of the transformers library under Meta's names."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        heads = {
            "q_proj": model.config.num_attention_heads,
            "k_proj": model.config.num_key_value_heads,
        }.get(name.split(".")[-2])
        name = name.removeprefix("model.")
        for theirs, own in NAMES.items():
            name = name.replace(theirs, own)
        tensors[name] = (neighbours(tensor, heads) if heads else tensor).clone()
    return tensors


def write_meta(folder, tensors, params, *, shards=1, embedding_axis=1):
    """Writes `params.json`, and the tensors in some files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.json").write_text(json.dumps(params))
    for number in range(shards):
        own = {}
        for name, tensor in tensors.items():
            kind = name.split(".")[-2]
            axis = 0 if kind in ROWS else 1 if kind in COLUMNS else None
            axis = embedding_axis if kind == "tok_embeddings" else axis
            part = tensor if axis is None else tensor.chunk(shards, axis)[number]
            own[name] = part.clone()
        own["rope.freqs"] = torch.ones(2)
        torch.save(own, folder / f"consolidated.{number:02}.pth")
    return folder

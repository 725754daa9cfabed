"""Language models in GGUF, written by the gguf library as by llama.cpp's converter."""

import json

import gguf
import numpy as np
import tokenizers
import torch
from safetensors.torch import load_file, save_file

from helpers.tokenizer_files import byte_level
from musilingo_jax.pretrained import gguf_folder, write_folders

PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OUTER = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
Q = gguf.GGMLQuantizationType


def config_of(family="llama", **changes):
    """Wide enough for a block of every type that the library can write: 32 numbers."""
    return {
        "model_type": family,
        "vocab_size": 304,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100_000.0,
        "tie_word_embeddings": True,
    } | changes


def folder_of(folder, config, biased=()):
    """A folder of random weights, and a byte-level tokenizer with 304 tokens."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(1)
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    width, hidden = config["hidden_size"], config["intermediate_size"]
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], width)}
    shapes["model.norm.weight"] = (width,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = shapes["model.embed_tokens.weight"]
    layer = {
        "input_layernorm": (width,),
        "self_attn.q_proj": (queries, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, queries),
        "post_attention_layernorm": (width,),
        "mlp.gate_proj": (hidden, width),
        "mlp.up_proj": (hidden, width),
        "mlp.down_proj": (width, hidden),
    }
    if config["model_type"] == "qwen3":
        layer |= dict.fromkeys(("self_attn.q_norm", "self_attn.k_norm"), (16,))
    for number in range(config["num_hidden_layers"]):
        for part, shape in layer.items():
            shapes[f"model.layers.{number}.{part}.weight"] = shape
            if part in biased:
                shapes[f"model.layers.{number}.{part}.bias"] = shape[:1]
    content = {
        name: shape[-1] ** -0.5 * torch.randn(shape, generator=generator)
        if len(shape) > 1
        else 1 + 0.3 * torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }
    save_file(content, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    byte_level(folder)
    return folder


def in_pairs(rows, heads):
    """The order of rows that llama.cpp's converter makes of that of transformers."""
    split = rows.reshape(heads, 2, len(rows) // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(rows.shape))


def tensors_of(folder):
    """Name in GGUF → values of a folder's tensors, in the order of GGUF."""
    config = json.loads((folder / "config.json").read_text())
    counts = {
        "attn_q": config["num_attention_heads"],
        "attn_k": config["num_key_value_heads"],
    }
    found = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        values, ours = tensor.numpy(), OUTER.get(name)
        if ours is None:
            _, _, number, *middle, ending = name.split(".")
            part = PARTS[".".join(middle)]
            ours = f"blk.{number}.{part}.{ending}"
            if config["model_type"] in ("llama", "smollm3") and part in counts:
                values = in_pairs(values, counts[part])
        found[ours] = values
    return found


def fields_of(config):
    """The fields of the architecture."""
    return {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "vocab_size": config["vocab_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": config["head_dim"],
        "attention.value_length": config["head_dim"],
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.freq_base": config["rope_theta"],
        "rope.dimension_count": config["head_dim"],
    }


def byte_level_fields(folder, pre="gpt-2"):
    """The fields of the tokenizer in a folder's `tokenizer.json`."""
    pairs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    said = json.loads(pairs.to_str())
    added = {entry["id"]: entry for entry in said["added_tokens"]}
    pieces = [pairs.id_to_token(token) for token in range(pairs.get_vocab_size())]
    kinds = [
        1 if token not in added else 3 if added[token]["special"] else 4
        for token in range(len(pieces))
    ]
    return {
        "model": "gpt2",
        "pre": pre,
        "tokens": pieces,
        "token_type": kinds,
        "merges": [" ".join(merge) for merge in said["model"]["merges"]],
        "bos_token_id": pieces.index("<|begin_of_text|>"),
        "eos_token_id": pieces.index("<|eot_id|>"),
        "add_bos_token": True,
    }


def write(
    path,
    folder,
    *,
    kind=Q.F32,
    fields=(),
    tokenizer=None,
    tensors=None,
    template="{{ messages }}",
    alignment=None,
    **options,
):
    """Writes a folder as GGUF.

    Args:
      path: of the file.
      folder: of the model.
      kind: type of the matrices; all else is float32.
      fields: name → value, of the architecture; None removes a field.
      tokenizer: its fields; None for those of the folder's `tokenizer.json`.
      tensors: name → values; None for those of the folder.
      template: of a conversation.
      alignment: of the tensors, in bytes; None for the usual one.
      options: of the library's writer.
    """
    config = json.loads((folder / "config.json").read_text())
    family = config["model_type"]
    writer = gguf.GGUFWriter(str(path), family, **options)
    if alignment is not None:
        writer.add_custom_alignment(alignment)
    for name, value in (fields_of(config) | dict(fields)).items():
        if value is not None:
            add(writer, f"{family}.{name}", value)
    said = byte_level_fields(folder) if tokenizer is None else tokenizer
    for name, value in said.items():
        add(writer, f"tokenizer.ggml.{name}", value)
    if template is not None:
        writer.add_chat_template(template)
    for name, values in (tensors_of(folder) if tensors is None else tensors).items():
        stored = kind if values.ndim > 1 else Q.F32
        data = gguf.quantize(values, stored)
        writer.add_tensor(name, data, raw_dtype=None if stored == Q.F32 else stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add(writer, name, value):
    """Adds a field, in the type that llama.cpp's converter gives it."""
    if isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, int):
        writer.add_uint32(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    else:
        writer.add_array(name, value)


def converted(source, out, dtype=None):
    outputs = gguf_folder.convert(str(source), dtype=dtype)
    write_folders.write(out, outputs, shard_bytes=10**9)
    return out


def json_of(path):
    return json.loads(path.read_text())

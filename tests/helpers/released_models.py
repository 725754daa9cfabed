"""The embedded model in the layout of a MusiLingo release."""

import json

import numpy as np
from safetensors.numpy import load_file, save_file

from musilingo_jax.pretrained import model_folder
from musilingo_jax.pretrained.model_config import KINDS
from musilingo_jax.pretrained.sources import PREFIXES


def save_release(folder):
    """Writes the embedded model as a release in two shards; returns the folder."""
    embedded = model_folder.resolve("musilingo-tiny-1")
    folder.mkdir()
    tensors, where = {}, {}
    for shard, kind in enumerate(KINDS):
        part = load_file(embedded / kind / "model.safetensors")
        file = f"model-{min(shard, 1) + 1:05}-of-00002.safetensors"
        for name, tensor in part.items():
            where[PREFIXES[kind] + name] = file
            tensors.setdefault(file, {})[PREFIXES[kind] + name] = tensor
    # Buffers that old versions of the library saved, and that nothing needs.
    for layer in range(4):
        name = f"model.llama_model.model.layers.{layer}.self_attn.rotary_emb.inv_freq"
        where[name] = file
        tensors[file][name] = np.ones(16, np.float32)
    for file, part in tensors.items():
        save_file(part, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {
        "model_type": "musilingo",
        "architectures": ["MusilingoModel"],
        "mert_model": str(embedded / "encoder"),
        "llama_model": str(embedded / "language_model"),
        "prompt_template": "###Human: {} ###Assistant: ",
        "end_sym": "\n",
        "max_txt_len": 32,
        "window_frames": 108,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder

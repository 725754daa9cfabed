"""Folders of models for conversions, written, read and changed with PyTorch's tools."""

import json

import tokenizers
import torch
from safetensors.torch import load_file, save_file

from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.pretrained import module_writer, sources, weights, write_folders

TINY = "musilingo-tiny-1"


SHARD_BYTES = 10**6


CONFIG = LlamaConfig(
    vocab=10,
    width=8,
    depth=2,
    heads=2,
    key_heads=2,
    head_dim=4,
    mlp_width=12,
    norm_eps=1e-6,
    rope_theta=1e4,
    rope_scaling=None,
    tied=False,
)


ROWS = ("model.embed_tokens.weight", "lm_head.weight")


def write(plan, folder):
    write_folders.write(folder, plan, shard_bytes=SHARD_BYTES)
    return folder


def read(folder):
    """All tensors of a folder, as the safetensors library reads them for PyTorch."""
    files = sorted(folder.glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def assert_equal(found, expected):
    """Equal to the bit, types included."""
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def change(folder, change):
    """Rewrites the tensors of a folder."""
    save_file(change(read(folder)), folder / "model.safetensors")


def language_model(folder, config, dtype):
    """A folder of random weights; made without JAX, whose compiling takes seconds."""
    generator = torch.Generator().manual_seed(0)
    module, names, _ = weights.blueprint(
        sources.Part("language_model", "", folder, "", config.to_dict(), None)
    )
    content = {
        name: 0.2 * torch.randn(shape, generator=generator) + ("norm" in name)
        for name, (shape, _) in module_writer.layout(
            module, names, dtype="float32"
        ).items()
    }
    folder.mkdir()
    content = {name: tensor.to(dtype) for name, tensor in content.items()}
    save_file(content, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    return folder


def save_tokenizer(folder, size):
    """Writes a tokenizer of letters."""
    letters = ["Ġ", *"abcdefghijklmnopqrstuvwxyz"][:size]
    pairs = tokenizers.Tokenizer(
        tokenizers.models.BPE({letter: n for n, letter in enumerate(letters)}, [])
    )
    pairs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = tokenizers.decoders.ByteLevel()
    pairs.save(str(folder / "tokenizer.json"))


def configure(folder, **said):
    """Changes what a `config.json` says."""
    config = json.loads((folder / "config.json").read_text()) | said
    (folder / "config.json").write_text(json.dumps(config))

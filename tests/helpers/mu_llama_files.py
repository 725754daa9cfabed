"""MU-LLaMA's `checkpoint.pth` with small random weights, as its trainer saves it."""

import argparse
import json
from pathlib import Path

import torch

from helpers.small_run import ENCODER, save_tokenizer
from musilingo_jax.pretrained import module_writer, sources, weights

WIDTH, HEADS, DEPTH, MLP, VOCAB = 24, 3, 4, 40, 61
STATES, HEARD, INNER, QUERIES, RANK = 2, 16, 32, 3, 4
NAMES = {
    "query": ("attention", "wq", WIDTH, WIDTH),
    "key": ("attention", "wk", WIDTH, WIDTH),
    "value": ("attention", "wv", WIDTH, WIDTH),
    "out": ("attention", "wo", WIDTH, WIDTH),
    "gate": ("feed_forward", "w1", WIDTH, MLP),
    "down": ("feed_forward", "w2", MLP, WIDTH),
    "up": ("feed_forward", "w3", WIDTH, MLP),
}
BIASED = ("query", "out", "gate", "up", "down")


def tensors(*, second_stage=True, vocab=VOCAB):
    """Everything below "model" in the file, and the same for the torch model."""
    made = torch.Generator().manual_seed(0)

    def random(*shape, scale=0.3):
        return scale * torch.randn(*shape, generator=made)

    theirs, plain = {}, {}

    def add(name, plain_name, tensor):
        theirs[name] = tensor
        plain[plain_name] = tensor.float()

    add("mu_mert_agg.weight", "mix.weight", random(1, STATES, 1))
    plain["mix.weight"] = plain["mix.weight"][..., 0]
    add("mu_mert_agg.bias", "mix.bias", random(1))
    add("mu_mert_proj.weight", "projection.weight", random(WIDTH, HEARD))
    add("mu_mert_proj.bias", "projection.bias", random(WIDTH))
    for i in range(3):
        for name, ours, shape in (
            ("norm", "norm", (WIDTH,)),
            ("f1", "gate_proj", (INNER, WIDTH)),
            ("f3", "up_proj", (INNER, WIDTH)),
            ("f2", "down_proj", (WIDTH, INNER)),
        ):
            add(
                f"mu_mert_{name}_{i + 1}.weight",
                f"blocks.{i}.{ours}.weight",
                random(*shape),
            )
    add("prefix_query.weight", "queries", random(QUERIES, WIDTH))
    add("llama.tok_embeddings.weight", "embedding", random(vocab, WIDTH).half())
    add("llama.output.weight", "head", random(vocab, WIDTH).half())
    add("llama.norm.weight", "norm", 1 + random(WIDTH))
    gates = []
    for i in range(DEPTH):
        layer, ours = f"llama.layers.{i}", f"layers.{i}"
        gates.append(random(1, HEADS, 1, 1).half())
        theirs[f"{layer}.attention.gate"] = gates[-1]
        add(
            f"{layer}.attention_norm.weight",
            f"{ours}.attention_norm",
            1 + random(WIDTH),
        )
        add(f"{layer}.ffn_norm.weight", f"{ours}.mlp_norm", 1 + random(WIDTH))
        for name, (room, letter, fan_in, fan_out) in NAMES.items():
            path, own = f"{layer}.{room}", f"{ours}.{name}"
            add(
                f"{path}.{letter}.weight",
                f"{own}.weight",
                random(fan_out, fan_in).half(),
            )
            if not second_stage:
                continue
            add(f"{path}.lora_{letter}_l1.weight", f"{own}.a", random(RANK, fan_in))
            add(f"{path}.lora_{letter}_l2.weight", f"{own}.b", random(fan_out, RANK))
            if name in BIASED:
                add(f"{path}.{letter}.bias", f"{own}.bias", random(fan_out))
    plain["gates"] = torch.stack([gate.float().reshape(HEADS) for gate in gates])
    return theirs, plain


def encoder_tensors():
    """A random encoder under its own names; made without JAX, as compiling is slow."""
    part = sources.Part("encoder", "", Path(), "", ENCODER, None)
    module, names, _ = weights.blueprint(part)
    made = torch.Generator().manual_seed(9)
    return {
        f"mert_model.{name}": 0.2 * torch.randn(shape, generator=made)
        for name, (shape, _) in module_writer.layout(
            module, names, dtype="float32"
        ).items()
    }


def write(folder, theirs):
    """The folder of a release, with the state of its trainer."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "model": theirs,
        "optimizer": {"state": {0: {"step": torch.tensor(7.0)}}, "param_groups": []},
        "epoch": 19,
        "scaler": {"scale": 65536.0},
        "args": argparse.Namespace(blr=1e-3, epochs=20, max_words=512),
    }
    torch.save(state, folder / "checkpoint.pth")
    (folder / "LLaMA").mkdir(exist_ok=True)
    save_tokenizer(folder / "LLaMA")
    (folder / "encoder").mkdir(exist_ok=True)
    (folder / "encoder/config.json").write_text(json.dumps(ENCODER))
    return folder

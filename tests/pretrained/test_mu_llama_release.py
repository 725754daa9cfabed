"""MU-LLaMA's `checkpoint.pth`, written as its trainer writes it, computes the same."""

import argparse
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from helpers import torch_mu_llama
from helpers.small_run import ENCODER, save_tokenizer
from helpers.torch_mu_llama import rotate_neighbours

from musilingo_jax.answering.usage import Usage
from musilingo_jax.models.bridges.gated_values import GatedValues
from musilingo_jax.models.lora import MAPS
from musilingo_jax.pretrained import sources, weights
from musilingo_jax.pretrained.model_folder import ModelFolder
from musilingo_jax.runtime.errors import UserError

pytestmark = pytest.mark.medium

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


def tensors(*, second_stage=True):
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
    add("llama.tok_embeddings.weight", "embedding", random(VOCAB, WIDTH).half())
    add("llama.output.weight", "head", random(VOCAB, WIDTH).half())
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


def write(folder, theirs):
    folder.mkdir(exist_ok=True)
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


@pytest.mark.parametrize("second_stage", [False, True])
def test_all_parts_compute_what_the_original_does(tmp_path, second_stage):
    theirs, plain = tensors(second_stage=second_stage)
    folder = write(tmp_path / "mu", theirs)
    llama = weights.load_language_model(
        folder, dtype="float32", quantization="", mesh=None
    )
    learnt = weights.load_adapter(folder, mesh=None)
    assert isinstance(learnt.bridge, GatedValues)
    assert (learnt.tuning is not None) == second_stage
    if second_stage:
        assert set(learnt.tuning.config.targets) == set(MAPS)
        assert set(learnt.tuning.config.biases) == set(BIASED)

    states = np.random.default_rng(1).normal(size=(2, STATES, HEARD)).astype(np.float32)
    tokens = np.random.default_rng(2).integers(0, VOCAB, (2, 11))
    with torch.no_grad():
        audio = torch_mu_llama.hear(plain, torch.tensor(states), 3)
        expected = torch_mu_llama.logits(
            plain,
            torch.tensor(tokens),
            audio,
            depth=DEPTH,
            heads=HEADS,
            query_layers=QUERIES,
            rotate=rotate_neighbours,
        ).numpy()
    heard = learnt.bridge(states, llama)
    more = {} if learnt.tuning is None else {"tuning": learnt.tuning}
    hidden = llama(
        llama.embed(tokens),
        positions=np.tile(np.arange(11), (2, 1)),
        segments=np.ones((2, 11), int),
        remat="everything",
        added=heard.added,
        **more,
    )
    found = llama.logits(hidden)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    deaf = llama(
        llama.embed(tokens),
        positions=np.tile(np.arange(11), (2, 1)),
        segments=np.ones((2, 11), int),
        remat="everything",
        added=jnp.zeros_like(heard.added),
        **more,
    )
    assert np.abs(llama.logits(deaf) - expected).max() > 0.01


def test_its_parts_are_found(tmp_path):
    folder = write(tmp_path / "mu", tensors()[0])
    assert ModelFolder.open(folder, weights=True).layout == "mu_llama"
    assert sources.kinds(folder) == ["encoder", "language_model", "adapter"]
    assert sources.find(folder, "language_model").tokenizer == folder / "LLaMA"
    part = sources.find(folder, "encoder")
    assert part.config["hidden_size"] == ENCODER["hidden_size"]
    assert part.origin == "m-a-p/MERT-v1-330M"


@pytest.mark.parametrize(
    "lacking, message",
    [
        ("prefix_query.weight", "is not a whole model of MU-LLaMA: it lacks prefix_qu"),
        ("mu_mert_f2_3.weight", r"missing: blocks\.2\.down_proj\.weight"),
        (
            "llama.layers.2.attention.lora_wk_l2.weight",
            r"missing: tuning\.layers\.2\.key\.b",
        ),
    ],
)
def test_a_file_that_lacks_tensors_is_told(tmp_path, lacking, message):
    theirs = tensors()[0]
    del theirs[lacking]
    folder = write(tmp_path / "mu", theirs)
    with pytest.raises(UserError, match=message):
        weights.load_adapter(folder, mesh=None)


def test_the_released_file_has_the_listed_size():
    """17.34 GB of parameters, by the shapes of the models that it holds."""
    bridge = weights.adapter_blueprint(
        {
            "encoder_states": 25,
            "encoder_width": 1024,
            "language_model_width": 4096,
            "language_model_depth": 32,
            "language_model_heads": 32,
            "query_layers": 20,
            "blocks": 3,
            "block_width": 16_384,
            "tuning": {
                "rank": 16,
                "alpha": 16.0,
                "targets": MAPS,
                "biases": BIASED,
                "norms": True,
                "depth": 32,
                "width": 4096,
                "queries": 4096,
                "keys": 4096,
                "mlp": 11_008,
            },
        }
    ).module

    def count(tree):
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    assert count(bridge.bridge) == 608_273_434
    # LoRA, biases and scales of norms.
    assert count(bridge.tuning) == 39_976_960 + 1_097_728 + 266_240 == 41_340_928


def test_it_answers_as_a_whole_model(tmp_path):
    """By its folder's name alone: features, prompt and decoding are its authors'."""
    folder = write(tmp_path / "mu", tensors()[0])
    usage = Usage.of(folder, None)
    assert usage.features.reduction == "layers"
    assert usage.model.adapter == str(folder)
    assert "<built-in function input>" in usage.prompt.instruction
    with pytest.raises(UserError, match="is used in one way; a style"):
        Usage.of(folder, None, style="demo")

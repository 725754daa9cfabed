"""MU-LLaMA's `checkpoint.pth`, written as its trainer writes it, computes the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from helpers import torch_mu_llama
from helpers.mu_llama_files import (
    BIASED,
    DEPTH,
    HEADS,
    HEARD,
    QUERIES,
    STATES,
    VOCAB,
    tensors,
    write,
)
from helpers.small_run import ENCODER
from helpers.torch_mu_llama import rotate_neighbours

from musilingo_jax.answering.usage import Usage
from musilingo_jax.models.bridges.gated_values import GatedValues
from musilingo_jax.models.lora import MAPS
from musilingo_jax.pretrained import sources, weights
from musilingo_jax.pretrained.model_folder import ModelFolder
from musilingo_jax.runtime.errors import UserError

pytestmark = pytest.mark.medium


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

"""What a run trains besides MusiLingo's bridge: LoRA, and a bridge that adds."""

import json

import numpy as np
import pytest
from helpers.small_run import small_config, stopped_after, trained_folder
from safetensors.numpy import load_file

from musilingo_jax import train as training
from musilingo_jax.answering.answerer import load_answerer
from musilingo_jax.audio.features import FeatureConfig
from musilingo_jax.models.bridges.gated_values import GatedValues
from musilingo_jax.models.lora import UNTUNED
from musilingo_jax.pretrained import weights
from musilingo_jax.pretrained.model_config import ModelConfig
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.sharding import make_mesh

pytestmark = pytest.mark.medium

LORA = {"stage2__tuning__rank": 2, "mesh__data": 1}
ADDS = {
    "mesh__data": 1,
    "features__reduction": "layers",
    "stages": ("stage2",),
    "stage2__prompt__instruction": "{}",
}


@pytest.fixture(scope="module")
def folder():
    return trained_folder()


def adding_config(folder, name, **changes):
    config = small_config(folder, name, **(ADDS | changes))
    config.bridge = {"query_layers": 1, "blocks": 1, "block_width": 8}
    config.features.cache = str(folder / "layers")
    return config


def answerer_of(config):
    model = ModelConfig.from_config(config)
    run = f"{config.run}/adapter"
    model = ModelConfig(model.encoder, model.language_model, run, "float32", "")
    return load_answerer(model, FeatureConfig.from_config(config), make_mesh(1, 1, 1))


def test_lora_learns_beside_frozen_weights_and_comes_back(folder):
    config = small_config(folder, "lora", **LORA)
    training.train(config)
    saved = load_file(folder / "lora/adapter/model.safetensors")
    moved = saved["tuning.layers.0.query.b"]
    assert moved.shape == (2, 32) and np.abs(moved).max() > 0
    described = json.loads((folder / "lora/adapter/config.json").read_text())
    assert described["tuning"]["rank"] == 2
    answerer = answerer_of(config)
    assert answerer.tuning is not UNTUNED
    np.testing.assert_array_equal(answerer.tuning.layers[0].query.b[...], moved)
    whole = load_file(folder / "whole/adapter/model.safetensors")
    assert np.abs(whole["llama_proj.weight"] - saved["llama_proj.weight"]).max() > 0


def test_a_stopped_run_with_lora_resumes_bit_for_bit(folder):
    """Both stages learn; the second one goes on with the factors of the first."""
    both = LORA | {"stage1__tuning__rank": 2}
    training.train(small_config(folder, "lora-whole", **both))
    with pytest.raises(SystemExit):
        stopped_after(
            small_config(folder, "lora-stopped", **both), stage="stage2", step=3
        )
    training.train(small_config(folder, "lora-stopped", **both))
    one, other = (
        load_file(folder / name / "adapter/model.safetensors")
        for name in ("lora-whole", "lora-stopped")
    )
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def test_a_bridge_that_adds_learns_and_answers(folder):
    config = adding_config(folder, "adds")
    training.train(config)
    learnt = weights.load_adapter(folder / "adds/adapter", mesh=None)
    assert isinstance(learnt.bridge, GatedValues)
    assert float(np.abs(learnt.bridge.gates[...]).max()) > 0
    rows = [json.loads(line) for line in (folder / "adds/metrics.jsonl").open() if line]
    assert all(np.isfinite(row["loss"]) for row in rows if "loss" in row)
    answerer = answerer_of(config)
    assert answerer.bridge.config.encoder_states == learnt.bridge.config.encoder_states


@pytest.mark.slow
def test_eight_devices_train_what_one_does(folder):
    changes = {"mesh__data": 2, "mesh__fsdp": 2, "mesh__tensor": 2}
    both = {"stage2__tuning__rank": 2}
    training.train(adding_config(folder, "adds-one", **both))
    training.train(adding_config(folder, "adds-eight", **(both | changes)))
    one, other = (
        load_file(folder / name / "adapter/model.safetensors")
        for name in ("adds-one", "adds-eight")
    )
    for key in one:
        np.testing.assert_allclose(one[key], other[key], atol=2e-4, err_msg=key)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"stage2__learns_bridge": False}, "stage2 trains nothing: set learns_bridge"),
        ({"stage2__tuning__rank": -1}, "tuning.rank is -1: it must be at least 0"),
        (
            {"stage2__tuning__targets": ("query", "head")},
            "targets is query, head: it must name each map at most once, of query, key",
        ),
        (
            {"stage1__tuning__rank": 2, "stage2__tuning__rank": 4},
            r"stage2.tuning.rank is 4, but what was trained before has 2",
        ),
        ({"features__reduction": "layers"}, "this bridge reads 'pooled': set --config"),
        (
            {"stage2__prompt__instruction": "{}"},
            "stage2.prompt.instruction is '{}': it must contain <AudioHere> once",
        ),
    ],
)
def test_what_cannot_be_trained_is_told_before_anything_is_made(
    folder, changes, message
):
    with pytest.raises(UserError, match=message):
        training.train(small_config(folder, "wrong", **(changes | {"mesh__data": 1})))


def test_a_bridge_that_adds_has_no_place_in_the_text(folder):
    config = adding_config(folder, "wrong-place")
    config.stage2.prompt.instruction = "<AudioHere> {}"
    with pytest.raises(UserError, match="puts no vectors into the text, so take"):
        training.train(config)
    config = adding_config(folder, "too-deep")
    config.bridge.query_layers = 99
    with pytest.raises(UserError, match=r"query_layers is 99, but the language model"):
        training.train(config)


def test_a_bridge_of_another_kind_is_refused(folder):
    config = adding_config(folder, "other-kind")
    config.model.adapter = str(folder / "whole/adapter")
    with pytest.raises(UserError, match="another kind of bridge than that of"):
        training.train(config)

"""MERT's configuration against released files and the public library."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from flax import nnx
from helpers.released_configs import MERT_95M, MERT_330M

from musilingo_jax.models.mert import Mert
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.runtime.errors import UserError


def test_frames_are_those_of_the_released_model():
    config = MertConfig.from_dict(MERT_330M)
    seconds, frames = [5, 10, 15.5, 30], [374, 749, 1162, 2249]
    samples = [int(24_000 * second) for second in seconds]
    assert [config.frames(count) for count in samples] == frames
    mert = jax.eval_shape(lambda: Mert(config, rngs=nnx.Rngs(0)))
    np.testing.assert_array_equal(mert.frames(jnp.array(samples)), frames)
    assert (config.samples_per_frame, config.frames_per_second) == (320, 75)
    for count in (1, 2, 374):
        enough = config.samples_for_frames(count)
        assert (config.frames(enough), config.frames(enough - 1)) == (count, count - 1)
    assert config.frames(0) == 0
    np.testing.assert_array_equal(config.frames(np.array([0, 100, 400])), [0, 0, 1])


@pytest.mark.parametrize("released", [MERT_330M, MERT_95M], ids=["330M", "95M"])
def test_config_survives_json_and_the_public_library(released):
    config = MertConfig.from_dict(released)
    assert MertConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    hash(config)
    ours = dataclasses.replace(config, model_type="hubert")
    public = transformers.HubertConfig(**ours.to_dict())
    assert MertConfig.from_dict(json.loads(public.to_json_string(use_diff=False))) == (
        dataclasses.replace(ours)
    )


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"rotary_base": 10_000}, "unknown attribute 'rotary_base'"),
        ({"deepnorm": True}, "deepnorm is True, but only False is implemented"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"conv_pos_batch_norm": True}, "conv_pos_batch_norm is True"),
        ({"adapter_attn_dim": 16}, "adapter_attn_dim is 16"),
        ({"add_adapter": True}, "add_adapter is True"),
        ({"model_type": "llama"}, "model_type is 'llama'"),
        ({"num_feat_extract_layers": 6}, "num_feat_extract_layers is 6"),
        ({"conv_dim": [512] * 6, "num_feat_extract_layers": 6}, "same length"),
        ({"feat_extract_norm": "batch"}, "feat_extract_norm"),
        ({"num_attention_heads": 15}, "num_attention_heads, which is 15"),
        (
            {"num_conv_pos_embedding_groups": 3},
            "num_conv_pos_embedding_groups, which is 3",
        ),
        ({"feature_extractor_cqt": True, "feature_extractor_cqt_bins": 6}, "is 6"),
        ({"feature_extractor_cqt": True, "sample_rate": 8000}, "sample_rate is 8000"),
        ({"hidden_act": None}, "hidden_act is None"),
        ({"conv_dim": [], "conv_kernel": [], "conv_stride": []}, "at least 1"),
    ],
)
def test_a_config_that_means_something_else_is_refused_by_name(changed, message):
    with pytest.raises(UserError, match=message):
        MertConfig.from_dict(MERT_330M | changed)


@pytest.mark.parametrize("name", ["hidden_size", "do_stable_layer_norm", "conv_dim"])
def test_a_config_without_an_attribute_is_refused_by_name(name):
    incomplete = {key: value for key, value in MERT_330M.items() if key != name}
    incomplete.pop("num_feat_extract_layers")
    with pytest.raises(UserError, match=f"missing {name}"):
        MertConfig.from_dict(incomplete)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_size", "1024"),
        ("hidden_size", 0),
        ("num_attention_heads", 0),
        ("num_hidden_layers", 2.5),
        ("num_hidden_layers", True),
        ("num_hidden_layers", 10**7),
        ("intermediate_size", None),
        ("conv_stride", None),
        ("conv_stride", [0] * 7),
        ("conv_kernel", 5),
        ("conv_dim", ["a"] * 7),
        ("layer_norm_eps", "small"),
        ("layer_norm_eps", float("nan")),
        ("do_normalize", "yes"),
        ("sample_rate", "24000"),
        ("sample_rate", 0),
        ("num_conv_pos_embeddings", 0),
        ("feat_extract_norm", 3),
        ("model_type", ["mert_model"]),
    ],
)
def test_a_config_of_other_types_is_refused_by_name(name, value):
    with pytest.raises(UserError, match=rf"config\.json.{{1,2}}{name} is"):
        MertConfig.from_dict(MERT_330M | {name: value})

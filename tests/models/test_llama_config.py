"""LLaMA's configuration against released files, odd ones, and the public library."""

import json
import re

import pytest
import transformers
from helpers.released_configs import (
    CODE_LLAMA_7B,
    LLAMA_1_7B,
    LLAMA_2_13B,
    LLAMA_3_1_8B,
    LLAMA_3_2_1B_COPY,
    LLAMA_3_2_3B,
    LLAMA_3_70B,
    VICUNA_7B_V0,
    VICUNA_7B_V1_5_16K,
)

from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.runtime.errors import UserError

RELEASED = [
    LLAMA_1_7B,
    VICUNA_7B_V0,
    VICUNA_7B_V1_5_16K,
    LLAMA_2_13B,
    CODE_LLAMA_7B,
    LLAMA_3_70B,
    LLAMA_3_1_8B,
    LLAMA_3_2_1B_COPY,
    LLAMA_3_2_3B,
]


def test_a_vicuna_of_2023_says_less_and_means_the_same():
    config = LlamaConfig.from_dict(VICUNA_7B_V0)
    assert (config.vocab, config.head_dim, config.key_heads) == (32001, 128, 32)
    assert (config.rope_theta, config.rope_scaling) == (10_000.0, None)
    assert not config.tied


@pytest.mark.parametrize("released", RELEASED)
@pytest.mark.parametrize("whole", [True, False])
def test_the_public_library_rewrites_a_config_and_we_read_the_same(released, whole):
    written = transformers.LlamaConfig(**released).to_json_string(use_diff=not whole)
    rewritten = json.loads(written)
    assert "rope_parameters" in rewritten
    assert LlamaConfig.from_dict(rewritten) == LlamaConfig.from_dict(released)


@pytest.mark.parametrize("released", RELEASED)
def test_what_we_write_is_read_by_us_and_by_the_public_library(released):
    config = LlamaConfig.from_dict(released)
    written = json.loads(json.dumps(config.to_dict()))
    assert LlamaConfig.from_dict(written) == config
    theirs = transformers.LlamaConfig(**written)
    assert LlamaConfig.from_dict(theirs.to_dict()) == config


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"n_experts": 8}, "unknown attribute 'n_experts' (8)"),
        ({"model_type": "mixtral"}, "model_type is 'mixtral', but only llama, mistral"),
        ({"model_type": ["llama"]}, "model_type is ['llama']"),
        ({"model_type": "qwen3"}, "num_key_value_heads, head_dim is missing"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', but only 'silu'"),
        ({"attention_bias": 1}, "attention_bias is 1: it must be true or false"),
        ({"sliding_window": 128}, "sliding_window is 128"),
        ({"use_sliding_window": True}, "unknown attribute 'use_sliding_window'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is {'bits': 4}"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ({"rope_scaling": {"type": "linear"}}, "factor is missing"),
        ({"rope_scaling": {"type": "linear", "factor": 2, "beta": 1}}, "beta"),
        ({"rope_theta": 1e6, "rope_parameters": {"rope_theta": 1e4}}, "contradict"),
        ({"rope_parameters": 7}, "rope_parameters is 7"),
        ({"hidden_size": "32"}, "hidden_size is '32'"),
        ({"num_hidden_layers": 10**7}, "num_hidden_layers is 10000000"),
        ({"rms_norm_eps": None}, "rms_norm_eps is None"),
        ({"rms_norm_eps": float("inf")}, "rms_norm_eps is inf"),
        ({"num_key_value_heads": 3}, "num_key_value_heads, which is 3"),
        ({"head_dim": 7}, "head_dim is 7: it must be even"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'"),
    ],
)
def test_a_config_that_would_compute_something_else_is_refused(change, complaint):
    with pytest.raises(UserError, match=re.escape(complaint)) as refusal:
        LlamaConfig.from_dict(LLAMA_1_7B | change)
    assert "config.json" in str(refusal.value)


def test_null_stands_for_an_attribute_that_is_not_set():
    nulls = {"hidden_act": None, "num_key_value_heads": None, "head_dim": None}
    assert LlamaConfig.from_dict(LLAMA_1_7B | nulls) == LlamaConfig.from_dict(
        LLAMA_1_7B
    )


def test_a_missing_attribute_is_named():
    odd = {k: v for k, v in LLAMA_1_7B.items() if k != "vocab_size"}
    with pytest.raises(UserError, match="vocab_size is missing"):
        LlamaConfig.from_dict(odd)

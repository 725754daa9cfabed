"""The section `model` names a source for each part, and is checked."""

import pytest
from ml_collections import ConfigDict

from musilingo_jax.pretrained.model_config import ModelConfig
from musilingo_jax.runtime.errors import UserError


def test_pretrained_fills_the_parts_that_are_empty():
    model = {
        "pretrained": "a/b",
        "encoder": "",
        "adapter": "random",
        "dtype": "float32",
    }
    model |= {"language_model": "llama", "quantization": "int8"}
    config = ConfigDict({"model": model})
    assert ModelConfig.from_config(config) == ModelConfig(
        "a/b", "llama", "random", "float32", "int8"
    )
    del config.model.pretrained
    with pytest.raises(UserError, match="config.model.encoder is empty"):
        ModelConfig.from_config(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"dtype": "bf16"},
            "config.model.dtype is 'bf16': choose one of 'float32', 'b",
        ),
        (
            {"quantization": "int4"},
            "config.model.quantization is 'int4': choose one of",
        ),
        ({"encoder": 7}, "config.model.encoder is 7: it must be text"),
        ({"quantisation": ""}, "config.model has quantisation, which nothing reads"),
        ({"dtype": None}, "config.model.dtype is None"),
    ],
)
def test_keys_out_of_bounds_are_named(changes, message):
    model = {"pretrained": "a", "adapter": "random", "dtype": "bfloat16"} | changes
    with pytest.raises(UserError, match=message):
        ModelConfig.from_config({"model": model})


def test_a_section_without_quantization_means_none():
    """As runs of version 0.1 may have it."""
    model = {"pretrained": "a", "dtype": "bfloat16"}
    assert ModelConfig.from_config({"model": model}).quantization == ""
    del model["dtype"]
    with pytest.raises(UserError, match="config.model lacks dtype"):
        ModelConfig.from_config({"model": model})

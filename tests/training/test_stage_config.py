"""Numbers of a stage that cannot be meant are refused by name."""

import pytest
from helpers.small_run import load_config

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.training.stage_config import StageConfig


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", -1e-3),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("weight_decay", -0.1),
        ("weight_decay", float("nan")),
        ("final_learning_rate", 1.0),
        ("final_learning_rate", -1e-9),
        ("final_learning_rate", float("nan")),
        ("warmup_learning_rate", -1e-6),
        ("warmup_learning_rate", 1.0),
        ("warmup_learning_rate", float("nan")),
        ("prompt.max_answer_tokens", 0),
    ],
)
def test_what_cannot_be_learnt_with_is_refused(key, value):
    config = load_config("tiny").get_config()
    config.update_from_flattened_dict({f"stage2.{key}": value})
    with pytest.raises(UserError, match=rf"config\.stage2\.{key} is {value}: it must"):
        StageConfig.from_config(config, "stage2")


def test_the_edges_of_what_can_be_meant_are_not():
    config = load_config("tiny").get_config()
    config.stage2.weight_decay = config.stage2.warmup_learning_rate = 0.0
    config.stage2.final_learning_rate = config.stage2.learning_rate
    assert StageConfig.from_config(config, "stage2").weight_decay == 0

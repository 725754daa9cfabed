"""Settings of a stage that are out of bounds are refused by name."""

import re

import pytest
from helpers.small_run import load_config

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.training.stage_config import StageConfig, read_stages


def changed(key, value):
    config = load_config("tiny").get_config()
    config.update_from_flattened_dict({f"stage2.{key}": value})
    return config


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
        *((key, 0) for key in ("steps", "batch_size", "rows", "accumulate", "keep")),
        *((key, 0) for key in ("max_tokens", "max_windows", "validation_examples")),
        *((key, 0) for key in ("checkpoint_every", "log_every")),
        *((key, -1) for key in ("warmup_steps", "validate_every")),
    ],
)
def test_what_is_out_of_bounds_is_refused(key, value):
    with pytest.raises(UserError, match=rf"config\.stage2\.{key} is {value}: it must"):
        StageConfig.from_config(changed(key, value), "stage2")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("final_learning_rate", 0.5, "it must be at most config.stage2.learning_rate"),
        ("warmup_learning_rate", 0.5, "it must be at most config.stage2.learning_rate"),
        ("rows", 999, "it must be at most config.stage2.batch_size"),
        ("warmup_steps", 9999, "it must be less than config.stage2.steps"),
        ("questions", "some", "choose one of 'captions', 'questions', 'all'"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(key, value, message):
    with pytest.raises(
        UserError, match=rf"config\.stage2\.{key} is .*{re.escape(message)}"
    ):
        StageConfig.from_config(changed(key, value), "stage2")


def test_settings_at_their_bounds_are_taken():
    config = load_config("tiny").get_config()
    config.stage2.weight_decay = config.stage2.warmup_learning_rate = 0.0
    config.stage2.final_learning_rate = config.stage2.learning_rate
    assert StageConfig.from_config(config, "stage2").weight_decay == 0


def test_stages_are_read_in_the_order_of_training():
    config = load_config("tiny").get_config()
    config.stages = ("stage2", "stage1")
    stages = read_stages(config)
    assert list(stages) == ["stage2", "stage1"]
    assert stages["stage1"] == StageConfig.from_config(config, "stage1")

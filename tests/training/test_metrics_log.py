"""Metrics of a running stage: speeds exclude compiling, and NaN stops it in time."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers.small_run import load_config

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.training import flops, metrics_log
from musilingo_jax.training.metrics_log import MetricsLog
from musilingo_jax.training.metrics_rows import UpdateRow, ValidationRow
from musilingo_jax.training.stage_config import StageConfig
from musilingo_jax.training.train_step import StepReport

SHAPES = "AABAAB"


def report(loss=1.0, norm=1.0, finite=True):
    return StepReport(*map(np.asarray, (loss, norm, finite)))


@pytest.fixture
def made(monkeypatch):
    """A log with a row for every second update, its rows, and its clock."""
    config = load_config("tiny").get_config()
    config.stage1.update(steps=6, warmup_steps=1, log_every=2)
    clock, rows = SimpleNamespace(now=0.0), []
    monkeypatch.setattr(metrics_log.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(flops, "batch_flops", lambda *of: 6e12)
    monkeypatch.setattr(flops, "peak_of", lambda mesh: 12e12)
    batches = SimpleNamespace(
        shape=lambda step: SHAPES[step],
        tokens=lambda step: 60,
        padding=lambda step: 0.25,
        clips=lambda step: ["b.wav", "a.wav", "b.wav"],
    )
    stage = StageConfig.from_config(config, "stage1")
    log = MetricsLog(
        SimpleNamespace(name="stage1", stage=stage, batches=batches),
        0,
        SimpleNamespace(log=rows.append),
        SimpleNamespace(log=lambda row: None),
        model=None,
        multiplied=None,
        mesh=None,
    )
    yield log, rows, clock
    log.close()


def test_the_first_update_of_a_shape_does_not_count_for_speed(made):
    """It takes a minute, any other two seconds; a validation takes a day."""
    log, rows, clock = made
    for step, shape in enumerate(SHAPES, start=1):
        log.begin(step)
        clock.now += 60 if shape not in SHAPES[: step - 1] else 2
        log.end(step, report())
        if step == 4:
            log.check()
            clock.now += 86400
            log.add_validation(step, 1.0)
    log.check()
    found = [(row["step"], row.get("tokens_per_second")) for row in rows]
    assert found == [(1, None), (2, 30.0), (4, 30.0), (4, None), (6, 30.0)]
    for row in rows:
        if "loss" in row:
            assert row["padding_share"] == 0.25
        if "tokens_per_second" in row:
            assert row["model_tflops_per_second"] == 3.0
            assert row["model_flop_utilisation"] == 0.25


def test_a_row_has_the_keys_that_are_documented_in_this_order(made):
    """Old programs read new rows, and the file is the same from version to version."""
    log, rows, clock = made
    for step in (1, 2):
        log.begin(step)
        clock.now += 2
        log.end(step, report())
    log.check()
    log.add_validation(2, 0.5)
    assert [*rows[1]] == [
        "stage",
        "step",
        "time",
        "loss",
        "learning_rate",
        "gradient_norm",
        "padding_share",
        "tokens_per_second",
        "model_tflops_per_second",
        "model_flop_utilisation",
    ]
    assert set(rows[1]) == {*UpdateRow.__annotations__}
    assert set(rows[0]) == UpdateRow.__required_keys__
    assert [*rows[2]] == [*ValidationRow.__annotations__]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"loss": float("nan")}, r"the loss is nan .*a\.wav, b\.wav: check them"),
        ({"norm": float("inf")}, r"gradient is inf\. .*a\.wav, b\.wav: check them"),
        (
            {"finite": False},
            r"update 1: the loss is 1\.0, .* of 1\.0e-06 the new adapter contains NaN",
        ),
    ],
)
def test_nan_stops_before_it_is_saved(made, what, message):
    log, rows, _ = made
    log.begin(1)
    with pytest.raises(UserError, match=message):
        log.end(1, report(**what))
    assert not rows


def test_a_validation_loss_of_nan_stops(made):
    log, rows, _ = made
    with pytest.raises(UserError, match=r"after update 3: the validation loss is nan"):
        log.add_validation(3, float("nan"))
    assert not rows

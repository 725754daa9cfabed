"""What is told of a stage while it runs; speeds are of updates, not of compiling."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers.small_run import load_config

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.training import metrics_log as journals
from musilingo_jax.training.metrics_log import MetricsLog
from musilingo_jax.training.stage_config import StageConfig
from musilingo_jax.training.train_step import StepReport

SHAPES = "AABAAB"


def report(loss=1.0, norm=1.0, finite=True):
    return StepReport(*map(np.asarray, (loss, norm, finite)))


@pytest.fixture
def made(monkeypatch):
    """A journal with a row for every second update, its rows, and its clock."""
    config = load_config("tiny").get_config()
    config.stage1.update(steps=6, warmup_steps=1, log_every=2)
    clock, rows = SimpleNamespace(now=0.0), []
    monkeypatch.setattr(journals.time, "monotonic", lambda: clock.now)
    journal = MetricsLog(
        "stage1",
        StageConfig.from_config(config, "stage1"),
        SimpleNamespace(
            shape=lambda step: SHAPES[step],
            tokens=lambda step: 60,
            padding=lambda step: 0.25,
            clips=lambda step: ["b.wav", "a.wav", "b.wav"],
        ),
        SimpleNamespace(log=rows.append),
        SimpleNamespace(log=lambda row: None),
        0,
        flops=lambda step: 6e12,
        peak=12e12,
    )
    yield journal, rows, clock
    journal.close()


def test_the_first_update_of_a_shape_is_no_measure_of_speed(made):
    """It takes a minute, any other two seconds; a look takes a day."""
    journal, rows, clock = made
    for done, shape in enumerate(SHAPES, start=1):
        journal.before(done)
        clock.now += 60 if shape not in SHAPES[: done - 1] else 2
        journal.add(done, report())
        if done == 4:
            journal.look(done, lambda: setattr(clock, "now", clock.now + 86400) or 1.0)
    journal.catch_up()
    told = [(row["step"], row.get("tokens_per_second")) for row in rows]
    assert told == [(1, None), (2, 30.0), (4, 30.0), (4, None), (6, 30.0)]
    for row in rows:
        if "loss" in row:
            assert row["padding_share"] == 0.25
        if "tokens_per_second" in row:
            assert row["model_tflops_per_second"] == 3.0
            assert row["model_flop_utilisation"] == 0.25


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ({"loss": float("nan")}, r"the loss is nan .*a\.wav, b\.wav: look at them"),
        ({"norm": float("inf")}, r"gradient inf, .*a\.wav, b\.wav: look at them"),
        (
            {"finite": False},
            r"update 1: its loss is 1\.0, .* rate of 1\.0e-06 is no number",
        ),
    ],
)
def test_what_is_no_number_stops_before_it_is_saved(made, what, told):
    journal, rows, _ = made
    journal.before(1)
    with pytest.raises(UserError, match=told):
        journal.add(1, report(**what))
    assert not rows

"""The summary counts what was left out and suggests commands with the same config."""

import json
import sys
from unittest.mock import Mock

import pytest
from absl import flags
from helpers.small_run import ROOT, load_config
from ml_collections import config_flags

from musilingo_jax.audio.cache.reader import FeatureCache
from musilingo_jax.training import summary
from musilingo_jax.training.run_folder import RunFolder
from musilingo_jax.training.stage_config import StageConfig

TINY, OWN_SONGS = (ROOT / "configs" / name for name in ("tiny.py", "own_songs.py"))


def parse(*arguments):
    """Flags as a program has them, after it parsed these arguments."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, flag_values=values)
    flags.DEFINE_string("profile", None, "", flag_values=values)
    flags.DEFINE_bool("distributed", False, "", flag_values=values)
    with pytest.MonkeyPatch.context() as patch:
        # Changes of the config are looked for there, whatever is parsed.
        patch.setattr(sys, "argv", ["train", *arguments])
        values(sys.argv)
    return values


@pytest.mark.parametrize(
    ("typed", "suggested"),
    [
        ([f"--config={TINY}", "--profile=2:2"], [f"--config={TINY}"]),
        (["--profile", "2:2", "--config", f"{TINY}"], [f"--config={TINY}"]),
        (
            ["--distributed", f"--config={TINY}", "--config.run", "profile"],
            [f"--config={TINY}", "--config.run=profile"],
        ),
        (
            [f"--config={OWN_SONGS}:a.jsonl", "--nodistributed", "-config.run", "a b"],
            [f"--config={OWN_SONGS}:a.jsonl", "--config.run=a b"],
        ),
        (
            [
                f"--config={TINY}",
                "--config.stages=('stage2',)",
                "--noconfig.features.allow_missing",
                "--config.stage2.learning_rate=1e-3",
                "--config.generate.stop=###",
                "--config.generate.stop=a, b",
            ],
            [
                f"--config={TINY}",
                "--config.stages=('stage2',)",
                "--config.features.allow_missing=False",
                "--config.stage2.learning_rate=0.001",
                "--config.generate.stop=('###', 'a, b')",
            ],
        ),
    ],
)
def test_the_suggested_arguments_give_the_same_config(typed, suggested):
    values = parse(*typed)
    assert summary.config_arguments(values) == suggested
    assert parse(*suggested).config.to_dict() == values.config.to_dict()


@pytest.fixture
def run(tmp_path):
    """The folder of a run of one stage that left something of each kind out."""
    config = load_config("tiny").get_config()
    config.run, config.stages = str(tmp_path / "a run"), ("stage1",)
    run = RunFolder(config)
    counts = {
        "clips": 2,
        "examples": 3,
        "repeated": 10,
        "cut": 4,
        "too_long": 5,
        "without_audio": 6,
        "validation_examples": 1,
        "validation_too_long": 8,
        "validation_without_audio": 9,
    }
    run.write("stage1/examples.json", json.dumps(counts))
    for step, loss in ((1, 3.0), (2, 1.5)):
        run.log({"stage": "stage1", "step": step, "time": 0.0, "loss": loss})
    for step, loss in ((1, 2.25), (2, 1.75), (3, 1.75), (4, 2.0)):
        row = {"stage": "stage1", "step": step, "time": 0.0, "validation_loss": loss}
        run.log(row)
    return run


def describe(run, typed):
    stage = StageConfig.from_config(load_config("tiny").get_config(), "stage1")
    features = Mock(FeatureCache, skipped={"a": "a.wav: is empty", "b": "elsewhere"})
    return summary.describe(
        run,
        {"stage1": stage},
        features,
        ["a", "c"],
        unused=7,
        seconds=3723,
        typed=typed,
    )


def test_the_summary_counts_what_was_left_out(run):
    text = describe(run, [])
    assert "loss 3.000 → 1.500" in text
    assert "10 examples are duplicates" in text
    assert "4 answers were cut to 32 tokens" in text
    assert "5 examples longer than 64 tokens were left out" in text
    assert "6 examples were left out because their clip" in text
    assert "8 validation examples longer than 64 tokens were left out" in text
    assert "9 validation examples were left out because their clip" in text
    assert "7 records of the training split were not used" in text
    assert "a.wav: is empty" in text
    assert "elsewhere" not in text
    assert "1 h 2 min 3 s" in text


def test_the_lowest_of_equal_losses_is_the_later_one(run):
    text = describe(run, [])
    line = "validation loss on 1 examples: 2.250 → 2.000; lowest 1.750 after update 3"
    assert line in text
    assert str(run.path / "adapter-best") in text


def test_suggested_commands_are_quoted(run):
    text = describe(run, ["--config=x.py", "--config.run=a run"])
    config = "--config=x.py '--config.run=a run'"
    assert f"python -m musilingo_jax.evaluate {config}\n" in text
    assert f"generate {config} --out='{run.path}/answers.jsonl'\n" in text
    assert f"chat SONG.wav --run='{run.path}'\n" in text
    assert "evaluate" not in describe(run, [])

"""Every config builds, makes models and stages, and refuses keys that nothing reads."""

import sys

import jax
import pytest
from absl import flags
from ml_collections import config_flags
from small_run import ROOT, load_config

from musilingo_jax.errors import UserError
from musilingo_jax.features import FeatureConfig
from musilingo_jax.runs import RunFolder
from musilingo_jax.sharding import make_mesh
from musilingo_jax.stages import StageConfig

# The recipe of the embedded model is another kind of experiment.
NAMES = sorted(
    path.stem
    for path in (ROOT / "configs").glob("*.py")
    if hasattr(load_config(path.stem).get_config(), "stages")
)


@pytest.fixture
def parse(monkeypatch):
    """Makes a config as from a command line."""

    def parse(*values):
        # Overrides are looked for there, whatever is parsed.
        monkeypatch.setattr(sys, "argv", ["train", *values])
        holder = flags.FlagValues()
        config = config_flags.DEFINE_config_file(
            "config", lock_config=True, flag_values=holder
        )
        holder(sys.argv)
        return config.value

    return parse


def path(name):
    return f"--config={ROOT / 'configs' / name}.py"


def test_there_are_configs():
    assert {"tiny", "own_songs"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_config_builds(parse, name, tmp_path):
    config = parse(path(name), f"--config.run={tmp_path}")
    mesh = make_mesh(**config.mesh)
    FeatureConfig.from_config(config)
    assert config.stages
    for stage_name in config.stages:
        stage = StageConfig.from_config(config, stage_name)
        stage.check_rows(stage_name, mesh)
        jax.eval_shape(stage.optimiser().init, {"kernel": jax.numpy.zeros((2, 2))})
    RunFolder(config).claim({})  # As JSON.
    doc = load_config(name).__doc__
    assert f"--config=configs/{name}.py" in doc


@pytest.mark.parametrize("name", NAMES)
def test_learning_rate_goes_up_and_down(name):
    config = load_config(name).get_config()
    for stage_name in config.stages:
        stage = StageConfig.from_config(config, stage_name)
        rate = stage.schedule()
        expected = {
            0: stage.warmup_learning_rate,
            stage.warmup_steps / 2: (stage.warmup_learning_rate + stage.learning_rate)
            / 2,
            stage.warmup_steps: stage.learning_rate,
            stage.steps: stage.final_learning_rate,
        }
        found = [float(rate(step)) for step in expected]
        assert found == pytest.approx(list(expected.values()), rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_cache_follows_the_run_folder(parse, name):
    config = parse(path(name), "--config.run=elsewhere")
    assert config.features.cache == "elsewhere/cache"


@pytest.mark.parametrize("key", ["stage2.stepz", "nonsense", "features.window"])
def test_unknown_key_of_the_command_line_is_refused(parse, key):
    with pytest.raises(AttributeError, match=key.split(".")[-1]):
        parse(path("tiny"), f"--config.{key}=3")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("stage2.stepz", 3, "config.stage2 has stepz, which nothing reads"),
        ("stage2.prompt.sign", "", "config.stage2.prompt has sign"),
        ("stage2.questions", "some", "choose one of captions, questions, all"),
        ("stage2.steps", 0, "config.stage2.steps is 0"),
        ("stage2.warmup_steps", 999, "must be less than steps"),
        ("stage2.batch_size", -4, "config.stage2.batch_size is -4"),
        ("stages", ("stage3",), "no such section"),
    ],
)
def test_wrong_stage_is_refused(key, value, message):
    config = load_config("tiny").get_config()
    *sections, last = key.split(".")
    section = config
    for name in sections:
        section = section[name]
    section[last] = value
    with pytest.raises(UserError, match=message):
        StageConfig.from_config(config, config.stages[-1])


def test_missing_key_is_named():
    config = load_config("tiny").get_config()
    del config.stage1.weight_decay
    with pytest.raises(UserError, match="config.stage1 lacks weight_decay"):
        StageConfig.from_config(config, "stage1")


def test_own_songs_takes_the_path_as_argument(parse):
    config = parse(path("own_songs") + ":some/songs.jsonl")
    assert config.corpus.path == "some/songs.jsonl"

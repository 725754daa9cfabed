"""Whatever a run's config.json holds, reading it gives a value or a sentence."""

import json

import pytest
from helpers.small_run import load_config
from hypothesis import given, settings
from hypothesis import strategies as st

from musilingo_jax.answering.usage import Usage
from musilingo_jax.audio.cache.feature_cache import CacheConfig
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import json_lines, read_any_json, read_json
from musilingo_jax.runtime.settings import make_config
from musilingo_jax.runtime.top_level import TopLevel, check_top_level
from musilingo_jax.training import metrics_rows, run_folder
from musilingo_jax.training.run_folder import RunFolder
from musilingo_jax.training.stage_config import read_stages

pytestmark = pytest.mark.medium

CONFIG = json.loads(load_config("tiny").get_config().to_json_best_effort())


def paths_within(value, path=()):
    """Where values are within a value of JSON."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from paths_within(value[key], (*path, key))


def replaced(value, path, new):
    if not path:
        return new
    changed = value.copy()
    changed[path[0]] = replaced(value[path[0]], path[1:], new)
    return changed


# What json.loads makes of JSON, halves of surrogate pairs and huge numbers included.
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["stage1", "a\0b", "\ud800", "__class__", "a.b", "pooled", ""])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.just("__class__"), inner, max_size=3)
    ),
    max_leaves=6,
)
changed_configs = st.builds(
    replaced, st.just(CONFIG), st.sampled_from(list(paths_within(CONFIG))), values
)


def train_with(content):
    """What `train` reads of a config before any work."""
    config = make_config(content, "config.json")
    keys = [name for name in TopLevel.__dataclass_fields__ if name in CONFIG]
    check_top_level(config, keys, "config")
    read_stages(config)
    CacheConfig.from_config(config)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(changed_configs)
def test_any_value_in_place_of_any_other_is_read_or_refused(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp() / "run-with-any-config"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(content))
    for read in (lambda: Usage.of(folder, None), lambda: train_with(content)):
        try:
            read()
        except UserError as error:
            assert len(str(error)) < 2_000


@settings(max_examples=50, deadline=None, derandomize=True)
@given(changed_configs.filter(lambda content: isinstance(content, dict)), values)
def test_a_run_is_compared_with_whatever_its_files_hold(
    tmp_path_factory, content, inputs
):
    folder = tmp_path_factory.getbasetemp() / "run-to-resume"
    (folder / "stage1/checkpoints/1").mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "inputs.json").write_text(json.dumps(inputs))
    run = RunFolder(make_config(CONFIG | {"run": str(folder)}, "config"))
    try:
        run.claim({"records": "x"})
    except UserError as error:
        assert str(folder) in str(error)
    else:
        assert inputs == {"records": "x"}


def test_the_config_itself_is_read():
    train_with(CONFIG)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=30) | values.map(lambda v: json.dumps(v).encode()))
def test_any_bytes_are_a_value_or_a_sentence(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(content)
    for read in (read_json, read_any_json, lambda path: list(json_lines(path))):
        try:
            read(path)
        except UserError as error:
            assert "any.json" in str(error)
    metrics_rows.parse(content)


ROW = {"stage": "a", "step": 1, "time": 2.0, "loss": 3.0, "learning_rate": 1e-3}


@pytest.mark.parametrize("key", ROW)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(value=values)
def test_a_row_of_metrics_is_whole_or_damaged(key, value):
    row = metrics_rows.parse(json.dumps(ROW | {key: value}).encode())
    if row is not None:
        assert all(
            abs(number) < 2**63 for name, number in row.items() if name != "stage"
        )
        assert isinstance(row["stage"], str) and isinstance(row["step"], int)


def test_a_row_with_nan_is_damaged():
    assert metrics_rows.parse(json.dumps(ROW).encode()) == ROW
    for value in (float("nan"), float("inf"), "x", None, True, [1]):
        assert metrics_rows.parse(json.dumps(ROW | {"extra": value}).encode()) is None


def test_older_settings_are_filled_in_whatever_the_stages_are():
    for stages in (3, None, "stage1", [["stage1"]], [None], {"stage1": 1}):
        settled = run_folder._settings(CONFIG | {"stages": stages})
        assert settled["stages"] == stages

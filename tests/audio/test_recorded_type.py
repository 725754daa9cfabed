"""The type of numbers that "auto" becomes is decided once, and then recorded."""

import json

import jax
import pytest
from helpers import processors
from helpers.small_cache import ALL, files, write_songs
from ml_collections import ConfigDict

from musilingo_jax import cache
from musilingo_jax.audio.cache import feature_cache, recorded_type
from musilingo_jax.audio.cache.identity import Identity
from musilingo_jax.corpora import songs
from musilingo_jax.jobs.engine import THIS_PROCESS
from musilingo_jax.jobs.share import Share
from musilingo_jax.pretrained import weights
from musilingo_jax.runtime import processor
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.sharding import make_mesh

pytestmark = pytest.mark.medium


@pytest.fixture
def on(monkeypatch):
    """Makes this machine's processor pass for another."""

    def on(cpuinfo):
        monkeypatch.setattr(processor, "cpuinfo", lambda: cpuinfo)

    on(processors.AVX2)
    return on


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, mert):
    folder = tmp_path_factory.mktemp("encoder")
    weights.save_encoder(mert, folder, dtype="float32")
    return folder


@pytest.fixture
def make(tmp_path, encoder):
    """Makes the config of a job, as each task of it reads it."""
    write_songs(tmp_path / "songs", 5)

    def make(dtype="auto", name="cache"):
        return ConfigDict(
            {
                "run": str(tmp_path / "run"),
                "model": {
                    "encoder": str(encoder),
                    "language_model": "musilingo-tiny",
                    "dtype": dtype,
                },
                "corpus": {"path": str(tmp_path / "songs/songs.jsonl")},
                "features": {
                    "window_frames": 10,
                    "chunk_windows": 2,
                    "batch_size": 2,
                    "reduction": "pooled",
                    "shard_clips": 2,
                    "cache": str(tmp_path / name),
                    "allow_missing": False,
                },
                "mesh": {"data": 1, "fsdp": 1, "tensor": 1},
            }
        )

    return make


def fill(config, share=ALL):
    clips = feature_cache.clips_of(songs.load(config.corpus.path))
    return cache._fill(config, clips, share, THIS_PROCESS, retry=False)


def record_run(config, **content):
    folder = config.run
    described = {"model": {"dtype": "bfloat16"}, "stages": ["stage2"]} | content
    feature_cache.paths.open_folder(folder).mkdir()
    path = feature_cache.paths.open_folder(folder) / "config.json"
    path.write_text(json.dumps(described))


def test_a_type_stays_as_it_is(make, on):
    for dtype in ("float32", "bfloat16", "float16"):
        config = make(dtype)
        assert not recorded_type.settle(config)
        assert config.model.dtype == dtype


@pytest.mark.parametrize("dtype", ["bf16", None, "Auto"])
def test_what_is_no_type_is_refused(make, dtype):
    with pytest.raises(UserError, match=r"config.model.dtype is .*"):
        recorded_type.settle(make(dtype))


def test_the_message_names_auto(make):
    with pytest.raises(UserError, match="choose one of 'float32', .*, 'auto'"):
        recorded_type.settle(make("bf16"))


def test_auto_never_becomes_an_identity(make, on):
    """Whoever forgets to replace it gets a message, not a digest."""
    with pytest.raises(UserError, match="dtype is 'auto': choose one of"):
        Identity.of(make())


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [(processors.AVX2, "float32"), (processors.AVX512_BF16, "bfloat16")],
)
def test_a_new_cache_has_the_type_of_the_machine(make, on, cpuinfo, expected):
    on(cpuinfo)
    config = make()
    state = fill(config)
    assert state.plans.identity["dtype"] == config.model.dtype == expected
    assert {note["identity"]["dtype"] for note in state.notes.values()} == {expected}
    assert Identity.of(config).stored() == state.plans.identity


def test_the_files_are_those_of_a_config_that_says_the_type(make, on, tmp_path):
    fill(make())
    fill(make("float32", name="said"))
    assert files(tmp_path / "cache") == files(tmp_path / "said")


def test_the_second_task_takes_the_first_one_s_type(make, on):
    first = fill(make(), Share(0, 2))
    assert first.unfinished == [1]
    on(processors.AVX512_BF16)
    config = make()
    second = fill(config, Share(1, 2))
    assert config.model.dtype == "float32"
    assert not second.unfinished
    assert second.plans.identity == first.plans.identity


def test_of_tasks_that_start_together_the_first_plan_decides(make, on, monkeypatch):
    """The other task plans when this one has looked for a plan and found none."""
    settle = recorded_type.settle

    def settle_and_wait(config, parts):
        settled = settle(config, parts)
        monkeypatch.setattr(recorded_type, "settle", settle)
        on(processors.AVX512_BF16)
        fill(make(), Share(0, 2))
        return settled

    monkeypatch.setattr(recorded_type, "settle", settle_and_wait)
    config = make()
    state = fill(config, Share(1, 2))
    assert config.model.dtype == state.plans.identity["dtype"] == "bfloat16"
    assert not state.unfinished


def test_a_type_that_was_given_is_not_given_up(make, on):
    fill(make())
    with pytest.raises(UserError, match="made with dtype float32, not bfloat16"):
        fill(make("bfloat16"))


def test_other_refusals_are_as_before(make, on):
    fill(make())
    config = make()
    config.features.window_frames = 5
    with pytest.raises(UserError, match="made with window_frames 10, not 5"):
        fill(config)


def test_a_run_takes_the_type_of_its_cache(make, on):
    """The features must be of one type, so the one that is there decides."""
    on(processors.AVX512_BF16)
    fill(make())
    on(processors.AVX2)
    config = make()
    assert recorded_type.settle(config)
    assert config.model.dtype == "bfloat16"
    records = songs.load(config.corpus.path)
    found = feature_cache.prepare(config, records, make_mesh(1, 1, 1))
    assert len(found.ids) == 5


def test_a_cache_of_a_type_that_is_too_large_is_told(make, on, monkeypatch, capsys):
    fill(make())
    monkeypatch.setattr(processor, "available_memory", lambda: 1000)
    config = make()
    recorded_type.settle(config)
    assert config.model.dtype == "float32"
    told = capsys.readouterr().err
    assert "is float32, as in" in told and "give another --config.features.c" in told


def test_a_run_keeps_its_type(make, on):
    config = make()
    record_run(config)
    recorded_type.settle(config)
    assert config.model.dtype == "bfloat16"


@pytest.mark.parametrize("dtype", ["auto", "f32", None])
def test_a_run_without_a_type_is_refused(make, on, dtype):
    config = make()
    record_run(config, model={"dtype": dtype})
    with pytest.raises(UserError, match="run/config.json: model.dtype is .* restore"):
        recorded_type.settle(config)


def test_a_folder_that_is_no_run_records_nothing(make, on):
    config = make()
    record_run(config, stages=["stage2"], model=3)
    recorded_type.settle(config)
    assert config.model.dtype == "float32"


@pytest.mark.parametrize(("process", "expected"), [(0, "float32"), (1, "bfloat16")])
def test_the_first_process_decides_for_all(make, on, monkeypatch, process, expected):
    """A stand-in for the others: what process 0 has sent is bfloat16."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: process)
    sent = []

    def broadcast(number):
        sent.append(int(number))
        return number if process == 0 else recorded_type.DTYPES.index("bfloat16")

    monkeypatch.setattr(
        recorded_type.multihost_utils, "broadcast_one_to_all", broadcast
    )
    config = make()
    recorded_type.settle(config)
    assert config.model.dtype == expected
    assert len(sent) == 1

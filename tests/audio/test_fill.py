"""The job that fills a cache: any share of it, killed, out of space, in a bucket."""

import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict

import numpy as np
import pytest
from etils import epath
from etils.epath import backend
from fsspec.implementations.local import LocalFileSystem
from helpers.small_cache import (
    FEATURES,
    IDENTITY,
    contents,
    files,
    fill,
    heard,
    tiny_mert,
    write_songs,
)
from helpers.small_run import ROOT, load_config

from musilingo_jax.audio.cache import export, feature_cache, shard_plan, shards
from musilingo_jax.audio.cache.fill import Share
from musilingo_jax.audio.cache.reader import FeatureCache
from musilingo_jax.audio.features import FeatureConfig
from musilingo_jax.pretrained import weights
from musilingo_jax.runtime import paths
from musilingo_jax.runtime.errors import UsageError, UserError

CONFIG = """
from ml_collections import ConfigDict

def get_config():
    return ConfigDict({values})
"""
# The program, with files that take their time.
PROGRAM = """
import runpy, sys, time
from musilingo_jax.audio import waveforms
read = waveforms.read
def slow(path, **rest):
    time.sleep(0.03)
    yield from read(path, **rest)
waveforms.read = slow
where, *sys.argv[1:] = sys.argv[1:]
if where:
    import jax
    address, process = where.split("/")
    jax.distributed.initialize(address, 2, int(process))
runpy.run_module("musilingo_jax.cache", run_name="__main__")
"""


@pytest.fixture(scope="module")
def mert():
    return tiny_mert()


@pytest.mark.parametrize("tasks", [2, 4])
def test_any_number_of_tasks_makes_the_same_files(tmp_path, mert, tasks):
    clips = write_songs(tmp_path / "songs", 17)
    clips[4].path.write_bytes(b"no sound")
    fill(clips, mert, tmp_path / "one")
    order = random.Random(tasks).sample(range(tasks), tasks)
    for task in order:
        assert not (tmp_path / "many" / shards.SHARD_INDEX).exists()
        fill(clips, mert, tmp_path / "many", share=Share(task, tasks))
    one, many = files(tmp_path / "one"), files(tmp_path / "many")
    assert len(one) == 2 + 2 * 6
    assert one == many


def test_clips_that_are_added_keep_the_shards_that_there_are(tmp_path, mert):
    clips = write_songs(tmp_path / "songs", 8)
    fill(clips[2:6], mert, tmp_path / "cache")
    before = files(tmp_path / "cache")
    before.pop(epath.Path(shards.SHARD_INDEX))
    # Another size of shards counts for the new ones, by tasks of which one comes late.
    for task in (1, 0):
        share = Share(task, 2)
        fill(clips, mert, tmp_path / "cache", share=share, shard_clips=2)
    assert before.items() <= files(tmp_path / "cache").items()
    state = shards.read(epath.Path(tmp_path / "cache"), None)
    names = [[clip[:2] for clip in shard] for shard in state.plans.shards]
    assert names == [["02", "03", "04"], ["05"], ["00", "01"], ["06", "07"]]


def test_a_complete_cache_says_so_and_another_how_far_it_is(tmp_path, mert):
    clips = write_songs(tmp_path / "songs", 7)
    folder = tmp_path / "cache"
    assert fill(clips, mert, folder, share=Share(1, 2)) is None
    with pytest.raises(UserError, match="1 of 3 shards are finished; run `python -m"):
        FeatureCache.open(folder, asdict(IDENTITY))
    told, problem = feature_cache.inspection(epath.Path(folder))
    assert "unfinished shards: 0, 2" in told and "encoder          tiny" in told
    assert "1 of 3 shards are finished; run `python -m" in problem
    fill(clips, mert, folder, share=Share(0, 2))
    told, problem = feature_cache.inspection(epath.Path(folder))
    assert problem is None
    assert "3 of 3 shards are finished" in told and "unfinished" not in told
    seconds = sum(0.5 + 0.1 * n for n in range(7))
    assert f"{seconds / 3600:.2f}" in told


def test_clips_that_left_the_corpus_do_not_hold_up_a_job(tmp_path, mert, monkeypatch):
    clips = write_songs(tmp_path / "songs", 6)
    folder = tmp_path / "cache"
    fill(clips, mert, folder, share=Share(1, 2))  # Plans 0, 1, 2 as shard 0.
    clips[1].path.unlink()
    found = fill([clips[0], *clips[2:]], mert, folder)
    assert set(found.ids) == {clip.id for clip in clips} - {"01.wav"}
    assert not found.skipped
    write_songs(tmp_path / "songs", 6)
    names = heard(monkeypatch)
    assert len(fill(clips, mert, folder).ids) == 6 and names == ["01.wav"]


def test_the_first_of_several_plans_counts(tmp_path):
    folder, identity = epath.Path(tmp_path), {"format": 2}
    none = shard_plan.read(folder)
    assert none.shards == () and none.identity is None
    shard_plan.add(folder, identity, none, ["a", "b", "c"], shard_clips=2)
    shard_plan.add(folder, identity, none, ["x"], shard_clips=2)
    plans = shard_plan.read(folder)
    assert plans.shards == (("a", "b"), ("c",)) and plans.identity == identity
    for number in range(11):
        plans = shard_plan.read(folder)
        shard_plan.add(folder, identity, plans, [str(number)], shard_clips=2)
    assert [clip for (clip,) in shard_plan.read(folder).shards[2:]] == [
        str(number) for number in range(11)
    ]


def test_a_full_disk_is_told_and_what_was_finished_is_kept(tmp_path, mert, monkeypatch):
    clips = write_songs(tmp_path / "songs", 6)
    folder = tmp_path / "cache"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    publish = shards.ShardWriter.finish
    monkeypatch.setattr(
        shards.ShardWriter,
        "finish",
        lambda self, note: (
            publish(self, note),
            # As if this had been the last room: no file may be larger from now on.
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1])),
        ),
    )
    try:
        with pytest.raises(UserError, match=r"cannot be written \(.*kept. Make room"):
            fill(clips, mert, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    state = shards.read(epath.Path(folder), None)
    assert state.unfinished == [1] and not list(folder.glob("*.partial"))
    monkeypatch.undo()
    names = heard(monkeypatch)
    fill(clips, mert, folder)
    assert sorted(names) == ["03.wav", "04.wav", "05.wav"]
    fill(clips, mert, tmp_path / "whole")
    assert files(folder) == files(tmp_path / "whole")


class Bucket(LocalFileSystem):
    """Stands for the file system behind `gs://`: a folder."""

    cachable = False
    folder = None

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).replace("gs://", f"{cls.folder}/"))


def test_a_cache_in_a_bucket(tmp_path, mert, monkeypatch, capsys):
    monkeypatch.setattr(Bucket, "folder", tmp_path / "store")
    bucket = Bucket(auto_mkdir=False)
    monkeypatch.setattr(backend.fsspec_backend, "_get_filesystem", lambda name: bucket)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    clips = write_songs(tmp_path / "songs", 7)
    for task in (1, 0):
        found = fill(clips, mert, "gs://bucket/cache", share=Share(task, 2))
    fill(clips, mert, tmp_path / "local")
    assert files(tmp_path / "store/bucket/cache") == files(tmp_path / "local")

    found.fetch(clip.id for clip in clips[:5])
    told = capsys.readouterr().err
    assert "copying 2 shards (" in told and f"to {tmp_path / 'home'}" in told
    local = FeatureCache.open(tmp_path / "local", asdict(IDENTITY))
    assert contents(found) == contents(local)  # The third is copied when it is needed.
    monkeypatch.setattr(epath.Path, "copy", None)
    again = FeatureCache.open("gs://bucket/cache", asdict(IDENTITY))
    again.fetch(again.ids)
    assert contents(again) == contents(local)
    assert "copying" not in capsys.readouterr().err


def test_a_bucket_that_cannot_be_reached_is_told(monkeypatch):
    def without_gcsfs(name):
        raise ImportError("Install gcsfs to access Google Storage")

    monkeypatch.setattr(backend.fsspec_backend, "_get_filesystem", without_gcsfs)
    with pytest.raises(UserError, match=r"gs://bucket/x: cannot be reached \(Install"):
        paths.open_folder("gs://bucket/x")


def test_export(tmp_path, mert, capsys, monkeypatch):
    monkeypatch.setattr(export, "_AT_ONCE", 3)
    clips = write_songs(tmp_path / "songs", 7)
    found = fill(clips, mert, tmp_path / "cache")
    export.export(found, tmp_path / "out/x.npz")
    assert "7 clips in" in capsys.readouterr().out
    with np.load(tmp_path / "out/x.npz") as file:
        assert file["clip"].tolist() == [clip.id for clip in clips]
        assert file["path"].tolist() == [str(clip.path) for clip in clips]
        np.testing.assert_allclose(file["seconds"], 0.5 + 0.1 * np.arange(7))
        for number, clip in enumerate(clips):
            rows = slice(*file["start"][number : number + 2])
            expected = found.features(clip.id)
            np.testing.assert_array_equal(file["embedding"][rows], expected)
    with pytest.raises(UsageError, match=r"x\.csv: must end in .parquet or .npz"):
        export.export(found, tmp_path / "x.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"x\.npz: cannot be written"):
        export.export(found, tmp_path / "file/x.npz")

    parquet = pytest.importorskip("pyarrow.parquet")
    export.export(found, tmp_path / "x.parquet")
    rows = parquet.read_table(tmp_path / "x.parquet").to_pylist()
    assert [row["clip"] for row in rows] == [clip.id for clip in clips]
    for row in rows:
        np.testing.assert_array_equal(row["embedding"], found.features(row["clip"]))


@pytest.mark.parametrize("name", ["tiny", "mert_330m"])
def test_configs_of_jobs(name):
    module = load_config(f"features/{name}")
    config = module.get_config("a/corpus")
    assert set(config) == {"model", "corpus", "features", "mesh"}
    assert config.corpus.path == "a/corpus" and config.features.shard_clips > 0
    assert FeatureConfig.from_config(config).reduction == "pooled"
    assert f"--config=configs/features/{name}.py" in module.__doc__


@pytest.fixture(scope="module")
def job(tmp_path_factory, mert):
    """A corpus with a bad song, a config, and what one process makes of it."""
    folder = tmp_path_factory.mktemp("job")
    write_songs(folder / "songs", 20)
    (folder / "songs/04.wav").write_bytes(b"no sound at all")
    weights.save_encoder(mert, folder / "encoder", dtype="float32")
    values = {
        "model": {"encoder": str(folder / "encoder"), "dtype": "float32"},
        "corpus": {"path": str(folder / "songs/songs.jsonl")},
        "features": {
            **asdict(FEATURES),
            "cache": str(folder / "whole"),
            "shard_clips": 3,
            "allow_missing": False,
        },
        "mesh": {"data": 1, "fsdp": 1, "tensor": 1},
    }
    (folder / "config.py").write_text(CONFIG.format(values=values))
    status, out, err = finish(start(folder, "whole"))
    assert status == 1, err
    assert "error: 1 of 20 songs cannot be read" in err and "04.wav: " in err
    assert "19 clips, 0.01 h" in out and "1 skipped\n" in out
    return folder


def start(folder, name, *flags, where=""):
    compiled = {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    config = f"--config={folder / 'config.py'}"
    place = f"--config.features.cache={folder / name}"
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, where, config, place, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | compiled,
    )


def finish(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_killed_at_any_moment_it_goes_on_to_the_same_files(job):
    folder, moments = job / "killed", random.Random(0)
    for notes in (1, 3, 5):
        child = start(job, "killed")
        before = finished(folder)
        while child.poll() is None and len(finished(folder)) < notes:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.1))
        child.send_signal(signal.SIGKILL)
        finish(child)
        assert child.returncode == -signal.SIGKILL
        kept = finished(folder)
        assert len(kept) >= notes and before.items() <= kept.items()
    # Half a shard, as a kill in the middle of a write leaves it.
    half = f"00000006.array_record.{socket.gethostname()}-{child.pid}.partial"
    (folder / half).write_bytes(b"half")
    status, out, err = finish(start(job, "killed", "--allow_missing"))
    assert status == 0, err
    assert kept.items() <= finished(folder).items()
    assert files(folder) == files(job / "whole")


def finished(folder):
    """Notes of shards, with what would change if they were made again."""
    notes = folder.glob("0*.json")
    return {path.name: path.stat().st_mtime_ns for path in notes}


def test_two_processes_of_one_program_make_the_same_files(job):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    both = [start(job, "both", where=f"{address}/{process}") for process in (0, 1)]
    ends = [finish(process) for process in both]
    for status, _, err in ends:
        assert status == 1 and "1 of 20 songs cannot be read" in err, err
    assert "19 clips" in ends[0][1] and "clips" not in ends[1][1]
    assert files(job / "both") == files(job / "whole")


def test_tasks_of_a_job_array_and_wrong_flags(job):
    children = [
        start(job, "array", "--task=1", "--tasks=2"),
        start(job, "array", "--task=2", "--tasks=2"),
        start(job, "array", "--retry", "--tasks=2"),
    ]
    (status, out, err), counted, retried = map(finish, children)
    # The song that cannot be read is in shard 1.
    assert status == 1 and "1 of 9 songs cannot be read" in err
    assert "task 1 of 2 is done; 3 of 7 shards are finished" in out
    assert counted[0] == 2 and "must be from 0 to 1" in counted[2]
    assert retried[0] == 2 and "start it once, without --tasks" in retried[2]

"""The job that fills a cache: any share of it, killed, out of space, in a bucket."""

import random
import resource

import numpy as np
import pytest
from etils import epath
from etils.epath import backend
from fsspec.implementations.local import LocalFileSystem
from helpers.small_cache import (
    IDENTITY,
    contents,
    files,
    fill,
    record_reads,
    write_songs,
)
from helpers.small_run import load_config

from musilingo_jax.audio.cache import (
    cache_state,
    description,
    export,
    shards,
)
from musilingo_jax.audio.cache.reader import FeatureCache
from musilingo_jax.audio.features import FeatureConfig
from musilingo_jax.jobs import shard_plan
from musilingo_jax.jobs.share import Share
from musilingo_jax.runtime import paths
from musilingo_jax.runtime.errors import UsageError, UserError


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


def test_added_clips_leave_the_existing_shards_as_they_are(tmp_path, mert):
    clips = write_songs(tmp_path / "songs", 8)
    fill(clips[2:6], mert, tmp_path / "cache")
    before = files(tmp_path / "cache")
    before.pop(epath.Path(shards.SHARD_INDEX))
    # Another size of shards counts for the new ones, by tasks of which one comes late.
    for task in (1, 0):
        share = Share(task, 2)
        fill(clips, mert, tmp_path / "cache", share=share, shard_clips=2)
    assert before.items() <= files(tmp_path / "cache").items()
    state = cache_state.read(epath.Path(tmp_path / "cache"), None)
    names = [[clip[:2] for clip in shard] for shard in state.plans.shards]
    assert names == [["02", "03", "04"], ["05"], ["00", "01"], ["06", "07"]]


def test_whether_a_cache_is_complete_and_how_far_it_is(tmp_path, mert):
    clips = write_songs(tmp_path / "songs", 7)
    folder = tmp_path / "cache"
    assert fill(clips, mert, folder, share=Share(1, 2)) is None
    with pytest.raises(UserError, match="1 of 3 shards are finished; run `python -m"):
        FeatureCache.open(folder, IDENTITY)
    text, problem = description.inspection(epath.Path(folder))
    assert "unfinished shards: 0, 2" in text and "encoder          tiny" in text
    assert "1 of 3 shards are finished; run `python -m" in problem
    fill(clips, mert, folder, share=Share(0, 2))
    text, problem = description.inspection(epath.Path(folder))
    assert problem is None
    assert "3 of 3 shards are finished" in text and "unfinished" not in text
    seconds = sum(0.5 + 0.1 * n for n in range(7))
    assert f"{seconds / 3600:.2f}" in text


def test_clips_that_left_the_corpus_do_not_hold_up_a_job(tmp_path, mert, monkeypatch):
    clips = write_songs(tmp_path / "songs", 6)
    folder = tmp_path / "cache"
    fill(clips, mert, folder, share=Share(1, 2))  # Plans 0, 1, 2 as shard 0.
    clips[1].path.unlink()
    found = fill([clips[0], *clips[2:]], mert, folder)
    assert set(found.ids) == {clip.id for clip in clips} - {"01.wav"}
    assert not found.skipped
    write_songs(tmp_path / "songs", 6)
    names = record_reads(monkeypatch)
    assert len(fill(clips, mert, folder).ids) == 6 and names == ["01.wav"]


def test_the_first_of_several_plans_counts(tmp_path):
    folder, identity = epath.Path(tmp_path), IDENTITY.stored()
    none = shard_plan.read(folder)
    assert none.shards == () and none.identity is None
    shard_plan.add(folder, identity, none, ["a", "b", "c"], shard_items=2)
    shard_plan.add(folder, identity, none, ["x"], shard_items=2)
    plans = shard_plan.read(folder)
    assert plans.shards == (("a", "b"), ("c",)) and plans.identity == identity
    for number in range(11):
        plans = shard_plan.read(folder)
        shard_plan.add(folder, identity, plans, [str(number)], shard_items=2)
    assert [clip for (clip,) in shard_plan.read(folder).shards[2:]] == [
        str(number) for number in range(11)
    ]


def test_a_full_disk_is_reported_and_finished_shards_are_kept(
    tmp_path, mert, monkeypatch
):
    clips = write_songs(tmp_path / "songs", 6)
    folder = tmp_path / "cache"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    publish = shards.ShardWriter.finish
    monkeypatch.setattr(
        shards.ShardWriter,
        "finish",
        lambda self: (
            publish(self),
            # As if this had been the last room: no file may be larger from now on.
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1])),
        ),
    )
    try:
        with pytest.raises(UserError, match=r"no space left \(.*: free some and run"):
            fill(clips, mert, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    state = cache_state.read(epath.Path(folder), None)
    assert state.unfinished == [1] and not list(folder.glob("*.partial"))
    monkeypatch.undo()
    names = record_reads(monkeypatch)
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
    text = capsys.readouterr().err
    assert "copying 2 shards (" in text and f"to {tmp_path / 'home'}" in text
    local = FeatureCache.open(tmp_path / "local", IDENTITY)
    assert contents(found) == contents(local)  # The third is copied when it is needed.
    monkeypatch.setattr(epath.Path, "copy", None)
    again = FeatureCache.open("gs://bucket/cache", IDENTITY)
    again.fetch(again.ids)
    assert contents(again) == contents(local)
    assert "copying" not in capsys.readouterr().err


def test_a_bucket_that_cannot_be_reached_is_reported(monkeypatch):
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

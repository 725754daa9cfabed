"""What goes wrong around a cache: files that change, damage, names, other programs."""

import errno
import json
import os
import socket
import subprocess
import time
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from etils import epath
from helpers.small_cache import (
    IDENTITY,
    RATE,
    contents,
    files,
    fill,
    record_reads,
    write_songs,
)

from musilingo_jax import cache
from musilingo_jax.audio import waveforms
from musilingo_jax.audio.cache import (
    cache_state,
    description,
    export,
    feature_cache,
    shards,
)
from musilingo_jax.audio.cache import fill as cache_job
from musilingo_jax.audio.cache.clips import Clip
from musilingo_jax.audio.cache.reader import FeatureCache
from musilingo_jax.corpora.records import clip_id, contents_of
from musilingo_jax.jobs import seal, shard_plan
from musilingo_jax.jobs.making import Made
from musilingo_jax.jobs.share import Share
from musilingo_jax.runtime import paths, storage
from musilingo_jax.runtime.errors import UserError

pytestmark = pytest.mark.medium


def write_clips(folder, count):
    """Songs under the ids that a corpus gives them."""
    write_songs(folder, count)
    paths = sorted(folder.glob("*.wav"))
    return [Clip(clip_id(path, folder), path) for path in paths]


def state_of(folder):
    return cache_state.read(epath.Path(folder), IDENTITY)


def test_a_song_that_was_replaced_is_not_taken_for_the_old_one(tmp_path, mert):
    clips = write_clips(tmp_path / "songs", 3)
    old = clips[1].path.read_bytes()
    soundfile.write(clips[1].path, np.ones(RATE) / 9, RATE)
    found = fill(clips, mert, tmp_path / "cache")
    assert list(found.ids) == [clips[0].id, clips[2].id]
    reason = found.skipped[clips[1].id]
    assert "01.wav: has changed since the corpus was read; build or load" in reason
    clips[1].path.write_bytes(old)
    fill(clips, mert, tmp_path / "cache")
    fill(write_clips(tmp_path / "songs", 3), mert, tmp_path / "whole")
    assert files(tmp_path / "cache") == files(tmp_path / "whole")


def test_a_song_that_changes_while_it_is_decoded_is_not_kept(
    tmp_path, mert, monkeypatch
):
    clips = write_clips(tmp_path / "songs", 1)
    read = waveforms.read

    def change(path, **rest):
        yield from read(path, **rest)
        soundfile.write(path, np.ones(RATE) / 9, RATE)

    monkeypatch.setattr(waveforms, "read", change)
    found = fill(clips, mert, tmp_path / "cache")
    assert not found.ids and "has changed" in found.skipped[clips[0].id]


def test_ids_contain_what_their_files_hold(tmp_path):
    path = tmp_path / "odd:1:name.wav"
    path.write_bytes(b"sound")
    plain = clip_id(path, tmp_path)
    part = clip_id(path, tmp_path, start=1.5, rate=8000)
    assert contents_of(plain) == contents_of(part) == plain.split("name.wav:")[1]
    assert contents_of("01.wav") is None


def test_only_regular_files_have_an_id(tmp_path, mert):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(OSError, match="is not a regular file"):
        clip_id(tmp_path / "pipe.wav", tmp_path)
    with pytest.raises(IsADirectoryError, match="is a folder"):
        clip_id(tmp_path / "folder.wav", tmp_path)
    clips = [Clip(name, tmp_path / name) for name in ("pipe.wav", "folder.wav")]
    found = fill(clips, mert, tmp_path / "cache")
    assert found.skipped["folder.wav"].endswith("cannot be read: is a folder")
    assert found.skipped["pipe.wav"].endswith("cannot be read: is not a regular file")


def test_without_plans_another_identity_is_refused_all_the_same(tmp_path, mert):
    clips = write_clips(tmp_path / "songs", 4)
    folder = tmp_path / "cache"
    before = contents(fill(clips, mert, folder))
    for path in [*folder.glob("plans/*"), folder / shards.SHARD_INDEX]:
        path.unlink()
    other = replace(IDENTITY, encoder="bigger")
    with pytest.raises(UserError, match="encoder tiny, not bigger"):
        cache_state.read(epath.Path(folder), other)
    # Nor do notes of another identity count where the plans have the right one.
    assert contents(fill(clips, mert, folder)) == before
    note = folder / "00000001.json"
    content = json.loads(note.read_text()) | {"identity": other.stored()}
    note.write_text(json.dumps(seal.sealed(content)))
    (folder / shards.SHARD_INDEX).unlink()
    with pytest.raises(UserError, match="encoder bigger, not tiny"):
        fill(clips, mert, folder)


def test_an_index_of_other_clips_is_not_trusted(tmp_path, mert, monkeypatch):
    clips = write_clips(tmp_path / "songs", 4)
    folder = tmp_path / "cache"
    before = contents(fill(clips, mert, folder))
    index = folder / shards.SHARD_INDEX
    good = index.read_text()
    index.write_text(good.replace("01.wav:", "x1.wav:"))
    names = record_reads(monkeypatch)
    assert contents(fill(clips, mert, folder)) == before and not names
    assert index.read_text() == good


def test_a_clip_that_was_lost_is_reported(tmp_path, mert, monkeypatch):
    clips = write_clips(tmp_path / "songs", 2)

    def lose(work, load, config, folder, identity):
        for shard in work:
            with shards.ShardWriter(folder, shard.number, identity) as writer:
                for id in shard.ids:
                    writer.add_absent(id)
                writer.finish()
            yield Made(shard.number, 0)

    monkeypatch.setattr(cache_job, "encode_shards", lose)
    with pytest.raises(UserError, match="2 clips, 00.wav:.* are neither encoded nor"):
        fill(clips, mert, tmp_path / "cache")


@pytest.mark.parametrize("tasks", [1, 2])
def test_songs_that_were_missing_are_looked_for_by_every_job(
    tmp_path, mert, monkeypatch, tasks
):
    clips = write_clips(tmp_path / "songs", 7)
    folder, away = tmp_path / "cache", tmp_path / "away.wav"
    shares = [Share(task, tasks) for task in range(tasks)]
    clips[1].path.rename(away)
    for share in shares:
        found = fill(clips, mert, folder, share=share)
    assert found.missing == {clips[1].id}
    assert found.skipped[clips[1].id].endswith("there is no such file")
    with pytest.raises(UserError, match="each job looks for their files again"):
        feature_cache.refuse_skipped(found, [clip.id for clip in clips])

    names = record_reads(monkeypatch)
    for share in shares:
        fill(clips, mert, folder, share=share)
    assert not names
    away.rename(clips[1].path)
    for share in shares:
        found = fill(clips, mert, folder, share=share)
    assert sorted(names) == ["00.wav", "01.wav", "02.wav"] and not found.skipped
    fill(clips, mert, tmp_path / "whole")
    assert files(folder) == files(tmp_path / "whole")


def test_what_a_shard_held_is_kept_when_it_is_made_again(tmp_path, mert, monkeypatch):
    clips = write_clips(tmp_path / "songs", 3)
    soundfile.write(clips[2].path, np.zeros(RATE), RATE)
    clips[2] = clips[2]._replace(id=clip_id(clips[2].path, tmp_path / "songs"))
    folder, away = tmp_path / "cache", tmp_path / "away.wav"
    clips[1].path.rename(away)
    before = contents(fill(clips, mert, folder))
    away.rename(clips[1].path)
    # One has left the corpus, and one its place.
    clips[2].path.unlink()
    names = record_reads(monkeypatch)
    found = fill(clips[1:], mert, folder)
    assert names == ["01.wav"] and found.silent == {clips[2].id}
    assert list(found.ids) == [clip.id for clip in clips]
    assert before.items() <= contents(found).items()


def kill_at(monkeypatch, owner, name):
    """Makes a function end the job: no file but its partial ones changes after that."""

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, killed)


@pytest.mark.parametrize("moment", ["no note", "no index"])
def test_a_shard_made_again_is_not_described_by_its_old_note(
    tmp_path, mert, monkeypatch, moment
):
    clips = write_clips(tmp_path / "songs", 4)
    folder, away = tmp_path / "cache", tmp_path / "away.wav"
    clips[1].path.rename(away)
    before = contents(fill(clips, mert, folder))
    sizes = (folder / "00000000.array_record").stat().st_size
    away.rename(clips[1].path)
    with monkeypatch.context() as patch:
        if moment == "no note":
            kill_at(patch, storage, "write_text")
        else:
            kill_at(patch, cache_state, "write_index")
        with pytest.raises(KeyboardInterrupt):
            fill(clips, mert, folder)
    # By its size the old index could still be that of the new records.
    assert (folder / "00000000.array_record").stat().st_size == sizes
    if moment == "no note":
        with pytest.raises(UserError, match="1 of 2 shards are finished"):
            FeatureCache.open(folder, IDENTITY)
    else:
        found = FeatureCache.open(folder, IDENTITY)
        assert list(found.ids) == [clip.id for clip in clips]
        for clip, features in before.items():  # In other batches, so they are rounded.
            now = np.frombuffer(contents(found)[clip], np.float32)
            np.testing.assert_allclose(now, np.frombuffer(features, np.float32), 1e-4)
    fill(clips, mert, folder)
    fill(clips, mert, tmp_path / "whole")
    assert files(folder) == files(tmp_path / "whole")


def test_a_shard_that_is_made_again_while_it_is_read_is_noticed(tmp_path, mert):
    clips = write_clips(tmp_path / "songs", 4)
    folder, away = tmp_path / "cache", tmp_path / "away.wav"
    clips[1].path.rename(away)
    early, late = fill(clips, mert, folder), FeatureCache.open(folder, IDENTITY)
    before = early.features(clips[2].id).tobytes()
    away.rename(clips[1].path)
    fill(clips, mert, folder)
    assert early.features(clips[2].id).tobytes() == before  # From the file it opened.
    with pytest.raises(UserError, match=r"00000000\.json: has changed since this prog"):
        late.features(clips[2].id)
    assert late.features(clips[3].id).tobytes()  # Of another shard.


def test_what_cannot_be_decoded_names_the_way_to_retry(tmp_path, mert):
    (tmp_path / "a.wav").write_bytes(b"no sound")
    found = fill([Clip("a.wav", tmp_path / "a.wav")], mert, tmp_path / "cache")
    with pytest.raises(UserError, match="tried again by .*--retry`") as refusal:
        feature_cache.refuse_skipped(found, ["a.wav"])
    assert "the others" not in str(refusal.value)


def test_only_files_that_no_process_is_writing_are_removed(tmp_path, mert):
    clips = write_clips(tmp_path / "songs", 1)
    folder = tmp_path / "cache"
    (folder / "plans").mkdir(parents=True)
    host = socket.gethostname()
    dead = subprocess.Popen(["true"])
    dead.wait()
    name = "00000000.array_record"
    removed = [f"{name}.{host}-{dead.pid}.partial", f"{name}.old-1.partial"]
    removed.append(f"plans/000.json.{host}-{dead.pid}.partial")
    kept = [f"{name}.{host}-{os.getppid()}.partial", f"{name}.elsewhere-1.partial"]
    kept += ["film.mp4.partial", f"film.{host}-{dead.pid}.partial"]
    for other in [*removed, *kept]:
        (folder / other).write_text("half")
    os.utime(folder / removed[1], (time.time() - 90_000,) * 2)
    with shards.ShardWriter(epath.Path(folder), 0, IDENTITY):
        assert all((folder / other).exists() for other in kept)
    fill(clips, mert, folder)
    left = {str(path.relative_to(folder)) for path in folder.rglob("*.partial")}
    assert left == set(kept)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "the folder for the features has no name"),
        (None, "the folder for the features has no name"),
        ("{}/file", "file is a file, not a folder; choose another"),
        ("{}/file/cache", "file is a file, not a folder; choose another"),
        ("foo://x", "foo:// is not a known store"),
    ],
)
def test_what_cannot_be_a_cache_is_refused(tmp_path, name, message):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=message):
        paths.open_folder(name and name.format(tmp_path))


@pytest.mark.parametrize("damage", ["cut", "gone", "first gone"])
def test_damaged_plans_are_made_again(tmp_path, mert, monkeypatch, damage):
    clips = write_clips(tmp_path / "songs", 7)
    folder = tmp_path / "cache"
    fill(clips[:4], mert, folder)
    before = contents(fill(clips, mert, folder))
    plans = sorted((folder / "plans").iterdir())
    assert len(plans) == 2
    if damage == "cut":
        plans[1].write_text(plans[1].read_text()[:-20])
    for path in {"cut": [], "gone": plans, "first gone": plans[:1]}[damage]:
        path.unlink()
    with pytest.raises(UserError, match="what was finished is kept: run `python -m"):
        FeatureCache.open(folder, IDENTITY)
    text, problem = description.inspection(epath.Path(folder))
    assert "3 of 3 shards are finished" in text and "what was finished is" in problem
    with pytest.raises(UserError, match="run this once without --tasks, which repairs"):
        fill(clips, mert, folder, share=Share(0, 2))
    names = record_reads(monkeypatch)
    assert contents(fill(clips, mert, folder)) == before and not names
    assert len(shard_plan.read(epath.Path(folder)).shards) == 3
    assert description.inspection(epath.Path(folder))[1] is None


def test_a_plan_that_is_damaged_before_anything_is_finished(tmp_path, mert):
    (tmp_path / "cache/plans").mkdir(parents=True)
    (tmp_path / "cache/plans/000.json").write_text("{")
    with pytest.raises(UserError, match=r"000\.json: is not JSON.* which repairs"):
        description.inspection(epath.Path(tmp_path / "cache"))
    clips = write_clips(tmp_path / "songs", 2)
    assert len(fill(clips, mert, tmp_path / "cache").ids) == 2


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "free some and"), (errno.EROFS, "make it writable and")],
)
def test_why_a_cache_cannot_be_written(tmp_path, mert, monkeypatch, number, remedy):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(storage, "create_text", fail)
    with pytest.raises(
        UserError, match=f"{os.strerror(number)}.: {remedy} run the same"
    ):
        fill(write_clips(tmp_path / "songs", 1), mert, tmp_path / "cache")


def test_names_that_are_not_utf8(tmp_path, mert):
    (clip,) = write_clips(tmp_path / "songs", 1)
    odd = clip.path.rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav"))
    clips = [Clip(clip_id(odd, tmp_path), odd)]
    clips.append(Clip("\udcfe.wav", tmp_path / "\udcfe.wav"))
    found = fill(clips, mert, tmp_path / "cache")
    text, _ = description.inspection(epath.Path(tmp_path / "cache"))
    for shown in (text, description.summary(found, [clip.id for clip in clips])):
        assert r"\udcfe.wav: there is no such file" in shown.encode().decode()
    export.export(found, tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as file:
        assert file["path"].tolist() == [rf"{tmp_path}/\udcff.wav"]
        assert file["clip"][0].startswith(r"\udcff.wav:")
    parquet = pytest.importorskip("pyarrow.parquet")
    export.export(found, tmp_path / "x.parquet")
    (row,) = parquet.read_table(tmp_path / "x.parquet").to_pylist()
    assert row["path"] == rf"{tmp_path}/\udcff.wav"


def test_bytes_of_features_and_bytes_on_disk_are_distinguished(tmp_path, mert):
    clips = write_clips(tmp_path / "songs", 4)
    found = fill(clips, mert, tmp_path / "cache")
    size = sum(len(record) for record in contents(found).values())
    disk = sum(path.stat().st_size for path in tmp_path.rglob("*.array_record"))
    text, _ = description.inspection(epath.Path(tmp_path / "cache"))
    assert f"feature bytes    {size:,}, {size // 4:,} a clip" in text
    assert f"bytes on disk    {disk:,}" in text
    text = description.summary(found, [clip.id for clip in clips])
    assert f"{size:,} bytes of features ({disk:,} bytes on disk for all 4" in text
    assert found.bytes(clips[3].id) == found.features(clips[3].id).nbytes


def test_inspecting_an_unfinished_cache_fails(tmp_path, mert, capsys):
    clips = write_clips(tmp_path / "songs", 4)
    folder = tmp_path / "cache"

    def inspect():
        cache.main(cache.parser().parse(["cache", "inspect", str(folder)]))

    fill(clips, mert, folder, share=Share(0, 2))
    with pytest.raises(UserError, match="1 of 2 shards are finished; run"):
        inspect()
    assert "unfinished shards: 1" in capsys.readouterr().out
    fill(clips, mert, folder, share=Share(1, 2))
    inspect()
    (folder / "00000001.array_record").write_bytes(b"")
    with pytest.raises(UserError, match="00000001.array_record: is missing or cut off"):
        inspect()

"""The cache: it holds what the encoder computes, and reports what is wrong with it."""

import json
from dataclasses import asdict, dataclass, replace

import numpy as np
import pytest
import soundfile
from etils import epath
from helpers.small_cache import (
    ALL,
    ENCODER,
    FEATURES,
    IDENTITY,
    RATE,
    contents,
    files,
    fill,
    record_reads,
    write_songs,
)
from ml_collections import ConfigDict

from musilingo_jax.audio import features
from musilingo_jax.audio import waveforms as audio
from musilingo_jax.audio.cache import description, feature_cache, shards
from musilingo_jax.audio.cache import fill as cache_job
from musilingo_jax.audio.cache.clips import Clip
from musilingo_jax.audio.cache.identity import Identity
from musilingo_jax.audio.cache.reader import FeatureCache
from musilingo_jax.corpora import songs
from musilingo_jax.jobs.engine import THIS_PROCESS
from musilingo_jax.jobs.share import Share, claim
from musilingo_jax.pretrained import weights
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import setting
from musilingo_jax.runtime.sharding import make_mesh


def test_what_is_cached_is_what_the_encoder_computes(tmp_path, mert, mesh):
    clips = write_songs(tmp_path / "songs", 8)
    found = fill(clips, mert, tmp_path / "cache")
    assert list(found.ids) == [clip.id for clip in clips] and not found.skipped
    assert len(list((tmp_path / "cache").glob("*.array_record"))) == 3
    waveforms = [audio.load(clip.path, sample_rate=RATE) for clip in clips]
    alone = replace(FEATURES, batch_size=1)
    for clip, waveform in zip(clips, waveforms, strict=True):
        ((_, expected),) = features.encode(mert, [[waveform]], alone, mesh)
        cached = found.features(clip.id)
        assert cached.dtype == np.float32 and found.windows(clip.id) == len(cached)
        np.testing.assert_allclose(cached, expected, atol=1e-5)
        assert found.seconds(clip.id) == pytest.approx(len(waveform) / RATE, abs=1e-3)
        assert found.path(clip.id) == str(clip.path)


def test_other_reductions_keep_their_shapes(tmp_path, mert):
    # Songs whose chunks are all of two windows, like those of `test_features.py`.
    clips = write_songs(tmp_path / "songs", 13)[2::5]
    layers = replace(FEATURES, reduction="layers")
    found = fill(clips, mert, tmp_path / "cache", numbers=layers)
    shapes = {found.features(clip.id).shape for clip in clips}
    assert shapes == {(ENCODER["num_hidden_layers"] + 1, ENCODER["hidden_size"])}


def test_only_what_is_missing_is_encoded(tmp_path, mert, monkeypatch):
    clips = write_songs(tmp_path / "songs", 6)
    first = fill(clips[:4], mert, tmp_path / "cache")
    names = record_reads(monkeypatch)
    second = fill(clips, mert, tmp_path / "cache")
    assert sorted(names) == ["04.wav", "05.wav"]
    assert len(second.ids) == 6 and contents(first).items() <= contents(second).items()
    fill(clips, mert, tmp_path / "cache")
    assert len(names) == 2


def test_stretches_of_one_file_are_clips(tmp_path, mert, mesh):
    clips = write_songs(tmp_path / "songs", 10)
    last = clips[-1].path
    stretches = [Clip("a", last, 0.2, 0.9), Clip("b", last, 0.9, None), clips[-1]]
    found = fill(stretches, mert, tmp_path / "cache")
    assert [found.seconds(clip) for clip in ("a", "b", last.name)] == [0.7, 0.5, 1.4]
    whole = audio.load(last, sample_rate=RATE)
    part = [[whole[int(0.2 * RATE) : int(0.9 * RATE)]]]
    ((_, expected),) = features.encode(mert, part, FEATURES, mesh)
    np.testing.assert_allclose(found.features("a"), expected, atol=1e-5)


def test_bad_songs_are_skipped_by_name_and_tried_again_if_asked(
    tmp_path, mert, monkeypatch
):
    clips = write_songs(tmp_path / "songs", 4)
    good = clips[1].path.read_bytes()
    clips[1].path.write_bytes(good[:7])
    soundfile.write(clips[2].path, np.zeros(RATE), RATE)
    found = fill(clips, mert, tmp_path / "cache")
    assert list(found.ids) == ["00.wav", "02.wav", "03.wav"]
    assert found.silent == {"02.wav"}
    assert str(clips[1].path) in found.skipped["01.wav"]
    with pytest.raises(UserError, match=r"01\.wav: is not in the cache .*01\.wav"):
        found.features("01.wav")
    with pytest.raises(UserError, match=r"99\.wav: is not in .* run `python -m"):
        found.features("99.wav")

    names = record_reads(monkeypatch)
    assert fill(clips, mert, tmp_path / "cache").skipped and not names
    again = fill(clips, mert, tmp_path / "cache", retry=True)
    assert again.skipped and names == ["01.wav"]
    clips[1].path.write_bytes(good)
    repaired = fill(clips, mert, tmp_path / "cache", retry=True)
    assert len(repaired.ids) == 4 and not repaired.skipped
    assert contents(found).items() <= contents(repaired).items()


def test_nothing_but_bad_songs(tmp_path, mert):
    (tmp_path / "a.wav").write_bytes(b"no sound")
    found = fill([Clip("a.wav", tmp_path / "a.wav")], mert, tmp_path / "cache")
    assert not found.ids and list(found.skipped) == ["a.wav"]


def test_another_identity_is_refused(tmp_path, mert):
    folder = tmp_path / "cache"
    fill(write_songs(tmp_path / "songs", 1), mert, folder)
    other = replace(IDENTITY, encoder="bigger", reduction="frames")
    both = "encoder tiny, not bigger; reduction pooled, not frames"
    with pytest.raises(UserError, match=both):
        FeatureCache.open(folder, other)
    with pytest.raises(UserError, match=both):
        arguments = epath.Path(folder), other, ALL, THIS_PROCESS
        cache_job.run([], tuple, FEATURES, *arguments, shard_clips=1, retry=False)


@dataclass(frozen=True)
class LaterIdentity(Identity):
    """The identity after features have come to depend on something else, too."""

    scale: str = setting(choices=("linear", "mel"), before="linear")


def later(scale):
    return LaterIdentity(**asdict(IDENTITY), scale=scale)


def test_a_field_that_is_added_later_leaves_caches_valid(tmp_path, mert):
    clips = write_songs(tmp_path / "songs", 1)
    found = fill(clips, mert, tmp_path / "cache")
    plan = json.loads((tmp_path / "cache/plans/000.json").read_text())
    assert plan["identity"] == IDENTITY.stored() and "level" not in IDENTITY.stored()
    again = FeatureCache.open(tmp_path / "cache", later("linear"))
    assert contents(again) == contents(found)
    refusal = r"these features were made with scale unset, not mel\. Choose another"
    with pytest.raises(UserError, match=refusal):
        FeatureCache.open(tmp_path / "cache", later("mel"))

    fill(clips, mert, tmp_path / "same", identity=later("linear"))
    assert files(tmp_path / "same") == files(tmp_path / "cache")
    fill(clips, mert, tmp_path / "mel", identity=later("mel"))
    with pytest.raises(UserError, match="made with scale mel, not unset"):
        FeatureCache.open(tmp_path / "mel", IDENTITY)


def test_a_cache_of_an_earlier_format_is_refused(tmp_path):
    identity = {**IDENTITY.stored(), "format": 1}
    text = json.dumps({"identity": identity}) + "\n"
    (tmp_path / shards.SHARD_INDEX).write_text(text)
    with pytest.raises(UserError, match="format 1, not 3. Choose another folder"):
        FeatureCache.open(tmp_path, IDENTITY)


def test_damage_is_noticed_and_repaired(tmp_path, mert):
    clips = write_songs(tmp_path / "songs", 4)
    folder = tmp_path / "cache"
    before = contents(fill(clips, mert, folder, shard_clips=2))
    shard = folder / "00000000.array_record"
    whole = shard.read_bytes()

    shard.write_bytes(whole[:-1])
    with pytest.raises(UserError, match="00000000.array_record: is missing or cut off"):
        FeatureCache.open(folder, IDENTITY)
    assert contents(fill(clips, mert, folder)) == before
    assert shard.read_bytes() == whole

    place = whole.index(before[clips[0].id][:16])
    shard.write_bytes(whole[:place] + b"X" * 16 + whole[place + 16 :])
    with pytest.raises(UserError, match="00000000.array_record: is damaged; delete it"):
        FeatureCache.open(folder, IDENTITY).features(clips[0].id)
    shard.unlink()
    assert contents(fill(clips, mert, folder)) == before

    # The index is made again from the notes, and notes from the songs.
    index = (folder / shards.SHARD_INDEX).read_text()
    (folder / shards.SHARD_INDEX).write_text(index[:-9])
    (folder / "00000001.json").write_text("{}")
    assert contents(fill(clips, mert, folder)) == before
    assert (folder / shards.SHARD_INDEX).read_text() == index

    (folder / "plans/000.json").write_text("no plan\n")
    with pytest.raises(UserError, match=r"000\.json: is not JSON"):
        FeatureCache.open(folder, IDENTITY)


def test_an_empty_folder_is_not_a_cache(tmp_path):
    with pytest.raises(UserError, match="holds no features yet; run `python -m"):
        FeatureCache.open(tmp_path, IDENTITY)


def test_two_programs_do_not_fill_one_cache(tmp_path, mert):
    clips = write_songs(tmp_path / "songs", 1)
    folder = epath.Path(tmp_path / "cache")
    with (
        claim(folder, Share(0, 1), busy="filling this cache"),
        pytest.raises(UserError, match="another program is filling this cache"),
    ):
        fill(clips, mert, folder)
    with claim(folder, Share(0, 2), busy="filling this cache"):
        with pytest.raises(UserError, match="another program is filling this cache;"):
            fill(clips, mert, folder)
        with pytest.raises(UserError, match="filling this cache as task 0 of 2"):
            fill(clips, mert, folder, share=Share(0, 2))
        fill(clips, mert, folder, share=Share(1, 2))
    fill(clips, mert, folder)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, mert):
    clips = write_songs(tmp_path / "songs", 1)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"file/cache: .*\(Not a directory\)"):
        fill(clips, mert, tmp_path / "file/cache")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, mert):
    folder = tmp_path_factory.mktemp("encoder")
    weights.save_encoder(mert, folder, dtype="float32")
    return folder


def experiment(tmp_path, encoder):
    return ConfigDict(
        {
            "model": {"encoder": str(encoder), "dtype": "float32"},
            "corpus": {"path": str(tmp_path / "songs/songs.jsonl")},
            "features": {
                "window_frames": 10,
                "chunk_windows": 2,
                "batch_size": 2,
                "reduction": "pooled",
                "shard_clips": 2,
                "cache": str(tmp_path / "cache"),
                "allow_missing": False,
            },
            "mesh": {"data": 1, "fsdp": 1, "tensor": 1},
        }
    )


def test_an_experiment_gets_its_cache(tmp_path, encoder, monkeypatch):
    write_songs(tmp_path / "songs", 3)
    config, mesh = experiment(tmp_path, encoder), make_mesh(1, 1, 1)
    records = songs.load(config.corpus.path)
    found = feature_cache.prepare(config, records, mesh)
    assert set(found.ids) == {record.clip for record in records}
    text = description.summary(found, found.ids)
    assert "3 clips, 0.00 h" in text and "skipped" not in text

    # Complete: the encoder is not even loaded, and nothing is written.
    monkeypatch.setattr(weights, "load_encoder", None)
    before = [(path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")]
    feature_cache.prepare(config, records, mesh)
    feature_cache.prepare(config, records[:1], mesh)
    assert before == [(path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")]
    FeatureCache.open(config.features.cache, Identity.of(config))


def test_an_experiment_is_refused_if_songs_cannot_be_read(tmp_path, encoder):
    write_songs(tmp_path / "songs", 3)
    (tmp_path / "songs/01.wav").write_bytes(b"no sound")
    config, mesh = experiment(tmp_path, encoder), make_mesh(1, 1, 1)
    records = songs.load(config.corpus.path)
    with pytest.raises(UserError, match=r"1 of 3 songs cannot[\s\S]*01\.wav: "):
        feature_cache.prepare(config, records, mesh)
    config.features.allow_missing = True
    found = feature_cache.prepare(config, records, mesh)
    text = description.summary(found, {record.clip for record in records})
    assert len(found.ids) == 2 and "1 skipped:\n" in text


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("reduction", "frames", "reduction is 'frames', which no adapter reads"),
        ("shard_clips", 0, "config.features.shard_clips is 0: it must be at least 1"),
        ("cache", None, "config.features.cache is None: it must be text"),
    ],
)
def test_what_no_experiment_can_use_is_refused(tmp_path, encoder, key, value, message):
    write_songs(tmp_path / "songs", 1)
    config = experiment(tmp_path, encoder)
    config.features[key] = value
    with pytest.raises(UserError, match=message):
        feature_cache.prepare(
            config, songs.load(config.corpus.path), make_mesh(1, 1, 1)
        )

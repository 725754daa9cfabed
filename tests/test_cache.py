"""The cache: the same bits however often it is killed, and words for every mishap."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
from flax import nnx
from ml_collections import ConfigDict

from musilingo_jax import audio, cache, shards, weights
from musilingo_jax.cache import Cache, Clip, Identity, build
from musilingo_jax.corpora import songs
from musilingo_jax.errors import UserError
from musilingo_jax.features import FeatureConfig, encode
from musilingo_jax.models.mert import Mert
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.sharding import make_mesh

RATE = 24_000
FEATURES = FeatureConfig(window_frames=10, chunk_windows=2, batch_size=2)
IDENTITY = Identity(
    encoder="tiny",
    sample_rate=RATE,
    window_frames=10,
    chunk_windows=2,
    dtype="float32",
    format=cache.FORMAT,
)
ENCODER = {
    "model_type": "mert_model",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "conv_dim": [16, 24],
    "conv_kernel": [20, 40],
    "conv_stride": [16, 30],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "feat_extract_norm": "group",
    "do_stable_layer_norm": True,
    "layer_norm_eps": 1e-5,
}


def tiny_mert():
    return Mert(MertConfig.from_dict(ENCODER), rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def mert():
    return tiny_mert()


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(data=1, fsdp=1, tensor=1)


def write_songs(folder, count):
    """Noise of 0.5 to 1.4 s, as clips and as a corpus."""
    folder.mkdir(exist_ok=True)
    lines = []
    for n in range(count):
        noise = np.random.default_rng(n).normal(0, 0.1, RATE // 2 + 2_400 * (n % 10))
        soundfile.write(folder / f"{n:02}.wav", noise, RATE)
        lines.append(json.dumps({"audio": f"{n:02}.wav", "answer": "Noise."}) + "\n")
    (folder / "songs.jsonl").write_text("".join(lines))
    return [Clip(path.name, path) for path in sorted(folder.glob("*.wav"))]


def contents(found):
    return {clip: found.features(clip).tobytes() for clip in found.ids}


def test_what_is_cached_is_what_the_encoder_says(tmp_path, mert, mesh, monkeypatch):
    monkeypatch.setattr(cache, "SHARD_CLIPS", 3)
    clips = write_songs(tmp_path / "songs", 8)
    build(clips, mert, FEATURES, tmp_path / "cache", IDENTITY, mesh)
    found = Cache.open(tmp_path / "cache", IDENTITY)
    assert list(found.ids) == [clip.id for clip in clips] and not found.skipped
    assert len(list((tmp_path / "cache").glob("*.array_record"))) == 3
    waveforms = [audio.load(clip.path, sample_rate=RATE) for clip in clips]
    expected = encode(mert, waveforms, FEATURES, mesh)
    for clip, waveform, features in zip(clips, waveforms, expected, strict=True):
        cached = found.features(clip.id)
        assert cached.dtype == np.float32 and found.windows(clip.id) == len(cached)
        np.testing.assert_allclose(cached, features, atol=1e-5)
        assert found.seconds(clip.id) == pytest.approx(len(waveform) / RATE, abs=1e-3)


def test_only_what_is_missing_is_encoded(tmp_path, mert, mesh, monkeypatch):
    clips = write_songs(tmp_path / "songs", 6)
    first = build(clips[:4], mert, FEATURES, tmp_path / "cache", IDENTITY, mesh)
    loaded = []
    load = audio.load
    monkeypatch.setattr(
        audio, "load", lambda path, **rest: loaded.append(path) or load(path, **rest)
    )
    second = build(clips, mert, FEATURES, tmp_path / "cache", IDENTITY, mesh)
    assert sorted(loaded) == [clip.path for clip in clips[4:]]
    assert len(second.ids) == 6 and contents(first).items() <= contents(second).items()
    build(clips, mert, FEATURES, tmp_path / "cache", IDENTITY, mesh)
    assert len(loaded) == 2


def test_shards_end_with_the_hour_too(tmp_path, mert, mesh, monkeypatch):
    monkeypatch.setattr(cache, "SHARD_SECONDS", 1.0)
    clips = write_songs(tmp_path / "songs", 4)  # 0.5, 0.6, 0.7 and 0.8 s
    build(clips, mert, FEATURES, tmp_path / "cache", IDENTITY, mesh)
    assert len(list((tmp_path / "cache").glob("*.array_record"))) == 2


CHILD = """
import pathlib, sys, time
sys.path.insert(0, str(pathlib.Path(sys.argv[1])))
import test_cache
from musilingo_jax import audio, cache
cache.SHARD_CLIPS = 3
load = audio.load
def slow(path, **rest):
    time.sleep(0.03)
    return load(path, **rest)
audio.load = slow
folder, songs = map(pathlib.Path, sys.argv[2:])
clips = [cache.Clip(path.name, path) for path in sorted(songs.glob("*.wav"))]
mesh = test_cache.make_mesh(data=1, fsdp=1, tensor=1)
arguments = test_cache.FEATURES, folder, test_cache.IDENTITY, mesh
cache.build(clips, test_cache.tiny_mert(), *arguments)
"""


def start(folder, songs_folder, compiled):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, os.path.dirname(__file__), folder, songs_folder],
        stderr=subprocess.PIPE,
        env=os.environ
        | {
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(compiled),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        },
    )


def test_killed_at_any_moment_it_goes_on_to_the_same_bits(tmp_path):
    write_songs(tmp_path / "songs", 20)
    (tmp_path / "songs/04.wav").write_bytes(b"no sound at all")
    paths = tmp_path / "songs", tmp_path / "compiled"
    whole = start(tmp_path / "whole", *paths)
    assert whole.wait() == 0, whole.stderr.read()

    folder = tmp_path / "killed"
    moments = random.Random(0)
    kept = {}
    for shards_before in (1, 4):
        child = start(folder, *paths)
        while child.poll() is None and len(kept) < shards_before:
            time.sleep(0.001)
            kept = committed(folder)
        time.sleep(moments.uniform(0, 0.1))
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        kept = committed(folder)
    # Half a line and half a shard, as a kill in the middle of a write leaves them.
    with (folder / shards.INDEX).open("a") as index:
        index.write('{"shard": "0000')
    (folder / "00000099.partial").write_bytes(b"half")
    last = start(folder, *paths)
    assert last.wait() == 0, last.stderr.read()

    assert len(kept) >= 4 and kept.items() <= committed(folder).items()
    assert not list(folder.glob("*.partial"))
    expected = contents(Cache.open(tmp_path / "whole", IDENTITY))
    assert len(expected) == 19
    assert contents(Cache.open(folder, IDENTITY)) == expected


def committed(folder):
    """Shards that the index counts, with what would change if they were redone."""
    if not (folder / shards.INDEX).is_file():
        return {}
    lines = (folder / shards.INDEX).read_text().split("\n")[1:-1]
    names = [json.loads(line)["shard"] for line in lines]
    return {name: (folder / name).stat().st_mtime_ns for name in names}


def test_bad_songs_are_skipped_by_name_and_tried_again(tmp_path, mert, mesh):
    clips = write_songs(tmp_path / "songs", 4)
    good = clips[1].path.read_bytes()
    clips[1].path.write_bytes(good[:7])
    soundfile.write(clips[2].path, np.zeros(RATE), RATE)
    found = build(clips, mert, FEATURES, tmp_path / "cache", IDENTITY, mesh)
    assert list(found.ids) == ["00.wav", "02.wav", "03.wav"]
    assert found.silent == {"02.wav"}
    assert "01.wav: cannot be decoded" in found.skipped["01.wav"]
    with pytest.raises(UserError, match=r"01\.wav: is not in the cache .* decoded"):
        found.features("01.wav")
    with pytest.raises(UserError, match=r"99\.wav: is not in .* run `python -m"):
        found.features("99.wav")
    clips[1].path.write_bytes(good)
    found = build(clips, mert, FEATURES, tmp_path / "cache", IDENTITY, mesh)
    assert len(found.ids) == 4 and not found.skipped


def test_nothing_but_bad_songs(tmp_path, mert, mesh):
    (tmp_path / "a.wav").write_bytes(b"no sound")
    clips = [Clip("a.wav", tmp_path / "a.wav")]
    found = build(clips, mert, FEATURES, tmp_path / "cache", IDENTITY, mesh)
    assert not found.ids and list(found.skipped) == ["a.wav"]


def test_another_identity_is_refused(tmp_path, mert, mesh):
    clips = write_songs(tmp_path / "songs", 1)
    folder = tmp_path / "cache"
    build(clips, mert, FEATURES, folder, IDENTITY, mesh)
    other = Identity(**{**vars(IDENTITY), "encoder": "bigger", "dtype": "bfloat16"})
    both = "encoder tiny, not bigger; dtype float32, not bfloat16"
    with pytest.raises(UserError, match=both):
        Cache.open(folder, other)
    with pytest.raises(UserError, match=both):
        build(clips, mert, FEATURES, folder, other, mesh)


def test_damage_is_noticed_and_mended(tmp_path, mert, mesh, monkeypatch):
    monkeypatch.setattr(cache, "SHARD_CLIPS", 2)
    clips = write_songs(tmp_path / "songs", 4)
    folder = tmp_path / "cache"
    before = contents(build(clips, mert, FEATURES, folder, IDENTITY, mesh))
    shard = folder / "00000000.array_record"
    whole = shard.read_bytes()

    shard.write_bytes(whole[:-1])
    with pytest.raises(UserError, match="00000000.array_record: is missing or cut off"):
        Cache.open(folder, IDENTITY)
    again = build(clips, mert, FEATURES, folder, IDENTITY, mesh)
    assert contents(again) == before

    name = sorted(folder.glob("*.array_record"))[-1]
    place = name.read_bytes().index(before[clips[0].id][:16])
    with name.open("r+b") as file:
        file.seek(place)
        file.write(b"X" * 16)
    with pytest.raises(UserError, match=f"{name.name}: is damaged; delete it"):
        Cache.open(folder, IDENTITY).features(clips[0].id)

    (folder / shards.INDEX).write_text("no index\n")
    with pytest.raises(UserError, match=r"index\.jsonl: cannot be read"):
        Cache.open(folder, IDENTITY)


def test_an_empty_folder_is_no_cache(tmp_path):
    with pytest.raises(UserError, match="holds no features yet; run `python -m"):
        Cache.open(tmp_path, IDENTITY)


def test_two_programs_do_not_fill_one_cache(tmp_path, mert, mesh):
    clips = write_songs(tmp_path / "songs", 1)
    folder = tmp_path / "cache"
    with (
        shards.claim(folder, vars(IDENTITY)),
        pytest.raises(UserError, match="another program is filling this cache"),
    ):
        build(clips, mert, FEATURES, folder, IDENTITY, mesh)
    build(clips, mert, FEATURES, folder, IDENTITY, mesh)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, mert, mesh, monkeypatch):
    clips = write_songs(tmp_path / "songs", 1)
    (tmp_path / "file").write_bytes(b"")
    folder = tmp_path / "file/cache"
    with pytest.raises(UserError, match="file/cache: the cache cannot be written"):
        build(clips, mert, FEATURES, folder, IDENTITY, mesh)
    monkeypatch.setattr(shards, "_PARTIAL", ".missing/x")
    with pytest.raises(UserError, match="cannot be written"):
        build(clips, mert, FEATURES, tmp_path / "cache", IDENTITY, mesh)


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
                "cache": str(tmp_path / "cache"),
                "allow_missing": False,
            },
            "mesh": {"data": 1, "fsdp": 1, "tensor": 1},
        }
    )


def test_the_program_end_to_end(tmp_path, encoder, mesh, monkeypatch):
    write_songs(tmp_path / "songs", 3)
    config = experiment(tmp_path, encoder)
    records = songs.load(config.corpus.path)
    found = cache.prepare(config, records, mesh)
    assert set(found.ids) == {record.clip for record in records}
    said = cache.summary(found, found.ids)
    assert "3 clips, 0.00 h" in said and "skipped" not in said

    # Complete: the encoder is not even loaded.
    monkeypatch.setattr(weights, "load_encoder", None)
    cache.prepare(config, records, mesh)
    Cache.open(config.features.cache, Identity.of(config))


def test_the_program_fails_if_songs_cannot_be_read(tmp_path, encoder, mesh):
    write_songs(tmp_path / "songs", 3)
    (tmp_path / "songs/01.wav").write_bytes(b"no sound")
    config = experiment(tmp_path, encoder)
    records = songs.load(config.corpus.path)
    with pytest.raises(UserError, match=r"1 of 3 songs cannot[\s\S]*01\.wav: cannot"):
        cache.prepare(config, records, mesh)
    config.features.allow_missing = True
    found = cache.prepare(config, records, mesh)
    said = cache.summary(found, {record.clip for record in records})
    assert len(found.ids) == 2 and "1 skipped:\n" in said

"""Frames that another program made: read, averaged, trained with; faults told."""

import json
import shutil

import numpy as np
import pytest
from helpers.small_run import make_corpus, make_models, small_config

from musilingo_jax import train
from musilingo_jax.audio.cache import feature_cache
from musilingo_jax.corpora import mixture
from musilingo_jax.pretrained import sources, weights
from musilingo_jax.pretrained.trained_with import TrainedWith
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.sharding import make_mesh

DESCRIBED = {
    "stored_frames": "an encoder of others, layer 3",
    "hidden_size": 12,
    "frames_per_second": 5.0,
}


def write(folder, frames, **changes):
    """A folder with frames by the name of a song, described with changes."""
    folder.mkdir(exist_ok=True)
    described = {k: v for k, v in (DESCRIBED | changes).items() if v is not None}
    (folder / "config.json").write_text(json.dumps(described))
    for name, array in frames.items():
        np.save(folder / f"{name}.npy", array)


def frames_of(song, count):
    return np.random.default_rng(song).normal(size=(count, 12)).astype(np.float16)


@pytest.fixture
def folder(tmp_path):
    """Songs of one and of two seconds, and frames of each in `jukebox`."""
    make_corpus(tmp_path / "corpus")
    frames = {str(song): frames_of(song, 5 + 5 * (song % 2)) for song in range(6)}
    write(tmp_path / "jukebox", frames)
    return tmp_path


def config_of(folder, **changes):
    known = {
        "model__encoder": folder / "jukebox",
        "features__window_frames": 2,
        "features__level": 0.0,
    }
    return small_config(folder, "run", **(known | changes))


def cached(config):
    records = mixture.load(config.corpus)
    cache = feature_cache.prepare(config, records, make_mesh(data=1, fsdp=1, tensor=1))
    return {record.audio.stem: record.clip for record in records}, cache


def test_the_cache_holds_means_over_windows_of_the_frames(folder):
    clips, cache = cached(config_of(folder))
    for song in range(6):
        frames = frames_of(song, 5 + 5 * (song % 2)).astype(np.float32)
        means = [frames[n : n + 2].mean(axis=0) for n in range(0, len(frames), 2)]
        found = cache.features(clips[str(song)])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, means, atol=1e-6)
        assert cache.seconds(clips[str(song)]) == len(frames) / 5


def test_a_stretch_of_a_song_has_the_frames_that_begin_in_it(folder):
    path = folder / "corpus/songs.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [row | {"start": 0.6, "end": 1.8} for row in rows if row["audio"] == "1.wav"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    clips, cache = cached(config_of(folder, features__window_frames=1))
    expected = frames_of(1, 10)[3:9].astype(np.float32)
    np.testing.assert_array_equal(cache.features(clips["1"]), expected)


def test_other_frames_are_another_encoder_and_others_of_its_kind_the_same(folder):
    one = weights.digest(folder / "jukebox", "encoder")
    write(folder / "other", {}, stored_frames="an encoder of others, layer 4")
    shutil.copytree(folder / "jukebox", folder / "copy")
    assert weights.digest(folder / "other", "encoder") != one
    assert weights.digest(folder / "copy", "encoder") == one
    assert sources.find(folder / "jukebox", "encoder").tensors() == {}


@pytest.mark.medium
def test_an_adapter_learns_from_them_and_records_them(folder):
    make_models(folder)
    config = config_of(folder, stages=("stage1",))
    train.train(config)
    adapter = sources.find(folder / "run/adapter", "adapter")
    assert adapter.config["encoder_width"] == 12
    record = TrainedWith.of_adapter(adapter)
    assert record.encoder.digest == weights.digest(folder / "jukebox", "encoder")


def test_they_cannot_hear(folder):
    message = "hears no song: put the frames into a feature cache"
    with pytest.raises(UserError, match=message):
        weights.load_encoder(folder / "jukebox", dtype="float32", mesh=None)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"features__level": 0.1}, "features.level is 0.1, but .*jukebox has frames"),
        (
            {"features__reduction": "layers"},
            "'layers', but .*jukebox has stored frames, which",
        ),
    ],
)
def test_settings_of_an_encoder_that_hears_are_refused(folder, changes, message):
    with pytest.raises(UserError, match=message):
        cached(config_of(folder, **changes))


def test_two_songs_of_one_name_are_not_given_the_same_frames(folder):
    path = folder / "corpus/songs.jsonl"
    (folder / "corpus/live").mkdir()
    shutil.copy(folder / "corpus/2.wav", folder / "corpus/live/1.wav")
    path.write_text(
        path.read_text() + json.dumps({"audio": "live/1.wav", "answer": "Live."}) + "\n"
    )
    with pytest.raises(UserError, match=r"1.wav and .*live/1.wav would both have"):
        cached(config_of(folder))
    assert not (folder / "cache").exists() or not any((folder / "cache").iterdir())


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda path: path.unlink(), r"2.npy: there is no such file with the frames"),
        (lambda path: path.write_bytes(b"none"), r"2.npy: is not a NumPy array"),
        (
            lambda path: np.save(path, np.zeros((5, 11), np.float32)),
            r"2.npy: is float32\[5, 11\], but frames are .*, \[frames, 12\]",
        ),
        (
            lambda path: np.save(path, np.zeros((5, 12), np.int16)),
            r"2.npy: is int16\[5, 12\]",
        ),
        (
            lambda path: np.save(path, np.full((5, 12), np.nan)),
            r"2.npy: contains NaN or infinity",
        ),
        (
            lambda path: np.save(path, np.zeros((0, 12))),
            r"2.npy: holds 0.0 s, and none of this stretch",
        ),
    ],
)
def test_a_song_without_usable_frames_is_listed_and_the_others_are_kept(
    folder, damage, message
):
    damage(folder / "jukebox/2.npy")
    with pytest.raises(
        UserError, match=rf"1 of 6 songs cannot be read(?s:.*){message}"
    ):
        cached(config_of(folder))
    clips, cache = cached(config_of(folder, features__allow_missing=True))
    assert [name for name, clip in clips.items() if clip in cache.skipped] == ["2"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"hidden_size": None}, "config.json lacks hidden_size"),
        ({"frames_per_second": 0.0}, "frames_per_second is 0.0: it must be above 0"),
        ({"stored_frames": " "}, "does not name what made them"),
        ({"width": 12}, "config.json has width, which nothing reads"),
    ],
)
def test_a_wrong_description_is_told_with_its_folder(folder, changes, message):
    write(folder / "jukebox", {}, **changes)
    with pytest.raises(UserError, match=rf"^{folder}/jukebox: .*{message}"):
        weights.digest(folder / "jukebox", "encoder")

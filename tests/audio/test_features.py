"""Chunked, batched, padded and sharded features against the encoder called plainly."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.hidden_states import hidden_states
from helpers.small_cache import FEATURES
from ml_collections import ConfigDict

from musilingo_jax.audio import chunks, features
from musilingo_jax.audio import waveforms as audio
from musilingo_jax.audio.features import FeatureConfig
from musilingo_jax.models.pooling import pool
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.sharding import make_mesh, shardings

pytestmark = pytest.mark.medium

CONFIG = FEATURES
WINDOW = CONFIG.window_frames
CHUNK = CONFIG.chunk_windows * WINDOW  # 20 frames


def song(samples, seed):
    return np.random.default_rng(seed).normal(0, 0.2, samples).astype(np.float32)


def encode(mert, waveforms, config, mesh):
    """The features of whole waveforms, each of which comes in one block."""
    results = list(features.encode(mert, [[w] for w in waveforms], config, mesh))
    assert [number for number, _ in results] == list(range(len(results)))
    return [found for _, found in results]


@jax.jit
def plainly(mert, waveform):
    """One chunk, unbatched and unpadded: windows of the frames' mean, then pooled."""
    lengths = jnp.asarray([len(waveform)])
    frames = mert(waveform[None], lengths, reduce=lambda x, v: x, remat=False)
    return pool(frames, jnp.ones(frames.shape[:2], bool), WINDOW)[0][0]


def most(mert, frames):
    return mert.config.samples_for_frames(frames + 1) - 1


# A frame has 480 samples more than the one before it.
@pytest.mark.parametrize("frames, spare", [(1, 0), (12, 479), (20, 479)])
def test_a_song_of_one_chunk_is_encoded_whole(mert, mesh, frames, spare):
    waveform = song(mert.config.samples_for_frames(frames) + spare, frames)
    (found,) = encode(mert, [waveform], CONFIG, mesh)
    assert found.dtype == np.float32
    assert found.shape == (-(-frames // WINDOW), 32)
    np.testing.assert_allclose(found, plainly(mert, waveform), atol=1e-5)


@pytest.mark.parametrize("frames", [21, 40, 52])
def test_a_longer_song_is_its_chunks_one_after_the_other(mert, mesh, frames):
    waveform = song(most(mert, frames), frames)
    (found,) = encode(mert, [waveform], CONFIG, mesh)
    expected = []
    for start in range(0, frames, CHUNK):
        first = start * mert.config.samples_per_frame
        chunk = waveform[first : first + most(mert, CHUNK)]
        assert mert.config.frames(len(chunk)) == min(CHUNK, frames - start)
        expected.append(plainly(mert, chunk))
    np.testing.assert_allclose(found, np.concatenate(expected), atol=1e-5)
    assert len(found) == -(-frames // WINDOW)


def test_neighbours_do_not_matter(mert, mesh):
    sizes = [most(mert, frames) for frames in (6, 53, 10, 14, 21, 33, 1, 20, 38, 7)]
    waveforms = [song(samples, seed) for seed, samples in enumerate(sizes)]
    together = encode(mert, waveforms, CONFIG, mesh)
    assert len(together) == len(waveforms)
    for waveform, found in zip(waveforms, together, strict=True):
        (alone,) = encode(mert, [waveform], CONFIG, mesh)
        np.testing.assert_allclose(found, alone, atol=1e-5)
    backwards = encode(mert, waveforms[::-1], CONFIG, mesh)[::-1]
    for first, second in zip(together, backwards, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)


def test_eight_devices_give_what_one_gives(mert, mesh):
    waveforms = [song(most(mert, frames), frames) for frames in (12, 52, 14, 38)]
    wide = make_mesh(data=4, fsdp=2, tensor=1)
    spread = jax.device_put(mert, shardings(mert, wide))
    one = encode(mert, waveforms, CONFIG, mesh)
    eight = encode(spread, waveforms, CONFIG, wide)
    for first, second in zip(one, eight, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)


def test_few_shapes_are_compiled(mert, mesh):
    # Other tests have compiled most of them already: same encoder, same mesh.
    before = features.encode_batch._cache_size()
    for seed in range(3):
        rng = np.random.default_rng(seed)
        sizes = rng.integers(most(mert, 1), most(mert, 60), 20)
        encode(mert, [song(size, seed) for size in sizes], CONFIG, mesh)
    # Lengths of 1 and 2 windows, times 1 and 2 rows.
    assert features.encode_batch._cache_size() - before <= 4


@pytest.mark.parametrize(
    "count, batch_size, devices, rows",
    [
        (1, 8, 1, 1),
        (3, 8, 1, 4),
        (5, 6, 1, 6),
        (1, 8, 4, 4),
        (5, 8, 4, 8),
        (2, 2, 8, 8),
    ],
)
def test_rows_are_few_and_divide(count, batch_size, devices, rows):
    assert chunks.count_rows(count, batch_size=batch_size, devices=devices) == rows


def test_nothing_gives_nothing_and_too_little_is_refused(mert, mesh):
    assert encode(mert, [], CONFIG, mesh) == []
    error, found = encode(mert, [np.zeros(10), song(999, 0)], CONFIG, mesh)
    assert isinstance(error, UserError) and "10 samples" in str(error)
    assert found.shape == (1, 32)


@pytest.mark.parametrize("block", [100, 1_777, 10**6])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_blocks_and_batches_do_not_matter(mert, mesh, block, batch_size):
    sizes = [most(mert, frames) + 100 for frames in (6, 53, 21, 14)]
    waveforms = [song(samples, seed) for seed, samples in enumerate(sizes)]
    expected = encode(mert, waveforms, CONFIG, mesh)
    config = replace(CONFIG, batch_size=batch_size)
    cut = [[w[n : n + block] for n in range(0, len(w), block)] for w in waveforms]
    ahead = audio.read_ahead(iter(blocks) for blocks in cut)
    found = [vectors for _, vectors in features.encode(mert, ahead, config, mesh)]
    for first, second in zip(expected, found, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)


def test_the_number_of_threads_changes_nothing(mert, mesh, monkeypatch):
    waveforms = [song(most(mert, frames), frames) for frames in (6, 53, 10, 38, 4, 45)]
    found = []
    for threads in (1, 5):
        monkeypatch.setattr(audio, "_threads", lambda threads=threads: threads)
        ahead = audio.read_ahead(iter([waveform]) for waveform in waveforms)
        results = features.encode(mert, ahead, CONFIG, mesh)
        found.append([vectors.tobytes() for _, vectors in results])
    assert found[0] == found[1]


@jax.jit
def states(mert, waveform):
    return hidden_states(mert, waveform[None], jnp.asarray([len(waveform)]))[:, 0]


@pytest.mark.parametrize("frames", [20, 52])
def test_reductions_are_means_of_all_hidden_states(mert, mesh, frames):
    waveform = song(most(mert, frames), frames)
    stack = np.concatenate(
        [
            states(
                mert,
                waveform[start * mert.config.samples_per_frame :][: most(mert, CHUNK)],
            )
            for start in range(0, frames, CHUNK)
        ],
        axis=1,
    )
    assert stack.shape == (3, frames, 32)
    layers = replace(CONFIG, reduction="layers")
    (found,) = encode(mert, [waveform], layers, mesh)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, stack.mean(axis=1), atol=1e-5)
    (found,) = encode(mert, [waveform], replace(CONFIG, reduction="frames"), mesh)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, stack.mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("reduction", ["layers", "frames"])
def test_reductions_do_not_depend_on_neighbours(mert, mesh, reduction):
    config = replace(CONFIG, reduction=reduction)
    # Chunks of two windows all, some of them half empty, alone or in pairs.
    waveforms = [song(most(mert, frames), frames) for frames in (12, 52, 19, 35)]
    together = encode(mert, waveforms, config, mesh)
    for waveform, found in zip(waveforms, together, strict=True):
        (alone,) = encode(mert, [waveform], config, mesh)
        np.testing.assert_allclose(found, alone, atol=1e-5)


def test_a_song_that_fails_halfway_does_not_harm_others(mert, mesh):
    waveforms = [song(most(mert, frames), frames) for frames in (53, 14, 38)]

    def failing():
        yield song(most(mert, 53), 0)
        raise UserError("b.ogg: damaged")

    songs = [[waveforms[0]], failing(), [waveforms[1]], [waveforms[2]]]
    found = dict(features.encode(mert, songs, CONFIG, mesh))
    assert str(found.pop(1)) == "b.ogg: damaged"
    expected = encode(mert, waveforms, CONFIG, mesh)
    for first, second in zip(expected, found.values(), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)


def test_an_unexpected_error_is_raised(mert, mesh):
    def failing():
        yield song(999, 0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(features.encode(mert, [failing()], CONFIG, mesh))


def test_nan_is_an_error(mert, mesh):
    waveform = np.full(999, np.nan, np.float32)
    error, _ = encode(mert, [waveform, song(999, 0)], CONFIG, mesh)
    assert isinstance(error, UserError) and "NaN" in str(error)


def test_songs_on_both_sides_of_a_break_share_no_batch(mert, mesh):
    sizes = [most(mert, frames) for frames in (6, 53, 10, 21, 15, 38)]
    waveforms = [song(samples, seed) for seed, samples in enumerate(sizes)]
    songs = [[waveform] for waveform in waveforms]
    whole = dict(features.encode(mert, [*songs[:3], None, *songs[3:]], CONFIG, mesh))
    halves = [
        encode(mert, part, CONFIG, mesh) for part in (waveforms[:3], waveforms[3:])
    ]
    for number, expected in enumerate([*halves[0], *halves[1]]):
        np.testing.assert_array_equal(whole[number], expected)


def test_results_come_while_songs_still_go_in(mert, mesh):
    config = replace(CONFIG, batch_size=1)
    begun = []

    def songs():
        for number in range(400):
            begun.append(number)
            yield [song(most(mert, 3), number)]

    results = features.encode(mert, songs(), config, mesh)
    assert next(results)[0] == 0
    assert len(begun) < 5
    results.close()


def test_a_rare_length_does_not_wait_for_ever(mert, mesh):
    begun = []

    def songs():
        for number in range(400):
            begun.append(number)
            yield [song(most(mert, 19 if number == 0 else 6), number)]

    results = features.encode(mert, songs(), CONFIG, mesh)
    assert next(results)[0] == 0
    assert len(begun) < 100
    results.close()


def test_what_is_held_of_a_long_song_is_a_few_chunks(mert, mesh, monkeypatch):
    held = []
    cut = audio.cut

    def counted(blocks, **sizes):
        for chunk in cut(blocks, **sizes):
            # Of a whole number of blocks, not of the song.
            held.append(0 if chunk.base is None else len(chunk.base))
            yield chunk

    monkeypatch.setattr(audio, "cut", counted)
    blocks = (song(1_000, number) for number in range(500))
    ((_, found),) = features.encode(mert, [blocks], CONFIG, mesh)
    assert len(found) == -(-mert.config.frames(500_000) // WINDOW)
    assert max(held) <= most(mert, CHUNK) + 1_000


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("reduction", "mean", "choose one of 'pooled', 'layers', 'frames'"),
        ("reduction", 3, "choose one of|must be text"),
        ("window_frames", 0, "must be at least 1"),
        ("batch_size", 2.5, "must be a whole number"),
        ("chunk_windows", None, "must be a whole number"),
    ],
)
def test_wrong_settings_are_refused(key, value, problem):
    section = {"window_frames": 10, "chunk_windows": 2, "batch_size": 2}
    config = ConfigDict({"features": {**section, "cache": "elsewhere"}})
    assert FeatureConfig.from_config(config) == CONFIG
    config.features = {**section, key: value}
    message = rf"config\.features\.{key} is {value!r}: .*({problem})"
    with pytest.raises(UserError, match=message):
        FeatureConfig.from_config(config)


def test_silence_is_finite(mert, mesh):
    (found,) = encode(mert, [np.zeros(most(mert, 17), np.float32)], CONFIG, mesh)
    assert np.isfinite(found).all()

"""Chunked, batched, padded and sharded features against the encoder called plainly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from musilingo_jax import features
from musilingo_jax.features import FeatureConfig, encode
from musilingo_jax.models.adapter import pool
from musilingo_jax.models.mert import Mert
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.sharding import make_mesh

WINDOW = 5
CONFIG = FeatureConfig(window_frames=WINDOW, chunk_windows=3, batch_size=4)
ENCODER = {
    "model_type": "mert_model",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "conv_dim": [16, 24],
    "conv_kernel": [20, 24],
    "conv_stride": [16, 20],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "feat_extract_norm": "group",
    "do_stable_layer_norm": True,
    "layer_norm_eps": 1e-5,
}


@pytest.fixture(scope="module")
def mert():
    return Mert(MertConfig.from_dict(ENCODER), rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(data=1, fsdp=1, tensor=1)


def song(samples, seed):
    return np.random.default_rng(seed).normal(0, 0.2, samples).astype(np.float32)


@jax.jit
def plainly(mert, waveform):
    """One chunk, unbatched and unpadded: windows of the frames' mean, then pooled."""
    lengths = jnp.asarray([len(waveform)])
    frames = mert(waveform[None], lengths, reduce=lambda x, v: x, remat=False)
    return pool(frames, jnp.ones(frames.shape[:2], bool), WINDOW)[0][0]


def most(mert, frames):
    return mert.config.samples_for_frames(frames + 1) - 1


@pytest.mark.parametrize("frames, spare", [(1, 0), (6, 319), (15, 319)])
def test_a_song_of_one_chunk_is_encoded_whole(mert, mesh, frames, spare):
    waveform = song(mert.config.samples_for_frames(frames) + spare, frames)
    (found,) = encode(mert, [waveform], CONFIG, mesh)
    assert found.dtype == np.float32
    assert found.shape == (-(-frames // WINDOW), 32)
    np.testing.assert_allclose(found, plainly(mert, waveform), atol=1e-5)


@pytest.mark.parametrize("frames", [16, 30, 36])
def test_a_longer_song_is_its_chunks_one_after_the_other(mert, mesh, frames):
    waveform = song(most(mert, frames), frames)
    (found,) = encode(mert, [waveform], CONFIG, mesh)
    expected = []
    for start in range(0, frames, 15):
        first = start * mert.config.samples_per_frame
        chunk = waveform[first : first + most(mert, 15)]
        assert mert.config.frames(len(chunk)) == min(15, frames - start)
        expected.append(plainly(mert, chunk))
    np.testing.assert_allclose(found, np.concatenate(expected), atol=1e-5)
    assert len(found) == -(-frames // WINDOW)


def test_neighbours_do_not_matter(mert, mesh):
    sizes = [most(mert, frames) for frames in (3, 40, 5, 7, 16, 12, 1, 15, 29, 10)]
    waveforms = [song(samples, seed) for seed, samples in enumerate(sizes)]
    together = encode(mert, (waveform for waveform in waveforms), CONFIG, mesh)
    assert len(together) == len(waveforms)
    for waveform, found in zip(waveforms, together, strict=True):
        (alone,) = encode(mert, [waveform], CONFIG, mesh)
        np.testing.assert_allclose(found, alone, atol=1e-5)
    backwards = encode(mert, waveforms[::-1], CONFIG, mesh)[::-1]
    for first, second in zip(together, backwards, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)


def test_eight_devices_give_what_one_gives(mert, mesh):
    waveforms = [song(most(mert, frames), frames) for frames in (3, 40, 7, 29)]
    wide = make_mesh(data=4, fsdp=2, tensor=1)
    one, eight = (encode(mert, waveforms, CONFIG, m) for m in (mesh, wide))
    for first, second in zip(one, eight, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)


def test_few_shapes_are_compiled(mert, mesh):
    # Other tests have compiled most of them already: same encoder, same mesh.
    before = features._pooled._cache_size()
    for seed in range(3):
        rng = np.random.default_rng(seed)
        sizes = rng.integers(most(mert, 1), most(mert, 60), 20)
        encode(mert, [song(size, seed) for size in sizes], CONFIG, mesh)
    # Lengths of 1, 2 and 3 windows, times 1, 2 and 4 rows.
    assert features._pooled._cache_size() - before <= 9


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
    config = FeatureConfig(window_frames=5, chunk_windows=3, batch_size=batch_size)
    assert features._rows(count, config, devices) == rows


def test_nothing_gives_nothing_and_too_little_is_refused(mert, mesh):
    assert encode(mert, [], CONFIG, mesh) == []
    with pytest.raises(ValueError, match="less than one frame"):
        encode(mert, [np.zeros(10, np.float32)], CONFIG, mesh)


def test_silence_is_finite(mert, mesh):
    (found,) = encode(mert, [np.zeros(most(mert, 17), np.float32)], CONFIG, mesh)
    assert np.isfinite(found).all()

"""MERT against itself, and against odd waveforms."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from helpers import hidden_states as states
from helpers.quick_jit import QUICKLY, quick_jit
from helpers.random_weights import random_module

from musilingo_jax.models.layers import scan_layers
from musilingo_jax.models.mert import NAMES, Mert, MertLayer
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.models.pooling import pool

pytestmark = pytest.mark.medium

TINY = {
    "model_type": "hubert",
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": [8, 12, 16],
    "conv_kernel": [10, 4, 3],
    "conv_stride": [5, 2, 2],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "do_stable_layer_norm": True,
    "feat_extract_norm": "group",
    "layer_norm_eps": 1e-5,
}
WINDOW = 6
WITH_CQT = TINY | {
    "model_type": "mert_model",
    "sample_rate": 24_000,
    "conv_stride": [10, 4, 4],
    "conv_kernel": [10, 4, 4],
    "feature_extractor_cqt": True,
    "feature_extractor_cqt_bins": 84,
    "do_normalize": True,
    "do_stable_layer_norm": False,
    "feat_extract_norm": "layer",
}


def make(config_json):
    config = MertConfig.from_dict(config_json)
    return random_module(lambda: Mert(config, rngs=nnx.Rngs(0)))


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


hidden_states = quick_jit(states.hidden_states)


def pool_states(mert, waveform, lengths, remat=False):
    return mert(
        waveform, lengths, reduce=lambda x, valid: pool(x, valid, WINDOW), remat=remat
    )


pooled = quick_jit(pool_states)


def test_weight_norm_is_undone_and_redone():
    row = NAMES["positional.kernel"]
    magnitude, direction = np.abs(noise(1, 1, 16)), noise(8, 2, 16, seed=1)
    conv = torch.nn.utils.parametrizations.weight_norm(
        torch.nn.Conv1d(8, 8, 16, groups=4), dim=2
    )
    original = conv.parametrizations.weight
    with torch.no_grad():
        original.original0.copy_(torch.from_numpy(magnitude))
        original.original1.copy_(torch.from_numpy(direction))
    kernel = row.read(magnitude, direction)
    np.testing.assert_allclose(kernel.T, conv.weight.detach().numpy(), rtol=1e-5)
    np.testing.assert_allclose(row.read(*row.write(kernel)), kernel, rtol=1e-6)


@pytest.mark.quick("group norm, pre-norm")
@pytest.mark.parametrize(
    "config",
    [TINY | {"do_normalize": True}, WITH_CQT],
    ids=["group norm, pre-norm", "layer norm, post-norm, constant-Q"],
)
def test_padding_changes_nothing(config):
    """Two clips of one length beside a longer one, and alone."""
    mert = make(config)
    stride = mert.config.samples_per_frame
    short, full = stride * 17 + 3, stride * 44
    # What follows a clip is loud, not zero.
    waveform = noise(3, full) + 0.1
    together, together_valid = pooled(mert, waveform, np.array([short, short, full]))
    alone, alone_valid = pooled(mert, waveform[:2, :short], np.array([short, short]))
    windows = alone.shape[1]
    assert windows == -(-mert.config.frames(short) // WINDOW)
    assert together_valid[2].all()
    for row in range(2):
        scale = np.abs(alone[row]).max()
        assert np.abs(together[row, :windows] - alone[row]).max() < 1e-4 * scale
        np.testing.assert_array_equal(together[row, windows:], 0)
        np.testing.assert_array_equal(together_valid[row, :windows], alone_valid[row])
        assert not together_valid[row, windows:].any()


def test_silence_and_clips_without_a_frame_stay_finite():
    # Of the shape of the test above, so that nothing is compiled again.
    mert = make(WITH_CQT)
    samples = mert.config.samples_per_frame * 44
    features, valid = pooled(
        mert, np.zeros((3, samples), np.float32), np.array([2000, 30, 0])
    )
    assert np.isfinite(features).all()
    np.testing.assert_array_equal(valid.any(axis=1), [True, False, False])
    np.testing.assert_array_equal(features[1:], 0)


def test_scan_is_loop():
    mert = make(TINY)
    waveform, lengths = noise(2, 700), np.array([700, 555])

    x, valid = quick_jit(Mert.embed)(mert, waveform, lengths)
    looped = [x]
    for index in range(mert.config.num_hidden_layers):
        layer = jax.tree.map(lambda array, i=index: array[i], mert.layers)
        looped.append(quick_jit(MertLayer.__call__)(layer, looped[-1], valid))
    looped[-1] = quick_jit(Mert.finish)(mert, looped[-1])
    scanned = hidden_states(mert, waveform, lengths)
    np.testing.assert_allclose(scanned, np.stack(looped), atol=1e-5)


@pytest.mark.parametrize(("pre_norm", "remat"), [(True, False), (False, True)])
def test_reduced_in_the_carry_is_the_mean_of_the_hidden_states(pre_norm, remat):
    mert = make(TINY | {"do_stable_layer_norm": pre_norm})
    waveform, lengths = noise(2, 700), np.array([700, 555])
    states = hidden_states(mert, waveform, lengths)

    def reduce(x, valid):
        return {"frames": x, "first": (x[:, 0], jnp.where(valid, x[..., 0], 0))}

    mean = quick_jit(lambda mert: mert(waveform, lengths, reduce=reduce, remat=remat))
    reduced = mean(mert)
    np.testing.assert_allclose(reduced["frames"], states.mean(0), atol=1e-5)
    np.testing.assert_allclose(reduced["first"][0], states.mean(0)[:, 0], atol=1e-5)


@pytest.mark.slow
def test_memory_does_not_grow_with_depth():
    """Hidden states are not stacked, unless they are asked for."""

    def mean(mert, waveform, lengths):
        return mert(waveform, lengths, reduce=lambda x, valid: x, remat=False)

    def temporaries(function, depth):
        front = {"conv_dim": [16], "conv_kernel": [10], "conv_stride": [10]}
        sizes = {"hidden_size": 256, "num_hidden_layers": depth}
        config = MertConfig.from_dict(TINY | front | sizes)
        mert = jax.eval_shape(lambda: Mert(config, rngs=nnx.Rngs(0)))
        shapes = [jax.ShapeDtypeStruct((2, 500), jnp.float32)]
        shapes += [jax.ShapeDtypeStruct((2,), jnp.int32)]
        compiled = jax.jit(function).lower(mert, *shapes).compile(QUICKLY)
        one_state = 4 * 2 * config.frames(500) * config.hidden_size
        return compiled.memory_analysis().temp_size_in_bytes / one_state

    def mean_of_stack(*arguments):
        return states.hidden_states(*arguments).mean(axis=0)

    assert abs(temporaries(mean, 12) - temporaries(mean, 4)) < 1
    assert temporaries(mean_of_stack, 12) - temporaries(mean_of_stack, 4) > 7


def test_gradients_reach_every_parameter_with_and_without_remat():
    mert = make(WITH_CQT | {"feat_extract_norm": "group", "do_stable_layer_norm": True})
    waveform, lengths = 0.1 * noise(2, 5000), np.array([5000, 4321])
    waveform[0, :2500] = 0  # Silence, where a magnitude has no derivative.

    @partial(quick_jit, static_argnames="remat")
    def gradient(mert, remat):
        def loss(mert):
            features, _ = pool_states(mert, waveform, lengths, remat)
            return jnp.mean(jnp.square(features - 1))

        return jax.grad(loss)(mert)

    kept, again = gradient(mert, remat=False), gradient(mert, remat=True)
    for (path, first), second in zip(
        jax.tree_util.tree_leaves_with_path(kept), jax.tree.leaves(again), strict=True
    ):
        where = jax.tree_util.keystr(path)
        assert np.isfinite(first).all(), where
        # Keys are added to all scores of a query alike, so their bias has no effect.
        assert np.abs(first).max() > 1e-9 or "key.bias" in where, where
        np.testing.assert_allclose(first, second, atol=1e-6, err_msg=where)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_layers_are_scanned_in_order_and_have_gradients(dtype):
    layers = jnp.asarray([2.0, 3.0, 5.0], dtype)

    def last(layers):
        x, seen = scan_layers(lambda x, w: (x * 10 + w, x), jnp.float32(1), layers)
        return x, seen

    (x, seen), gradient = jax.jit(jax.value_and_grad(last, has_aux=True))(layers)
    assert (x, seen.tolist()) == (1235, [1, 12, 123])
    assert gradient.dtype == dtype
    np.testing.assert_array_equal(gradient, [100, 10, 1])


def test_normalize_is_that_of_the_released_extractor():
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    waveform = 3 * noise(1, 900) + 1
    expected = extractor(waveform[0], sampling_rate=16_000)["input_values"][0][None]
    normalizing = make(TINY | {"do_normalize": True})
    plain = make(TINY)
    lengths = np.array([900])
    embed = quick_jit(Mert.embed)
    np.testing.assert_allclose(
        embed(normalizing, waveform, lengths)[0],
        embed(plain, expected, lengths)[0],
        atol=1e-4,
    )

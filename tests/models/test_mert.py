"""MERT against itself and definitions in numpy, and against odd files."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from helpers.released_configs import MERT_95M, MERT_330M

from musilingo_jax.models.adapter import pool
from musilingo_jax.models.convolution import (
    convolution_by_products,
    direct_convolution,
    fourier_convolution,
    strided_convolution,
)
from musilingo_jax.models.cqt import bin_frequencies, cqt
from musilingo_jax.models.layers import attention, attention_in_turn, scan_layers
from musilingo_jax.models.mert import NAMES, Mert, MertConfig
from musilingo_jax.runtime.errors import UserError

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
WITH_CQT = TINY | {
    "model_type": "mert_model",
    "sample_rate": 24_000,
    "conv_stride": [10, 4, 4],
    "conv_kernel": [10, 4, 4],
    "feature_extractor_cqt": True,
    "feature_extractor_cqt_bins": 84,
}


def make(config_json):
    """A random model, biases and norms included, so that a missing one would show."""
    config = MertConfig.from_dict(config_json)
    abstract = jax.eval_shape(lambda: Mert(config, rngs=nnx.Rngs(0)))
    leaves, structure = jax.tree_util.tree_flatten_with_path(abstract)
    arrays = []
    for seed, (path, leaf) in enumerate(leaves):
        # Normalised by the fan-in, or nearly so; the other parameters are small.
        kernel = "kernel" in jax.tree_util.keystr(path)
        scale = leaf.shape[-2] ** -0.5 if kernel else 0.3
        arrays.append(jnp.asarray(scale * noise(*leaf.shape, seed=seed)))
    return structure.unflatten(arrays)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@jax.jit
def hidden_states(mert, waveform, lengths):
    return mert.hidden_states(waveform, lengths)


@partial(jax.jit, static_argnames=("window", "remat"))
def pooled(mert, waveform, lengths, window=6, remat=False):
    return mert(
        waveform, lengths, reduce=lambda x, valid: pool(x, valid, window), remat=remat
    )


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


@pytest.mark.parametrize(
    "config",
    [
        TINY | {"do_normalize": True},
        TINY | {"feat_extract_norm": "layer", "do_stable_layer_norm": False},
        WITH_CQT | {"num_hidden_layers": 1},
    ],
    ids=["group norm", "layer norm", "constant-Q"],
)
def test_padding_changes_nothing(config):
    mert = make(config)
    stride, window = mert.config.samples_per_frame, 6
    lengths = np.array([stride * 17 + 3, stride * 40])
    waveform = noise(2, stride * 44) + 0.1  # What follows a clip is loud, not zero.
    together, together_valid = pooled(mert, waveform, lengths, window)
    for row, length in enumerate(lengths):
        alone, alone_valid = pooled(
            mert, waveform[row : row + 1, :length], lengths[row : row + 1], window
        )
        windows = alone.shape[1]
        assert windows == -(-mert.config.frames(int(length)) // window)
        scale = np.abs(alone).max()
        assert np.abs(together[row, :windows] - alone[0]).max() < 1e-4 * scale
        np.testing.assert_array_equal(together[row, windows:], 0)
        np.testing.assert_array_equal(together_valid[row, :windows], alone_valid[0])
        assert not together_valid[row, windows:].any()


def test_scan_is_loop():
    mert = make(TINY)
    waveform, lengths = noise(2, 700), np.array([700, 555])

    @jax.jit
    def loop(mert):
        x, valid = mert.embed(waveform, lengths)
        states = [x]
        for index in range(mert.config.num_hidden_layers):
            layer = jax.tree.map(lambda array: array[index], mert.layers)  # noqa: B023
            states.append(layer(states[-1], valid))
        return jnp.stack([*states[:-1], mert.norm(states[-1])])

    scanned = hidden_states(mert, waveform, lengths)
    np.testing.assert_allclose(scanned, loop(mert), atol=1e-5)


@pytest.mark.parametrize("remat", [True, False])
@pytest.mark.parametrize("pre_norm", [True, False])
def test_reduced_in_the_carry_is_the_mean_of_the_hidden_states(pre_norm, remat):
    mert = make(TINY | {"do_stable_layer_norm": pre_norm})
    waveform, lengths = noise(2, 700), np.array([700, 555])
    states = hidden_states(mert, waveform, lengths)

    def reduce(x, valid):
        return {"frames": x, "first": (x[:, 0], jnp.where(valid, x[..., 0], 0))}

    mean = jax.jit(lambda mert: mert(waveform, lengths, reduce=reduce, remat=remat))
    reduced = mean(mert)
    np.testing.assert_allclose(reduced["frames"], states.mean(0), atol=1e-5)
    np.testing.assert_allclose(reduced["first"][0], states.mean(0)[:, 0], atol=1e-5)


def test_memory_does_not_grow_with_depth():
    """Nor is any stack of hidden states held, unless it is asked for."""

    def mean(mert, waveform, lengths):
        return mert(waveform, lengths, reduce=lambda x, valid: x, remat=False)

    def temporaries(function, depth):
        config = MertConfig.from_dict(
            TINY | {"hidden_size": 256, "num_hidden_layers": depth}
        )
        mert = jax.eval_shape(lambda: Mert(config, rngs=nnx.Rngs(0)))
        shapes = [jax.ShapeDtypeStruct((2, 8_000), jnp.float32)]
        shapes += [jax.ShapeDtypeStruct((2,), jnp.int32)]
        compiled = jax.jit(function).lower(mert, *shapes).compile()
        one_state = 4 * 2 * config.frames(8_000) * config.hidden_size
        return compiled.memory_analysis().temp_size_in_bytes / one_state

    def mean_of_stack(*arguments):
        return Mert.hidden_states(*arguments).mean(axis=0)

    assert abs(temporaries(mean, 12) - temporaries(mean, 4)) < 1
    assert temporaries(mean_of_stack, 12) - temporaries(mean_of_stack, 4) > 7


def test_gradients_reach_every_parameter_with_and_without_remat():
    mert = make(WITH_CQT)
    waveform, lengths = 0.1 * noise(2, 5000), np.array([5000, 4321])
    waveform[0, :2500] = 0  # Silence, where a magnitude has no derivative.

    @partial(jax.jit, static_argnames="remat")
    def gradient(mert, remat):
        def loss(mert):
            features, _ = pooled(mert, waveform, lengths, remat=remat)
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


@pytest.mark.parametrize("size", [16, 7])
@pytest.mark.parametrize("time", [3, 61])
def test_fourier_convolution_is_direct_convolution(time, size):
    x, kernel = noise(2, time, 12), noise(size, 3, 12, seed=1)

    def value_and_gradients(convolution):
        def total(x, kernel):
            y = convolution(x, kernel, 4)
            return jnp.sum(jnp.sin(y)), y

        return jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))(
            x, kernel
        )

    for fourier, direct in zip(
        jax.tree.leaves(value_and_gradients(fourier_convolution)),
        jax.tree.leaves(value_and_gradients(direct_convolution)),
        strict=True,
    ):
        np.testing.assert_allclose(fourier, direct, atol=2e-5 * np.abs(direct).max())


@pytest.mark.parametrize("convolve", [strided_convolution, convolution_by_products])
@pytest.mark.parametrize("width, stride", [(6, 3), (5, 2), (4, 4), (2, 3)])
def test_strided_convolution_is_its_definition(width, stride, convolve):
    x, kernel = noise(2, 31, 3), noise(width, 3, 5, seed=1)
    starts = range(0, 31 - width + 1, stride)
    expected = [np.tensordot(x[:, t : t + width], kernel, 2) for t in starts]
    y = convolve(jnp.asarray(x), jnp.asarray(kernel), stride)
    np.testing.assert_allclose(y, np.stack(expected, axis=1), atol=1e-4)


def test_heads_in_turn_are_heads_together():
    query, key, value = (
        jnp.asarray(noise(2, length, 3, 8, seed=seed), jnp.bfloat16)
        for seed, length in enumerate((5, 7, 7))
    )
    attend = jnp.asarray(noise(2, 5, 7) > 0).at[0, 1].set(False)
    np.testing.assert_allclose(
        attention_in_turn(query, key, value, attend),
        attention(query, key, value, attend),
        atol=1e-6,
    )


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


def test_frozen_layers_in_bfloat16_are_not_copied():
    config = MertConfig.from_dict(TINY | {"hidden_size": 256, "num_hidden_layers": 24})
    mert = jax.eval_shape(lambda: Mert(config, rngs=nnx.Rngs(0)))
    shapes = [jax.ShapeDtypeStruct((1, 500), jnp.float32)]
    shapes += [jax.ShapeDtypeStruct((1,), jnp.int32)]

    def as_bfloat16(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16)

    mert = jax.tree.map(as_bfloat16, mert)
    compiled = pooled.lower(mert, *shapes).compile()
    stack = sum(2 * leaf.size for leaf in jax.tree.leaves(mert.layers))
    assert compiled.memory_analysis().temp_size_in_bytes < stack / 4


def bins_of(waveform, *, rate=24_000, bins=84, hop=960, centre=500.0, frames=20):
    transform = partial(
        cqt, sample_rate=rate, bins=bins, hop=hop, first_centre=centre, frames=frames
    )
    return np.asarray(jax.jit(transform)(jnp.asarray(waveform, jnp.float32)))


def test_cqt_puts_a_tone_into_its_bin():
    time = np.arange(24_000) / 24_000
    frequencies = bin_frequencies(84)
    concert_pitch = int(np.argmin(np.abs(frequencies - 440)))
    assert concert_pitch == 45
    tested = [14, 30, concert_pitch, 59, 60, 71, 83]
    tones = 0.5 * np.sin(2 * np.pi * frequencies[tested, None] * time)
    tones[2] = 0.5 * np.sin(2 * np.pi * 440 * time)
    magnitudes = bins_of(tones)[:, 10]
    np.testing.assert_array_equal(magnitudes.argmax(axis=1), tested)
    np.testing.assert_allclose(magnitudes.max(axis=1), 0.25, rtol=0.01)
    for magnitude, bin_ in zip(magnitudes, tested, strict=True):
        # Nothing folds down into the octaves computed at lower rates.
        far = np.abs(np.arange(84) - bin_) > 12
        assert magnitude[far].max() < 2e-3 * magnitude[bin_]


def test_cqt_of_silence_is_zero():
    np.testing.assert_array_equal(bins_of(np.zeros((1, 24_000))), 0)


@pytest.mark.parametrize("hop, bins", [(960, 84), (375, 84), (480, 42)])
def test_cqt_is_its_definition(hop, bins):
    """Every bin from the waveform at its full rate, in float64."""
    rate, centre = 24_000, 437.5
    waveform = noise(1, rate)
    frames = 1 + (rate - 1000) // hop
    magnitudes = bins_of(waveform, bins=bins, hop=hop, centre=centre, frames=frames)
    per_octave = bins // 7
    quality = 1 / (2 ** (1 / per_octave) - 1)
    frame = frames // 2
    offsets = np.arange(rate) - (centre + frame * hop)
    for bin_, frequency in enumerate(bin_frequencies(bins)):
        length = quality * rate / frequency
        window = np.where(
            np.abs(offsets) <= length / 2, np.cos(np.pi * offsets / length) ** 2, 0
        )
        tone = np.exp(2j * np.pi * frequency / rate * offsets)
        expected = np.abs(np.sum(waveform[0] * window * tone)) / np.sum(window)
        assert magnitudes[0, frame, bin_] == pytest.approx(expected, rel=0.02, abs=1e-4)


def test_cqt_frames_stand_where_the_convolutions_do():
    config = MertConfig.from_dict(WITH_CQT)
    centre = (config.receptive_field - 1) / 2
    frame = 30
    waveform = np.zeros((1, 60 * config.samples_per_frame))
    waveform[0, round(centre + frame * config.samples_per_frame)] = 1
    magnitudes = bins_of(waveform, hop=160, centre=centre, frames=60)
    assert magnitudes[0, :, -1].argmax() == frame
    np.testing.assert_allclose(
        magnitudes[0, frame - 5 : frame],
        magnitudes[0, frame + 5 : frame : -1],
        atol=1e-4,
    )


def test_normalize_is_that_of_the_released_extractor():
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    waveform = 3 * noise(1, 900) + 1
    expected = extractor(waveform[0], sampling_rate=16_000)["input_values"][0][None]
    normalizing = make(TINY | {"do_normalize": True})
    plain = make(TINY)
    lengths = np.array([900])
    np.testing.assert_allclose(
        hidden_states(normalizing, waveform, lengths),
        hidden_states(plain, expected, lengths),
        atol=1e-4,
    )


def test_silence_and_clips_without_a_frame_stay_finite():
    mert = make(WITH_CQT | {"do_normalize": True})
    lengths = np.array([2000, 30, 0])
    features, valid = pooled(mert, np.zeros((3, 2000), np.float32), lengths)
    assert np.isfinite(features).all()
    np.testing.assert_array_equal(valid.any(axis=1), [True, False, False])
    np.testing.assert_array_equal(features[1:], 0)


def test_frames_are_those_of_the_released_model():
    config = MertConfig.from_dict(MERT_330M)
    seconds, frames = [5, 10, 15.5, 30], [374, 749, 1162, 2249]
    samples = [int(24_000 * second) for second in seconds]
    assert [config.frames(count) for count in samples] == frames
    mert = jax.eval_shape(lambda: Mert(config, rngs=nnx.Rngs(0)))
    np.testing.assert_array_equal(mert.frames(jnp.array(samples)), frames)
    assert (config.samples_per_frame, config.frames_per_second) == (320, 75)
    for count in (1, 2, 374):
        enough = config.samples_for_frames(count)
        assert (config.frames(enough), config.frames(enough - 1)) == (count, count - 1)
    assert config.frames(0) == 0
    np.testing.assert_array_equal(config.frames(np.array([0, 100, 400])), [0, 0, 1])


@pytest.mark.parametrize("released", [MERT_330M, MERT_95M], ids=["330M", "95M"])
def test_config_survives_json_and_the_public_library(released):
    config = MertConfig.from_dict(released)
    assert MertConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    hash(config)
    ours = dataclasses.replace(config, model_type="hubert")
    public = transformers.HubertConfig(**ours.to_dict())
    assert MertConfig.from_dict(json.loads(public.to_json_string(use_diff=False))) == (
        dataclasses.replace(ours)
    )


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"rotary_base": 10_000}, "unknown attribute 'rotary_base'"),
        ({"deepnorm": True}, "deepnorm is True"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"conv_pos_batch_norm": True}, "conv_pos_batch_norm is True"),
        ({"adapter_attn_dim": 16}, "adapter_attn_dim is 16"),
        ({"add_adapter": True}, "add_adapter is True"),
        ({"model_type": "llama"}, "model_type is 'llama'"),
        ({"num_feat_extract_layers": 6}, "num_feat_extract_layers is 6"),
        ({"conv_dim": [512] * 6, "num_feat_extract_layers": 6}, "same length"),
        ({"feat_extract_norm": "batch"}, "feat_extract_norm"),
        ({"num_attention_heads": 15}, "num_attention_heads 15"),
        ({"num_conv_pos_embedding_groups": 3}, "num_conv_pos_embedding_groups 3"),
        ({"feature_extractor_cqt": True, "feature_extractor_cqt_bins": 6}, "is 6"),
        ({"feature_extractor_cqt": True, "sample_rate": 8000}, "not 8000"),
    ],
)
def test_a_config_that_means_something_else_is_refused_by_name(changed, message):
    with pytest.raises(UserError, match=message):
        MertConfig.from_dict(MERT_330M | changed)


@pytest.mark.parametrize("name", ["hidden_size", "do_stable_layer_norm", "conv_dim"])
def test_a_config_without_an_attribute_is_refused_by_name(name):
    incomplete = {key: value for key, value in MERT_330M.items() if key != name}
    incomplete.pop("num_feat_extract_layers")
    with pytest.raises(UserError, match=f"missing {name}"):
        MertConfig.from_dict(incomplete)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_size", "1024"),
        ("hidden_size", 0),
        ("num_attention_heads", 0),
        ("num_hidden_layers", 2.5),
        ("num_hidden_layers", True),
        ("num_hidden_layers", 10**7),
        ("intermediate_size", None),
        ("conv_stride", None),
        ("conv_stride", [0] * 7),
        ("conv_kernel", 5),
        ("conv_dim", ["a"] * 7),
        ("layer_norm_eps", "small"),
        ("layer_norm_eps", float("nan")),
        ("do_normalize", "yes"),
        ("sample_rate", "24000"),
        ("sample_rate", 0),
        ("num_conv_pos_embeddings", 0),
        ("feat_extract_norm", 3),
        ("model_type", ["mert_model"]),
    ],
)
def test_a_config_of_other_types_is_refused_by_name(name, value):
    with pytest.raises(UserError, match=f"{name} is"):
        MertConfig.from_dict(MERT_330M | {name: value})

"""MU-LLaMA's bridge and LoRA: the same numbers as an independent model in PyTorch."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from helpers import torch_mu_llama
from helpers.gated_model import BRIDGE, SMALL, TUNING, in_torch, model_parts
from helpers.quick_jit import quick_jit

from musilingo_jax.models.answer_loss import Batch, answer_loss
from musilingo_jax.models.int8 import quantize_language_model
from musilingo_jax.models.llama import unstacked
from musilingo_jax.models.lora import MAPS
from musilingo_jax.runtime.sharding import make_mesh, shardings

pytestmark = pytest.mark.medium

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def parts():
    return model_parts()


@pytest.fixture(scope="module")
def features():
    return np.random.default_rng(4).normal(size=(2, 5, 10)).astype(np.float32)


def batch_of(features, time=9, answer=4):
    """A row for each clip: words alone, the last of which are the answer."""
    rows = len(features)
    tokens = np.random.default_rng(5).integers(0, SMALL.vocab, (rows, time))
    return Batch(
        features=features,
        tokens=tokens,
        audio_slot=np.full((rows, time), -1),
        segments=np.ones((rows, time), int),
        positions=np.tile(np.arange(time), (rows, 1)),
        targets=np.tile(np.arange(time - answer, time), (rows, 1)),
    )


def loss_in_torch(parts, batch, answer=4):
    weights = in_torch(parts)
    audio = torch_mu_llama.hear(
        weights, torch.tensor(np.asarray(batch.features)), BRIDGE.blocks
    )
    scores = torch_mu_llama.logits(
        weights,
        torch.tensor(np.asarray(batch.tokens)),
        audio,
        depth=SMALL.depth,
        heads=SMALL.heads,
        query_layers=BRIDGE.query_layers,
    )
    targets = torch.tensor(np.asarray(batch.tokens))[:, -answer:]
    loss = torch.nn.functional.cross_entropy(
        scores[:, -answer - 1 : -1].reshape(-1, SMALL.vocab),
        targets.reshape(-1),
        reduction="sum",
    )
    return loss, weights


def assert_near(found, expected):
    expected = np.asarray(expected)
    largest = np.abs(expected).max()
    assert largest > 0
    np.testing.assert_allclose(found, expected, atol=TOLERANCE * largest, rtol=0)


def test_what_is_heard_is_that_of_torch(parts, features):
    heard = parts.bridge(features, parts.llama)
    assert heard.spliced is None
    weights = in_torch(parts)
    with torch.no_grad():
        audio = torch_mu_llama.hear(weights, torch.tensor(features), BRIDGE.blocks)
        assert_near(parts.bridge.vector(jnp.asarray(features)), audio)
        for i in range(SMALL.depth):
            added = torch.zeros(2, 24)
            if i > 0:
                value = weights[f"layers.{i}.value.weight"]
                added = (audio + weights["queries"][i - 1]) @ value.T
                gates = weights["gates"][i].tanh().repeat_interleave(8)
                added = added * gates
                assert_near(heard.added[i, :, 0], added)
            else:  # A layer without a query hears nothing, whatever its gate is.
                np.testing.assert_array_equal(heard.added[i, :, 0], added)


@pytest.mark.parametrize("with_tuning", [False, True])
def test_loss_and_gradients_are_those_of_torch(parts, features, with_tuning):
    """Stage 1 learns the bridge, stage 2 what is beside the weights."""
    whole = parts if with_tuning else parts.without("tuning")
    learns = "tuning" if with_tuning else "bridge"
    batch = batch_of(features)
    loss, weights = loss_in_torch(whole, batch)
    loss.backward()
    differentiate = quick_jit(
        jax.value_and_grad(partial(answer_loss, remat="nothing"), has_aux=True)
    )
    (total, count), gradient = differentiate(
        whole.only(learns), whole.without(learns), batch
    )
    assert int(count) == 8
    np.testing.assert_allclose(total, loss.item(), rtol=1e-5)

    if with_tuning:
        slopes = gradient.tuning
        assert_near(slopes.norm[...], weights["norm"].grad)
        for i in range(SMALL.depth):
            where = f"layers.{i}"
            grad = weights[f"{where}.mlp_norm"].grad
            assert_near(slopes.layers.mlp_norm[...][i], grad)
            for name in MAPS:
                extra = getattr(slopes.layers, name)
                assert_near(extra.a[...][i].T, weights[f"{where}.{name}.a"].grad)
                assert_near(extra.b[...][i].T, weights[f"{where}.{name}.b"].grad)
                if name in TUNING.biases:
                    grad = weights[f"{where}.{name}.bias"].grad
                    assert_near(extra.bias[...][i], grad)
    else:
        slopes = gradient.bridge
        assert_near(slopes.queries[...], weights["queries"].grad)
        assert_near(slopes.gates[...][1:], weights["gates"].grad[1:])
        np.testing.assert_array_equal(slopes.gates[...][0], 0)
        assert_near(slopes.mix.kernel[...].T, weights["mix.weight"].grad)
        assert_near(slopes.mix.bias[...], weights["mix.bias"].grad)
        kernel = slopes.projection.kernel[...].T
        assert_near(kernel, weights["projection.weight"].grad)
        for i in range(BRIDGE.blocks):
            for ours, theirs in (("gate", "gate_proj"), ("up", "up_proj")):
                grad = weights[f"blocks.{i}.{theirs}.weight"].grad
                assert_near(getattr(slopes.blocks, ours).kernel[...][i].T, grad)


def test_cached_decoding_and_int8_hear_the_same(parts, features):
    """Token by token through a cache, whose rows hold what they hear."""
    batch = batch_of(features)
    int8 = dataclasses.replace(parts, llama=quantize_language_model(parts.llama))
    for whole in (parts, int8):
        heard = whole.bridge(features, whole.llama)
        read = quick_jit(
            lambda llama, added, whole=whole: llama(
                llama.embed(batch.tokens),
                positions=batch.positions,
                segments=batch.segments,
                remat="everything",
                added=added,
                tuning=whole.tuning,
            )
        )
        expected = read(whole.llama, heard.added)
        deaf = read(whole.llama, jnp.zeros_like(heard.added))
        assert float(jnp.abs(expected - deaf).max()) > 0.01
        llama = unstacked(jax.tree.map(jnp.copy, whole.llama))
        again = whole.bridge(features, llama)
        np.testing.assert_allclose(again.added, heard.added, atol=1e-5)
        cache = llama.empty_cache(batch=2, slots=12, hears=True).hear(again.added)
        beside = whole.tuning.unstacked()
        first, cache = llama(
            llama.embed(batch.tokens[:, :6]), cache, lengths=6, tuning=beside
        )
        # A row that moves takes what it hears with it.
        cache = cache.take(jnp.array([1, 0]))
        tokens = batch.tokens[::-1, 6:]
        second, _ = llama(llama.embed(tokens), cache, lengths=3, tuning=beside)
        tolerance = 0.05 if whole is int8 else 1e-4
        np.testing.assert_allclose(first, expected[:, :6], atol=tolerance)
        np.testing.assert_allclose(second[::-1], expected[:, 6:], atol=tolerance)


def test_clips_that_share_a_row_are_heard_by_their_own_texts(parts, features):
    apart = batch_of(features)
    rows = jax.tree.map(lambda array: array.reshape(1, -1), apart)
    packed = dataclasses.replace(
        rows,
        features=features.reshape(1, 10, 10),
        segments=np.repeat([[1, 2]], 9, axis=1),
        targets=np.concatenate([apart.targets[0], 9 + apart.targets[1]])[None],
    )
    # In two rows more, which are padding.
    for name in ("bridge", "tuning"):
        loss = quick_jit(
            jax.value_and_grad(partial(answer_loss, remat="everything"), has_aux=True)
        )
        (one, _), slope = loss(parts.only(name), parts.without(name), apart)
        (two, _), same = loss(parts.only(name), parts.without(name), packed)
        np.testing.assert_allclose(two, one, rtol=1e-5)
        for a, b in zip(*map(jax.tree.leaves, (slope, same)), strict=True):
            np.testing.assert_allclose(b, a, atol=1e-4 * max(1, float(abs(a).max())))


def test_eight_devices_give_the_numbers_of_one(parts, features):
    batch = batch_of(np.tile(features, (4, 1, 1)))
    loss = jax.jit(
        jax.value_and_grad(partial(answer_loss, remat="nothing"), has_aux=True)
    )
    (one, _), slope = loss(parts.only("bridge"), parts.without("bridge"), batch)
    mesh = make_mesh(2, 2, 2)
    spread = jax.device_put(parts, shardings(parts, mesh))
    kernel = spread.bridge.blocks.gate.kernel[...]
    assert kernel.sharding.shard_shape(kernel.shape) == (2, 12, 16)
    (eight, _), same = loss(spread.only("bridge"), spread.without("bridge"), batch)
    np.testing.assert_allclose(eight, one, rtol=1e-5)
    for a, b in zip(*map(jax.tree.leaves, (slope, same)), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-4 * max(1, float(abs(a).max())))

"""Audio among words, who may look at whom, and the loss of the answer."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers.quick_jit import quick_jit
from helpers.random_weights import random_module

from musilingo_jax.models import answer_loss as losses
from musilingo_jax.models.answer_loss import Batch, answer_loss, splice
from musilingo_jax.models.bridges.linear import LinearBridge
from musilingo_jax.models.llama import Llama
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.parts import Parts
from musilingo_jax.models.remat import POLICIES

pytestmark = pytest.mark.medium

VOCAB, WIDTH_IN, WIDTH = 31, 6, 16
SMALL = LlamaConfig(
    vocab=VOCAB,
    width=WIDTH,
    depth=2,
    heads=2,
    key_heads=2,
    head_dim=8,
    mlp_width=24,
    norm_eps=1e-6,
    rope_theta=10_000.0,
    rope_scaling=None,
    tied=False,
)


@pytest.fixture(scope="module")
def models():
    return (
        random_module(
            lambda: Parts(bridge=LinearBridge(WIDTH_IN, WIDTH, rngs=nnx.Rngs(0)))
        ),
        random_module(lambda: Parts(llama=Llama(SMALL, rngs=nnx.Rngs(0)))),
    )


def example(seed, time, windows, answer):
    """One row: a word, `windows` of audio, words, and an answer at the end."""
    random = np.random.default_rng(seed)
    slots = np.full((1, time), -1)
    slots[0, 1 : 1 + windows] = np.arange(windows)
    arrays = {
        "features": random.normal(size=(1, windows, WIDTH_IN)).astype(np.float32),
        "tokens": random.integers(0, VOCAB, (1, time)),
        "audio_slot": slots,
        "segments": np.ones((1, time), int),
        "positions": np.arange(time)[None],
        "targets": np.arange(time - answer, time)[None],
    }
    return Batch(**{name: jnp.asarray(array) for name, array in arrays.items()})


loss_of = quick_jit(answer_loss, static_argnames="remat")


def test_splice_is_as_drawn():
    text = jnp.arange(5.0)[None, :, None] * jnp.ones(3)
    audio = 100 + jnp.arange(2.0)[None, :, None] * jnp.ones(3)
    spliced = splice(text, audio, jnp.array([[-1, -1, 0, 1, -1]]))
    assert spliced[0, :, 0].tolist() == [0, 1, 100, 101, 4]


def test_splice_of_audio_that_is_not_there_is_nan():
    spliced = splice(jnp.ones((1, 2, 3)), jnp.ones((1, 1, 3)), jnp.array([[-1, 1]]))
    assert not jnp.isnan(spliced[0, 0]).any()
    assert jnp.isnan(spliced[0, 1]).all()


def test_loss_is_the_cross_entropy_of_the_answer(models):
    adapter, llama = models
    batch = example(0, time=10, windows=2, answer=3)
    total, count = loss_of(adapter, llama, batch, remat="everything")
    llama = llama.llama
    embeddings = np.array(llama.embed(batch.tokens))
    embeddings[:, 1:3] = adapter.bridge(batch.features, llama).spliced
    hidden = quick_jit(Llama.__call__, static_argnames="remat")(
        llama,
        jnp.asarray(embeddings),
        positions=batch.positions,
        segments=jnp.ones((1, 10), jnp.int32),
        remat="everything",
    )
    chances = jax.nn.log_softmax(llama.logits(hidden))[0]
    expected = -sum(float(chances[t - 1, batch.tokens[0, t]]) for t in (7, 8, 9))
    assert (total.dtype, count.dtype) == (jnp.float32, jnp.int32)
    assert int(count) == 3
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_the_adapter_learns_from_the_answer_through_the_frozen_model(models):
    adapter, llama = models
    batch = example(1, time=10, windows=2, answer=3)
    grad = quick_jit(
        jax.grad(lambda a: answer_loss(a, llama, batch, remat="nothing")[0])
    )(adapter)
    assert jax.tree.structure(grad) == jax.tree.structure(adapter)
    for leaf in jax.tree.leaves(grad):
        assert float(jnp.abs(leaf).max()) > 0
    # The slope along the gradient, by differences.
    step = 1e-2
    norm = sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(grad))
    ends = [
        loss_of(
            jax.tree.map(lambda a, g, s=s: a + s * step * g, adapter, grad),
            llama,
            batch,
            remat="everything",
        )[0]
        for s in (1, -1)
    ]
    np.testing.assert_allclose((ends[0] - ends[1]) / (2 * step), norm, rtol=2e-2)


def test_unused_targets_and_all_kinds_of_padding_change_nothing(models):
    adapter, llama = models
    batch = example(2, time=10, windows=2, answer=3)
    total, count = loss_of(adapter, llama, batch, remat="everything")

    def pad(array, amount, filling):
        widths = ((0, 0), (0, amount)) + ((0, 0),) * (array.ndim - 2)
        return jnp.pad(array, widths, constant_values=filling)

    padded = Batch(
        features=pad(batch.features, 3, 1e3),
        tokens=pad(batch.tokens, 4, 5),
        audio_slot=pad(batch.audio_slot, 4, -1),
        segments=pad(batch.segments, 4, 0),
        positions=pad(batch.positions, 4, 0),
        targets=pad(batch.targets, 2, -1),
    )
    again, same_count = loss_of(adapter, llama, padded, remat="everything")
    assert int(count) == int(same_count) == 3
    np.testing.assert_allclose(again, total, rtol=1e-5)

    nothing = dataclasses.replace(batch, targets=jnp.full_like(batch.targets, -1))
    total, count = loss_of(adapter, llama, nothing, remat="everything")
    assert (float(total), int(count)) == (0.0, 0)


def test_two_examples_in_one_row_are_two_rows(models):
    adapter, llama = models
    first = example(3, time=10, windows=2, answer=3)
    second = example(4, time=6, windows=1, answer=3)
    beside = {
        name: jnp.concatenate([getattr(first, name), getattr(second, name)], axis=1)
        for name in ("features", "tokens", "positions")
    }
    shifted = jnp.where(second.audio_slot >= 0, second.audio_slot + 2, -1)
    packed = Batch(
        audio_slot=jnp.concatenate([first.audio_slot, shifted], axis=1),
        segments=jnp.concatenate([first.segments, second.segments + 1], axis=1),
        targets=jnp.concatenate([first.targets, second.targets + 10], axis=1),
        **beside,
    )
    total, count = loss_of(adapter, llama, packed, remat="everything")
    apart = [
        loss_of(adapter, llama, batch, remat="everything") for batch in (first, second)
    ]
    assert int(count) == 6
    np.testing.assert_allclose(total, sum(float(t) for t, _ in apart), rtol=1e-5)


def test_the_loss_in_chunks_is_the_loss_at_once(models, monkeypatch):
    """Ten targets in chunks of four, four and two; and the gradient."""
    adapter, llama = models
    batch = example(5, time=20, windows=3, answer=10)

    def at(chunk):
        monkeypatch.setattr(losses, "CHUNK", chunk)
        loss = partial(answer_loss, remat="everything")
        return quick_jit(jax.value_and_grad(loss, has_aux=True))(adapter, llama, batch)

    (whole, count), slope = at(256)
    (chunked, same_count), same_slope = at(4)
    assert int(count) == int(same_count) == 10
    np.testing.assert_allclose(chunked, whole, rtol=1e-6)
    for one, other in zip(*map(jax.tree.leaves, (slope, same_slope)), strict=True):
        assert float(jnp.abs(one).max()) > 0
        np.testing.assert_allclose(other, one, atol=1e-6)


@pytest.mark.quick("dots")
@pytest.mark.parametrize("policy", POLICIES)
def test_bfloat16_weights_give_the_loss_and_gradient_of_float32_ones(policy):
    """What is rounded between products costs no more than their own rounding."""
    config = dataclasses.replace(
        SMALL, vocab=512, width=128, depth=4, heads=4, head_dim=32, mlp_width=256
    )
    adapter = Parts(bridge=LinearBridge(WIDTH_IN, 128, rngs=nnx.Rngs(1)))
    rounded = jax.tree.map(
        lambda leaf: leaf.astype(jnp.bfloat16), Llama(config, rngs=nnx.Rngs(0))
    )
    exact = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), rounded)
    rows = [example(seed, time=96, windows=8, answer=40) for seed in range(6)]
    batch = jax.tree.map(lambda *parts: jnp.concatenate(parts), *rows)

    def loss_and_gradient(llama, remat):
        loss = jax.value_and_grad(partial(answer_loss, remat=remat), has_aux=True)
        (total, count), gradient = jax.jit(loss)(adapter, Parts(llama=llama), batch)
        return float(total) / int(count), gradient

    loss, gradient = loss_and_gradient(rounded, policy)
    true_loss, true_gradient = loss_and_gradient(exact, "everything")
    np.testing.assert_allclose(loss, true_loss, rtol=1e-4)
    norm, true_norm = map(optax.tree.norm, (gradient, true_gradient))
    np.testing.assert_allclose(norm, true_norm, rtol=3e-3)

"""An update packed or not, accumulated or not, on one device or eight, is the same."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers.small_run import load_config

from musilingo_jax.answering.prompts import Example
from musilingo_jax.models.answer_loss import answer_loss
from musilingo_jax.models.bridges.linear import LinearBridge
from musilingo_jax.models.llama import Llama, LlamaConfig
from musilingo_jax.models.parts import Parts
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.sharding import batch_sharding, make_mesh, shardings
from musilingo_jax.training.packing import RowShape, fill, pack
from musilingo_jax.training.stage_config import StageConfig
from musilingo_jax.training.train_step import (
    TrainState,
    abstract_batch,
    make_update,
    make_validation,
)

pytestmark = pytest.mark.medium

VOCAB, WIDTH_IN, WIDTH = 40, 6, 16
CONFIG = LlamaConfig(
    vocab=VOCAB,
    width=WIDTH,
    depth=2,
    heads=4,
    key_heads=2,
    head_dim=4,
    mlp_width=24,
    norm_eps=1e-6,
    rope_theta=10_000.0,
    rope_scaling=None,
    tied=False,
)
# As large as any batch of this file needs, so that few programs are compiled.
APART, PACKED = RowShape(32, 4, 16), RowShape(128, 16, 64)


@functools.cache
def models():
    @jax.jit
    def make():
        rngs = nnx.Rngs(0)
        bridge, llama = (
            LinearBridge(WIDTH_IN, WIDTH, rngs=rngs),
            Llama(CONFIG, rngs=rngs),
        )
        return Parts(bridge=bridge), Parts(llama=llama)

    return make()


@functools.cache
def stage(**numbers):
    config = load_config("tiny").get_config()
    made = StageConfig.from_config(config, "stage1")
    return dataclasses.replace(made, **numbers)


def random_examples(seed, count):
    """Examples of all lengths, with few windows or many, and long answers or short."""
    rng = np.random.default_rng(seed)
    examples = []
    for _ in range(count):
        windows, words, answer = rng.integers((1, 1, 1), (5, 13, 16))
        slots = [-1, *range(windows), *[-1] * (words - 1 + answer)]
        tokens = np.where(np.asarray(slots) < 0, rng.integers(1, VOCAB, len(slots)), 0)
        spoken = [False] * (windows + words) + [True] * answer
        features = rng.normal(size=(windows, WIDTH_IN)).astype(np.float32)
        examples.append((features, Example(tokens.tolist(), slots, spoken, False)))
    return examples


def batch_of(examples, rows, shape):
    packed = pack([len(example.tokens) for _, example in examples], rows)
    return fill([[examples[i] for i in row] for row in packed], shape, WIDTH_IN)


@functools.cache
def compiled(rows, accumulate, mesh, remat):
    """An update by the whole gradient, so that the gradient can be read from it."""
    mesh, (adapter, _) = make_mesh(*mesh), models()
    optimiser = optax.sgd(1.0)
    state = TrainState(learning=adapter, optimiser=optimiser.init(adapter))
    chosen = stage(rows=rows, accumulate=accumulate, remat=remat)
    return make_update(chosen, optimiser, shardings(state, mesh)), optimiser


def loss_and_gradient(batch, rows, *, accumulate=1, mesh=(1, 1, 1), remat="everything"):
    (adapter, llama), (update, optimiser) = (
        models(),
        compiled(rows, accumulate, mesh, remat),
    )
    mesh = make_mesh(*mesh)
    batch = jax.device_put(batch, batch_sharding(mesh))
    llama = jax.device_put(llama, shardings(llama, mesh))
    state = TrainState(
        learning=jax.tree.map(jnp.copy, adapter), optimiser=optimiser.init(adapter)
    )
    state = jax.device_put(state, shardings(state, mesh))
    state, report = update(state, llama, batch)
    gradient = jax.tree.map(
        lambda a, b: np.asarray(a - b), adapter, jax.device_get(state.learning)
    )
    return float(report.loss), gradient


def assert_same(one, other):
    np.testing.assert_allclose(one[0], other[0], rtol=1e-5)
    for a, b in zip(*(jax.tree.leaves(g) for _, g in (one, other)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1, np.abs(b).max()))


@pytest.mark.parametrize("seed", range(4))
def test_packed_is_unpacked_on_one_device_and_on_eight(seed):
    examples = random_examples(seed, 32)
    apart = loss_and_gradient(batch_of(examples, 32, APART), 32)
    packed = batch_of(examples, 8, PACKED)
    assert_same(loss_and_gradient(packed, 8), apart)
    assert_same(loss_and_gradient(packed, 8, mesh=(2, 2, 2)), apart)
    if seed == 0:
        assert_same(loss_and_gradient(packed, 2, accumulate=4, remat="nothing"), apart)
        uneven = batch_of(examples[:29], 8, PACKED)
        alone = batch_of(examples[:29], 32, APART)
        assert_same(loss_and_gradient(uneven, 8), loss_and_gradient(alone, 32))


def test_accumulated_batches_are_one_large_batch():
    """Answers are very unequal, so that a mean of means would be another number."""
    (adapter, llama), batch = models(), batch_of(random_examples(5, 16), 8, PACKED)
    (total, count), gradient = jax.jit(
        jax.value_and_grad(answer_loss, has_aux=True), static_argnames="remat"
    )(adapter, llama, batch, remat="everything")
    assert count == (batch.targets >= 0).sum()
    counts = [(batch.targets[half::2] >= 0).sum() for half in range(2)]
    assert counts[0] != counts[1]
    whole = (
        float(total / count),
        jax.tree.map(lambda g: np.asarray(g / count), gradient),
    )
    assert_same(loss_and_gradient(batch, 8), whole)
    assert_same(loss_and_gradient(batch, 2, accumulate=4, remat="nothing"), whole)


def test_accumulating_leaves_rows_on_their_device():
    """No collective moves a part of the batch: it is only read in another order."""
    mesh, (adapter, llama) = make_mesh(8, 1, 1), models()
    update, optimiser = compiled(8, 2, (8, 1, 1), "everything")
    state = TrainState(learning=adapter, optimiser=optimiser.init(adapter))
    sizes = {"length": 128, "windows": 16, "answers": 64}
    batch = abstract_batch(
        stage(rows=8, accumulate=2), width=WIDTH_IN, mesh=mesh, **sizes
    )
    program = update.lower(state, llama, batch).compile().as_text()
    assert "all-reduce" in program
    for moving in ("all-gather", "all-to-all", "collective-permute"):
        assert moving not in program


def test_more_rows_than_examples_are_refused():
    config = load_config("tiny").get_config()
    config.stage1.rows = config.stage1.batch_size + 1
    with pytest.raises(
        UserError, match=r"config\.stage1\.rows is 17: .*stage1\.batch_size, 16"
    ):
        StageConfig.from_config(config, "stage1")


def test_validation_adds_up_to_the_loss():
    (adapter, llama), examples = models(), random_examples(6, 24)
    batch_loss = make_validation(stage(rows=8))
    loss, _ = loss_and_gradient(batch_of(examples, 8, PACKED), 8)
    parts = [
        batch_loss(adapter, llama, batch_of(examples[start:end], 8, PACKED))
        for start, end in ((0, 20), (20, 24))  # The second leaves rows empty.
    ]
    assert sum(int(count) for _, count in parts) == sum(
        sum(example.target_mask) for _, example in examples
    )
    total = sum(float(total) for total, _ in parts)
    np.testing.assert_allclose(total / sum(int(n) for _, n in parts), loss, rtol=1e-5)


def test_an_abstract_batch_is_like_a_real_one():
    mesh = make_mesh(4, 2, 1)
    real = batch_of(random_examples(7, 32), 16, PACKED)
    real = jax.device_put(real, batch_sharding(mesh))
    abstract = abstract_batch(
        stage(rows=8, accumulate=2),
        width=WIDTH_IN,
        mesh=mesh,
        length=PACKED.length,
        windows=PACKED.windows,
        answers=PACKED.answers,
    )
    for one, other in zip(*map(jax.tree.leaves, (abstract, real)), strict=True):
        assert (one.shape, one.dtype, one.sharding) == (
            other.shape,
            other.dtype,
            other.sharding,
        )

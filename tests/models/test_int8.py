"""The language model in 8 bits: against NumPy, sharded, streamed, and left alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers.dequantized import dequantize
from helpers.quick_jit import quick_jit
from helpers.random_weights import random_module
from helpers.small_run import LANGUAGE_MODEL
from helpers.stored_weights import assert_equal, rewrite
from helpers.watched_tensors import watch
from jax.sharding import NamedSharding, PartitionSpec

from musilingo_jax.models.answer_loss import Batch, answer_loss
from musilingo_jax.models.bridges.linear import LinearBridge
from musilingo_jax.models.int8 import quantize, quantize_language_model
from musilingo_jax.models.layers import Linear, linear
from musilingo_jax.models.llama import NAMES, Llama
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.matmul import int8_product
from musilingo_jax.models.parts import Parts
from musilingo_jax.pretrained import tensor_map, weights
from musilingo_jax.pretrained.model_config import ModelConfig
from musilingo_jax.runtime import sharding
from musilingo_jax.runtime.errors import UserError

pytestmark = pytest.mark.medium

CONFIG = LlamaConfig.from_dict(LANGUAGE_MODEL | {"vocab_size": 61})
KINDS = {jnp.dtype(jnp.int8), jnp.dtype(jnp.float32)}


@pytest.fixture(scope="module")
def llama():
    return random_module(lambda: Llama(CONFIG, rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def adapter():
    return random_module(lambda: LinearBridge(16, 32, rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def int8(llama):
    return jax.jit(quantize_language_model)(llama)


@pytest.fixture(scope="module")
def folder(llama, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    weights.save_language_model(llama, path, dtype="float32")
    return path


def load(folder, *, dtype="float32", mesh=None):
    return weights.load_language_model(
        folder, dtype=dtype, quantization="int8", mesh=mesh
    )


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("namespace", [np, jnp])
def test_values_and_scales_are_those_of_the_definition(namespace):
    rows = random(3, 7, 50) * np.exp(random(3, 7, 1, seed=1))
    values, scale = quantize(namespace.asarray(rows))
    assert isinstance(values, np.ndarray if namespace is np else jax.Array)
    assert {values.dtype, scale.dtype} == KINDS
    largest = np.abs(rows).max(axis=-1)
    np.testing.assert_allclose(scale, largest / 127, rtol=1e-6)
    assert np.all(np.abs(values).max(axis=-1) == 127)
    # By its definition: no weight moves by more than half a scale of its channel.
    moved = np.abs(np.asarray(dequantize(values, scale)) - rows)
    assert np.all(moved <= np.asarray(scale)[..., None] * 0.50001)
    assert moved.max() > 0.4 * np.asarray(scale).min()


def test_a_channel_of_zeros_stays_zero_and_what_is_no_number_shows():
    rows = np.array([[0, 0], [1, np.nan], [1, -np.inf], [1e-45, 0]], np.float32)
    with np.errstate(invalid="ignore"):
        values, scale = quantize(rows)
    assert scale[0] == 1
    assert not values[0].any()
    x = jnp.ones((2, 1, 2))
    y = np.asarray(linear(x, jnp.asarray(values), None, jnp.asarray(scale)))
    assert np.all(y[..., [0, 3]] == 0)
    assert not np.isfinite(y[..., [1, 2]]).any()


@pytest.mark.parametrize("time", [1, 5])
def test_products_are_those_of_the_dequantised_kernel(time):
    """Exact but for x: of 16 bits in a step of decoding, else of bfloat16."""
    values, scale = quantize(random(40, 300))
    x = random(4, time, 300, seed=1)
    exact = x.astype(np.float64) @ np.asarray(dequantize(values, scale)).T
    y = jax.jit(linear)(x, values, None, scale)
    assert y.dtype == jnp.float32
    error = np.abs(y - exact).max() / np.abs(exact).max()
    assert error < (1e-4 if time == 1 else 4e-3)
    # The digits of one row are chosen by its own numbers.
    assert time > 1 or error < np.abs(x).max() / 127 / 254


def test_a_row_is_the_same_whatever_rows_are_beside_it():
    values, scale = map(jnp.asarray, quantize(random(96, 256)))
    x = random(33, 1, 256, seed=1) * np.exp(3 * random(33, 1, 1, seed=2))
    product = jax.jit(int8_product)
    together = np.asarray(product(x, values, scale))
    for rows in (1, 2, 16):
        np.testing.assert_array_equal(product(x[:rows], values, scale), together[:rows])
    np.testing.assert_array_equal(product(x[:, 0], values, scale), together[:, 0])


def test_zeros_are_multiplied_to_zeros():
    values, scale = quantize(random(8, 16))
    assert not np.any(int8_product(jnp.zeros((2, 1, 16)), values, scale))


def test_the_gradient_is_that_of_the_dequantised_kernel():
    values, scale = quantize(random(40, 300))
    x = jnp.asarray(random(2, 6, 300, seed=1))

    def of_int8(x):
        return jnp.sum(jnp.sin(int8_product(x, values, scale)))

    def of_floats(x):
        return jnp.sum(jnp.sin(x @ dequantize(values, scale).T))

    ours, theirs = jax.grad(of_int8)(x), jax.grad(of_floats)(x)
    assert ours.dtype == x.dtype
    assert float(jnp.abs(ours - theirs).max()) < 0.03 * float(jnp.abs(theirs).max())


def products_in(function, *arguments):
    """How many matrix products a compiled function makes."""
    return jax.jit(function).lower(*arguments).compile().as_text().count(" dot(")


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_no_gradient_of_a_frozen_kernel_is_computed(kind):
    """Of a kernel that learns, it is, and is right."""
    kernel = jnp.asarray(random(24, 16))
    x = jnp.asarray(random(2, 3, 24, seed=1))
    scale = None
    if kind == "int8":
        kernel, scale = quantize(kernel.T)

    def loss(x, kernel):
        return jnp.sum(jnp.sin(linear(x, kernel, None, scale)))

    assert products_in(loss, x, kernel) == 1
    assert products_in(jax.grad(loss), x, kernel) == 2
    if kind == "float32":
        assert products_in(jax.grad(loss, argnums=(0, 1)), x, kernel) == 3
        slopes = jax.grad(loss, argnums=(0, 1))(x, kernel)
        plain = jax.grad(lambda x, k: jnp.sum(jnp.sin(x @ k)), argnums=(0, 1))
        for ours, theirs in zip(slopes, plain(x, kernel), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_every_kernel_is_quantised_and_nothing_else(llama, int8):
    assert int8.embedding.dtype == int8.norm.scale.dtype == jnp.float32
    stack = int8.layers.up
    assert (stack.kernel.dtype, stack.kernel.shape) == (jnp.int8, (2, 48, 32))
    assert (stack.scale.dtype, stack.scale.shape) == (jnp.float32, (2, 48))
    assert int8.head.kernel.shape == (61, 32)
    linears = [
        node
        for node in jax.tree.leaves(int8, is_leaf=lambda n: isinstance(n, Linear))
        if isinstance(node, Linear)
    ]
    assert len(linears) == 8
    assert all(node.kernel.dtype == jnp.int8 for node in linears)
    # The model it was made of is what it was.
    assert llama.layers.up.scale is None
    assert llama.layers.up.kernel.dtype == jnp.float32


@pytest.mark.parametrize("mesh", [None, (1, 1, 1), (2, 2, 2), (1, 4, 2), (1, 1, 4)])
def test_what_is_streamed_is_what_is_quantised_after_loading(folder, int8, mesh):
    mesh = mesh and sharding.make_mesh(*mesh)
    loaded = load(folder, mesh=mesh)
    assert jax.tree.structure(loaded) == jax.tree.structure(int8)
    for ours, theirs in zip(
        jax.tree.leaves(loaded), jax.tree.leaves(int8), strict=True
    ):
        assert ours.dtype == theirs.dtype
        if ours.dtype == jnp.int8:  # Halves may be rounded either way.
            difference = np.abs(np.asarray(ours, int) - np.asarray(theirs, int))
            assert difference.max() <= 1
            assert difference.mean() < 1e-3
        else:
            np.testing.assert_array_equal(ours, theirs)
    if mesh is not None:
        assert_equal(loaded, load(folder))
        kernel = loaded.layers.up.kernel
        assert kernel[...].sharding.spec == PartitionSpec(None, ("tensor",), ("fsdp",))
        assert loaded.layers.up.scale[...].sharding.spec == PartitionSpec(
            None, ("tensor",)
        )


def test_loading_reads_each_weight_once_and_a_few_rows_at_a_time(folder):
    """However the devices of a process share it."""
    opened, asked = watch(folder)
    described = weights.language_model_blueprint(CONFIG.to_dict())
    tensor_map.load(
        jax.eval_shape(quantize_language_model, described.module),
        NAMES,
        described.ignored,
        opened,
        source="model",
        dtype="float32",
        mesh=sharding.make_mesh(1, 4, 2),
    )
    name = "model.layers.1.mlp.gate_proj.weight"
    assert sum(asked[name]) == opened[name].nbytes
    # On a mesh with tensor = 2 no block spans the two halves of the rows.
    assert max(asked[name]) <= opened[name].nbytes // 2


def test_the_abstract_model_is_what_loading_gives(folder):
    mesh = sharding.make_mesh(2, 2, 2)
    abstract = weights.abstract_language_model(
        CONFIG, dtype="bfloat16", quantization="int8", mesh=mesh
    )
    loaded = load(folder, dtype="bfloat16", mesh=mesh)
    assert jax.tree.structure(abstract) == jax.tree.structure(loaded)
    for ours, theirs in zip(
        jax.tree.leaves(abstract), jax.tree.leaves(loaded), strict=True
    ):
        assert (ours.shape, ours.dtype, ours.sharding) == (
            theirs.shape,
            theirs.dtype,
            theirs.sharding,
        )


def batch_of(rows):
    """Random examples of 12 tokens, two of them audio, the last five the answer."""
    rng = np.random.default_rng(3)
    slots = np.full((rows, 12), -1, np.int32)
    slots[:, 2:4] = [0, 1]
    return Batch(
        features=random(rows, 2, 16, seed=4),
        tokens=rng.integers(0, 61, (rows, 12)).astype(np.int32),
        audio_slot=slots,
        segments=np.ones((rows, 12), np.int32),
        positions=np.tile(np.arange(12, dtype=np.int32), (rows, 1)),
        targets=np.tile(np.arange(7, 12, dtype=np.int32), (rows, 1)),
    )


@quick_jit
@jax.value_and_grad
def loss_of(adapter, llama, batch):
    parts = Parts(bridge=adapter), Parts(llama=llama)
    total, count = answer_loss(*parts, batch, remat="nothing")
    return total / count


@pytest.mark.slow
def test_the_adapter_learns_nearly_the_same_from_it(llama, int8, adapter):
    loss, gradient = loss_of(adapter, llama, batch_of(8))
    rounded, near = loss_of(adapter, int8, batch_of(8))
    assert abs(rounded - loss) < 0.01 * loss
    difference = jax.tree.map(jnp.subtract, gradient, near)
    assert optax.tree.norm(difference) < 0.06 * optax.tree.norm(gradient)
    # And the same as from the floats that its whole numbers stand for.
    exact = jax.tree.map(lambda leaf: leaf, llama)
    path = [exact.layers.query, exact.layers.key, exact.layers.value, exact.layers.out]
    path += [exact.layers.gate, exact.layers.up, exact.layers.down, exact.head]
    sources = [int8.layers.query, int8.layers.key, int8.layers.value, int8.layers.out]
    sources += [int8.layers.gate, int8.layers.up, int8.layers.down, int8.head]
    for ours, theirs in zip(path, sources, strict=True):
        floats = dequantize(theirs.kernel[...], theirs.scale[...])
        ours.kernel = ours.kernel.replace(jnp.swapaxes(floats, -1, -2))
    loss, gradient = loss_of(adapter, exact, batch_of(8))
    assert abs(rounded - loss) < 0.003 * loss
    difference = jax.tree.map(jnp.subtract, gradient, near)
    assert optax.tree.norm(difference) < 0.02 * optax.tree.norm(gradient)


@pytest.mark.quick("sizes2-int8", "sizes3-")
@pytest.mark.parametrize(
    ("sizes", "quantization"),
    [((2, 2, 2), ""), ((2, 2, 2), "int8"), ((1, 8, 1), "int8"), ((1, 1, 4), "")],
)
def test_sharded_is_unsharded(folder, adapter, sizes, quantization):
    mesh, batch = sharding.make_mesh(*sizes), batch_of(8)

    def load_onto(mesh):
        return weights.load_language_model(
            folder, dtype="float32", quantization=quantization, mesh=mesh
        )

    loss, gradient = loss_of(adapter, load_onto(None), batch)
    spread, spread_gradient = loss_of(
        jax.device_put(adapter, sharding.shardings(adapter, mesh)),
        load_onto(mesh),
        jax.device_put(batch, sharding.batch_sharding(mesh)),
    )
    assert abs(spread - loss) < 1e-5 * loss
    difference = jax.tree.map(
        lambda a, b: np.asarray(a) - b, gradient, jax.device_get(spread_gradient)
    )
    tolerance = 1e-5 if not quantization else 1e-3  # Of bfloat16, added up in parts.
    assert optax.tree.norm(difference) < tolerance * optax.tree.norm(gradient)


def test_training_leaves_frozen_numbers_as_they_are(int8, adapter):
    before = jax.tree.map(np.array, int8)
    for _ in range(3):
        _, gradient = loss_of(adapter, int8, batch_of(8))
        adapter = jax.tree.map(lambda a, g: a - 0.1 * g, adapter, gradient)
    assert_equal(jax.tree.map(jnp.asarray, before), int8)


def test_what_is_rounded_is_never_written(int8, tmp_path):
    with pytest.raises(UserError, match="int8 is not written.*quantization = ''"):
        weights.save_language_model(int8, tmp_path, dtype="float32")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["int4", "INT8", "fp8"])
def test_other_quantizations_are_refused(folder, name):
    message = f"quantization is '{name}': choose .*'int8'"
    refused = pytest.raises(UserError, match=message)
    with refused:
        weights.load_language_model(
            folder, dtype="float32", quantization=name, mesh=None
        )
    mesh = sharding.make_mesh(1, 1, 1)
    with refused:
        weights.abstract_language_model(
            CONFIG, dtype="float32", quantization=name, mesh=mesh
        )
    model = {"encoder": "a", "language_model": "b", "adapter": "random"}
    model |= {"dtype": "float32"}
    with refused:
        ModelConfig.from_config({"model": {**model, "quantization": name}})


def test_a_weight_that_is_not_a_number_makes_the_loss_not_a_number(
    tmp_path, llama, adapter
):
    """As in floating point. Which stops training. From a file it is refused."""
    damaged = jax.tree.map(lambda leaf: leaf, llama)
    kernel = damaged.layers.up.kernel
    damaged.layers.up.kernel = kernel.replace(kernel[...].at[0, 5, 3].set(jnp.nan))
    loss, _ = loss_of(adapter, quantize_language_model(damaged), batch_of(8))
    assert np.isnan(loss)
    weights.save_language_model(llama, tmp_path, dtype="float32")
    name = "model.layers.0.mlp.up_proj.weight"
    rewrite(tmp_path, lambda stored: stored[name].__setitem__((3, 5), np.nan))
    with pytest.raises(UserError, match="up_proj.weight contains NaN"):
        load(tmp_path)


def test_a_head_that_is_the_embedding_stays_as_precise():
    tied = dataclasses.replace(CONFIG, tied=True)
    int8 = jax.eval_shape(
        lambda: quantize_language_model(Llama(tied, rngs=nnx.Rngs(0)))
    )
    assert int8.head is None
    assert int8.embedding.dtype == jnp.float32
    logits = jax.eval_shape(lambda model: model.logits(jnp.ones((2, 3, 32))), int8)
    assert logits.shape == (2, 3, 61)


def test_activations_are_spread_as_they_say():
    mesh = sharding.make_mesh(2, 2, 2)
    x = jax.device_put(jnp.ones((8, 6, 4)), sharding.replicated(mesh))

    @jax.jit
    def spread(x):
        return sharding.constrain(x * 2, "batch", None, "heads")

    expected = NamedSharding(mesh, PartitionSpec(("data", "fsdp"), None, "tensor"))
    assert spread(x).sharding.is_equivalent_to(expected, 3)
    # What does not divide stays whole, and without a mesh there is nothing to say.
    assert spread(x[:, :, :3]).addressable_shards[0].data.shape == (2, 6, 3)
    assert spread(jnp.ones((8, 6, 4))).sharding.is_fully_replicated

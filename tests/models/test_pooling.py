"""Pooling over time, and the one linear map that learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from musilingo_jax.models import cpu
from musilingo_jax.models.bridges.linear import NAMES, LinearBridge
from musilingo_jax.models.pooling import pool, reduced_windows, windows_of


@pytest.mark.parametrize(
    "frames, windows", [(374, 2), (749, 3), (1162, 4), (2249, 7), (325, 1), (0, 0)]
)
def test_windows_of_is_the_ceiling_for_ints_and_arrays(frames, windows):
    assert windows_of(frames, 325) == windows
    assert int(windows_of(jnp.array(frames), 325)) == windows


def test_pool_averages_each_window_and_the_remainder():
    x = np.random.default_rng(0).normal(size=(2, 7, 5)).astype(np.float32)
    pooled, valid = pool(x, np.ones((2, 7), bool), 3)
    expected = np.stack([x[:, :3].mean(1), x[:, 3:6].mean(1), x[:, 6:].mean(1)], axis=1)
    np.testing.assert_allclose(pooled, expected, atol=1e-6)
    assert valid.all()


def test_pool_ignores_what_padding_holds():
    x = np.random.default_rng(1).normal(size=(1, 9, 4)).astype(np.float32)
    alone, _ = pool(x[:, :4], np.ones((1, 4), bool), 3)
    x[:, 4:] = np.inf
    pooled, valid = pool(x, np.arange(9)[None] < 4, 3)
    np.testing.assert_allclose(pooled[:, :2], alone, atol=1e-6)
    np.testing.assert_array_equal(pooled[:, 2], 0.0)
    assert valid.tolist() == [[True, True, False]]


def test_pool_returns_float32_for_bfloat16_frames():
    x = jnp.full((1, 4, 2), 1 + 2**-7, jnp.bfloat16)
    pooled, _ = pool(x, jnp.ones((1, 4), bool), 4)
    assert pooled.dtype == jnp.float32
    np.testing.assert_array_equal(pooled, 1 + 2**-7)


@pytest.mark.parametrize("time", [0, 1, 3, 7, 9])
@pytest.mark.parametrize("form", [reduced_windows, cpu.sums_of_rows])
def test_each_form_sums_every_number_of_a_window_once(form, time):
    x = np.random.default_rng(2).integers(-9, 9, (2, time, 5))
    starts = range(0, time, 3)
    expected = [x[:, start : start + 3].sum(1) for start in starts]
    expected = np.stack(expected, axis=1) if time else np.zeros((2, 0, 5))
    for dtype in (jnp.float32, jnp.int32):
        found = form(jnp.asarray(x, dtype), 3)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected)


def test_the_released_shape_has_as_many_parameters_as_the_release():
    adapter = jax.eval_shape(lambda: LinearBridge(1024, 4096, rngs=nnx.Rngs(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(adapter)) == 4_198_400


def test_adapter_is_the_linear_map_that_its_names_say():
    adapter = LinearBridge(6, 10, rngs=nnx.Rngs(0))
    assert set(NAMES) == {"projection.kernel", "projection.bias"}
    bias = np.arange(10, dtype=np.float32)
    adapter = jax.tree.map(lambda leaf: leaf if leaf.ndim > 1 else bias, adapter)
    x = np.random.default_rng(2).normal(size=(2, 3, 6)).astype(np.float32)
    y = adapter(x, None).spliced
    assert y.dtype == jnp.float32
    expected = x @ np.asarray(adapter.projection.kernel[...]) + bias
    np.testing.assert_allclose(y, expected, atol=1e-6)

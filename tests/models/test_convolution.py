"""Convolutions against their definition, and each form against the other."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.quick_jit import quick_jit

from musilingo_jax.models.convolution import (
    dense_convolution,
    direct_convolution,
    strided_convolution,
)
from musilingo_jax.models.cpu import convolution_by_products, fourier_convolution
from musilingo_jax.models.matmul import product


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("size", [16, 7])
@pytest.mark.parametrize("time", [3, 61])
def test_fourier_convolution_is_direct_convolution(time, size):
    x, kernel = noise(2, time, 12), noise(size, 3, 12, seed=1)

    def value_and_gradients(convolution):
        def total(x, kernel):
            y = convolution(x, kernel, 4)
            return jnp.sum(jnp.sin(y)), y

        return quick_jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))(
            x, kernel
        )

    for fourier, direct in zip(
        jax.tree.leaves(value_and_gradients(fourier_convolution)),
        jax.tree.leaves(value_and_gradients(direct_convolution)),
        strict=True,
    ):
        np.testing.assert_allclose(fourier, direct, atol=2e-5 * np.abs(direct).max())


@pytest.mark.parametrize(
    "convolve",
    [strided_convolution, partial(convolution_by_products, product=product)],
    ids=["strided", "by products"],
)
@pytest.mark.parametrize("width, stride", [(6, 3), (5, 2), (4, 4), (2, 3)])
def test_strided_convolution_is_its_definition(width, stride, convolve):
    x, kernel = noise(2, 31, 3), noise(width, 3, 5, seed=1)
    starts = range(0, 31 - width + 1, stride)
    expected = [np.tensordot(x[:, t : t + width], kernel, 2) for t in starts]
    y = convolve(jnp.asarray(x), jnp.asarray(kernel), stride)
    np.testing.assert_allclose(y, np.stack(expected, axis=1), atol=1e-4)


def test_accelerators_write_a_convolution_in_its_own_type():
    """Rounded once, after the sum; a CPU gives the sum itself."""
    x, kernel = (
        jnp.asarray(array, jnp.bfloat16)
        for array in (noise(2, 31, 64), noise(3, 64, 5, seed=1))
    )
    whole = dense_convolution(x, kernel, 2, dtype=jnp.float32)
    narrow = dense_convolution(x, kernel, 2, dtype=jnp.bfloat16)
    assert narrow.dtype == jnp.bfloat16
    np.testing.assert_allclose(narrow.astype(jnp.float32), whole, rtol=2**-8, atol=1e-3)

    convolve = jax.jit(partial(strided_convolution, stride=2)).trace(x, kernel)
    for platform, written in (("tpu", "bf16"), ("cuda", "bf16"), ("cpu", "")):
        text = convolve.lower(lowering_platforms=(platform,)).as_text()
        found = re.findall(r"stablehlo.convolution.* -> tensor<[\dx]+x(\w+)>", text)
        assert found == ([written] if written else []), platform
    assert strided_convolution(x, kernel, 2).dtype == jnp.float32

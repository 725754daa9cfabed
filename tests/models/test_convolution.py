"""Convolutions against their definition, and each form against the other."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.quick_jit import quick_jit

from musilingo_jax.models.convolution import direct_convolution, strided_convolution
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

"""Modules of random numbers, without compiling their constructors."""

import jax
import jax.numpy as jnp
import numpy as np


def random_module(build, *, seed=0):
    """What `build()` would give, in float32, norms and biases included.

    So a norm or a bias that is left out shows. Kernels are divided by √fan_in, or
    nearly; all else is small.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(jax.eval_shape(build))
    generator = np.random.default_rng(seed)
    arrays = []
    for path, leaf in leaves:
        kernel = "kernel" in jax.tree_util.keystr(path)
        scale = leaf.shape[-2] ** -0.5 if kernel else 0.3
        numbers = scale * generator.normal(size=leaf.shape)
        arrays.append(jnp.asarray(numbers, jnp.float32))
    return structure.unflatten(arrays)

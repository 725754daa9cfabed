"""Random weights on an accelerator, and the rate of its products."""

import jax
import jax.numpy as jnp
from flax import nnx
from in_turn import measure

from musilingo_jax.models.llama import Llama
from musilingo_jax.models.llama_config import LlamaConfig


def random_llama(config: LlamaConfig) -> Llama:
    """A LLaMA of small random numbers in bfloat16, created on the device."""
    shapes = jax.eval_shape(lambda: Llama(config, rngs=nnx.Rngs(0)))
    return jax.tree.map(
        lambda leaf: jax.jit(
            lambda: jax.random.normal(jax.random.key(0), leaf.shape, "bfloat16") * 0.02
        )(),
        shapes,
    )


def product_rate(size: int) -> float:
    """Operations per second of a product of two [size, size] matrices in bfloat16."""
    matrix = jax.random.normal(jax.random.key(0), (size, size), jnp.bfloat16)
    times = 10

    @jax.jit
    def multiply(matrix: jax.Array) -> jax.Array:
        def once(_, x: jax.Array) -> jax.Array:
            y = jnp.matmul(x, matrix, preferred_element_type=jnp.float32)
            return (y * size**-0.5).astype(x.dtype)

        return jax.lax.fori_loop(0, times, once, matrix)

    found = measure(
        lambda: jax.block_until_ready(multiply(matrix)), warm_up=2, repeats=5
    )
    return times * 2 * size**3 / found.clock

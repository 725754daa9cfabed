"""Random weights, made on the device in the types that they are kept in.

A model is never there in float32 first: a 7B would not fit.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Key

from musilingo_jax.models.int8 import LARGEST, quantize_language_model
from musilingo_jax.models.llama import Llama
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.mert import Mert
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.runtime.sharding import shardings

DEVIATION = 0.02
# That of whole numbers equally likely from −127 to 127.
_INT8_DEVIATION = LARGEST / math.sqrt(3)


def random_llama(config: LlamaConfig, *, quantization: str, mesh: Mesh) -> Llama:
    """A language model whose floats are bfloat16 and normally distributed.

    Args:
      config: its shapes.
      quantization: "int8" for kernels in int8, "" for bfloat16.
      mesh: that it is put on.
    """

    def describe() -> Llama:
        llama = _in_bfloat16(Llama(config, rngs=nnx.Rngs(0)))
        return quantize_language_model(llama) if quantization else llama

    described = jax.eval_shape(describe)
    leaves, structure = jax.tree_util.tree_flatten_with_path(described)

    def make() -> Llama:
        keys = jax.random.split(jax.random.key(0), len(leaves))
        named = [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]
        return structure.unflatten(
            _values(*each, key) for each, key in zip(named, keys, strict=True)
        )

    return jax.jit(make, out_shardings=shardings(described, mesh))()


def random_mert(config: MertConfig, mesh: Mesh) -> Mert:
    """An encoder in bfloat16 as it is before its training."""

    def make() -> Mert:
        return _in_bfloat16(Mert(config, rngs=nnx.Rngs(0)))

    places = shardings(jax.eval_shape(make), mesh)
    return jax.jit(make, out_shardings=places)()


def _in_bfloat16(module):
    return jax.tree.map(lambda array: array.astype(jnp.bfloat16), module)


def _values(name: str, leaf: jax.ShapeDtypeStruct, key: Key[Array, ""]) -> jax.Array:
    """The values of one parameter, stacked layers one after another."""
    if "norm" in name:
        return jnp.ones(leaf.shape, leaf.dtype)
    if leaf.dtype == jnp.float32:  # A scale of int8.
        return jnp.full(leaf.shape, DEVIATION / _INT8_DEVIATION, leaf.dtype)

    def one(key: Key[Array, ""]) -> jax.Array:
        shape = leaf.shape[-2:]
        if leaf.dtype == jnp.int8:
            bits = jax.random.bits(key, shape, jnp.uint8).astype(jnp.int8)
            return jnp.maximum(bits, -LARGEST)
        return DEVIATION * jax.random.normal(key, shape, leaf.dtype)

    if len(leaf.shape) == 2:
        return one(key)
    return jax.lax.map(one, jax.random.split(key, leaf.shape[0]))

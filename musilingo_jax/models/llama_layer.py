"""One layer of a LLaMA, for whole texts and for the next part of a cached one."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int
from numpy import ndarray

from musilingo_jax.models.attention import (
    cache_attention,
    rotary,
    segment_attention,
)
from musilingo_jax.models.attention_blocks import Blocks
from musilingo_jax.models.heard import added_at
from musilingo_jax.models.kv_cache import KVCache
from musilingo_jax.models.layers import Linear, Norm
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.lora import (
    LayerTuning,
    MapSizes,
    tuned,
    tuned_norm,
)
from musilingo_jax.runtime.sharding import constrain


class LlamaLayer(nnx.Module):
    """Attention, then a gated mlp, each added to the residual stream after a norm."""

    def __init__(self, config: LlamaConfig, *, rngs: nnx.Rngs):
        sizes = MapSizes.of(config).ends()
        self.config = config

        def linear_map(name: str) -> Linear:
            (fan_in, in_axis), (fan_out, out_axis) = sizes[name]
            return Linear(
                fan_in,
                fan_out,
                axes=(in_axis, out_axis),
                bias=name in config.biases,
                rngs=rngs,
            )

        def norm(width: int) -> Norm:
            return Norm(width, bias=False, eps=config.norm_eps)

        self.attention_norm = norm(config.width)
        self.query = linear_map("query")
        self.key = linear_map("key")
        self.query_norm = norm(config.head_dim) if config.query_key_norm else None
        self.key_norm = norm(config.head_dim) if config.query_key_norm else None
        self.value = linear_map("value")
        self.out = linear_map("out")
        self.mlp_norm = norm(config.width)
        self.gate = linear_map("gate")
        self.up = linear_map("up")
        self.down = linear_map("down")

    def __call__(
        self,
        x: Float[Array, "batch time width"],
        *,
        positions: Int[Array | ndarray, "batch time"],
        segments: Int[Array | ndarray, "batch time"],
        rotation: Float[Array | ndarray, " half"],
        window: int | Int[Array, ""],
        blocks: Blocks,
        added: Float[Array, "batch clips queries"] | None,
        tuning: LayerTuning,
    ) -> Float[Array, "batch time width"]:
        """Adds the layer to the residual stream of whole texts.

        Args:
          x: the residual stream.
          positions: of each vector in its text.
          segments: as in `Llama`.
          rotation: angle per position, of each pair in a head.
          window: how far positions attend back, themselves included; 0 = to the
            beginning.
          blocks: of attention on TPUs.
          added: as in `Heard`, for this layer.
          tuning: what is trained beside the layer.
        """
        query, key, value = self.project(x, positions, rotation, tuning)
        dtype = self.key.dtype
        key = checkpoint_name(key.astype(dtype), "key")
        value = checkpoint_name(value.astype(dtype), "value")
        mixed = segment_attention(
            query, key, value, segments, causal=True, window=window, blocks=blocks
        )
        heard = None if added is None else added_at(added, segments)
        return self.add(x, mixed, heard, tuning)

    def decode(
        self,
        x: Float[Array, "batch time width"],
        cache: KVCache,
        *,
        index: int,
        positions: Int[Array | ndarray, "batch time"],
        added: Float[Array, "batch 1 queries"] | None,
        tuning: LayerTuning,
    ) -> tuple[Float[Array, "batch time width"], KVCache]:
        """`__call__` for the next part of texts whose beginning is in a cache.

        Args:
          x: the residual stream.
          cache: of all layers.
          index: the number of this layer.
          positions: of each vector in its text.
          added: as in `Heard`, for this layer.
          tuning: what is trained beside the layer.
        """
        rotation = self.config.rotations()[index]
        query, key, value = self.project(x, positions, rotation, tuning)
        cache = cache.write(index, key, value)
        window = self.config.windows[index] if self.config.windows else 0
        mixed = cache_attention(query, cache, index, window=window)
        return self.add(x, mixed, added, tuning), cache

    def project(
        self,
        x: Float[Array, "batch time width"],
        positions: Int[Array | ndarray, "batch time"],
        rotation: Float[Array | ndarray, " half"],
        tuning: LayerTuning,
    ) -> tuple[Float[Array, "batch time _ head_dim"], ...]:
        """Queries, keys and values; the first two turned by their positions.

        Args:
          x: the residual stream.
          positions: of each vector in its text.
          rotation: angle per position, of each pair in a head.
          tuning: what is trained beside the layer.
        """
        batch, time, _ = x.shape

        def heads(y: jax.Array) -> jax.Array:
            # Otherwise the TPU compiler computes the product in the layout of the
            # heads, and for that copies the kernels.
            y = jax.lax.optimization_barrier(y)
            y = y.reshape(batch, time, -1, self.config.head_dim)
            return constrain(y, "batch", None, "heads", None)

        normed = tuned_norm(self.attention_norm, tuning.attention_norm, x)
        query = heads(tuned(self.query, tuning.query, normed))
        key = heads(tuned(self.key, tuning.key, normed))
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        query = rotary(query, positions, rotation)
        key = rotary(key, positions, rotation)
        return query, key, heads(tuned(self.value, tuning.value, normed))

    def add(
        self,
        x: Float[Array, "batch time width"],
        mixed: Float[Array, "batch time heads head_dim"],
        added: Float[Array, "batch _ queries"] | None,
        tuning: LayerTuning,
    ) -> Float[Array, "batch time width"]:
        """The residual stream with the mixed values, then with the mlp.

        Args:
          x: the residual stream.
          mixed: values, mixed by attention.
          added: what is heard, added to the mixed values of each position; a time of 1
            stands for all positions.
          tuning: what is trained beside the layer.
        """
        mixed = mixed.reshape(*x.shape[:2], -1)
        if added is not None:
            mixed = mixed.astype(jnp.float32) + added
        mixed = constrain(mixed, "batch", None, "heads")
        x = x + tuned(self.out, tuning.out, mixed)
        x = checkpoint_name(constrain(x, "batch", None, None), "middle")

        normed = tuned_norm(self.mlp_norm, tuning.mlp_norm, x)
        dtype = self.gate.dtype
        gate = tuned(self.gate, tuning.gate, normed).astype(dtype)
        up = tuned(self.up, tuning.up, normed).astype(dtype)
        gate, up = checkpoint_name(gate, "gate"), checkpoint_name(up, "up")
        inner = (jax.nn.silu(gate.astype(jnp.float32)) * up).astype(dtype)
        inner = constrain(inner, "batch", None, "mlp")
        x = x + tuned(self.down, tuning.down, inner)
        return constrain(x, "batch", None, None)


def narrowed(layer: LlamaLayer, dtype: DTypeLike) -> LlamaLayer:
    """A layer whose wider kernels are rounded to a type, for its products.

    Kernels that learn are float32, since bfloat16 would lose most of their updates: a
    step of a learning rate of 5e-5 is smaller than half the distance between two
    neighbours. One layer at a time is rounded, inside the scan, so that there is no
    second copy of all of them. Gradients come back in float32.
    """
    size = jnp.dtype(dtype).itemsize

    def one(parameter: nnx.Variable) -> nnx.Variable:
        array = parameter[...]
        if array.ndim < 2 or array.dtype.itemsize <= size:
            return parameter
        return parameter.replace(array.astype(dtype))

    return jax.tree.map(one, layer, is_leaf=lambda node: isinstance(node, nnx.Variable))

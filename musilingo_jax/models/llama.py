"""LLaMA, the language model (Touvron et al. 2023; Grattafiori et al. 2024, "Llama 3").

It reads vectors, not tokens, so that audio can stand between the words: `embed` turns
tokens into vectors, the call turns vectors into hidden states, `logits` turns those
into scores of the next token. Vicuna is a LLaMA with other numbers in it.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from musilingo_jax.models.layers import (
    Linear,
    Norm,
    attention,
    linear,
    parameter,
    rotary,
)
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.names import Names

NAMES: Names = {
    "embedding": "model.embed_tokens.weight",
    "layers.attention_norm.scale": "model.layers.{}.input_layernorm.weight",
    "layers.query.kernel": "model.layers.{}.self_attn.q_proj.weight",
    "layers.key.kernel": "model.layers.{}.self_attn.k_proj.weight",
    "layers.value.kernel": "model.layers.{}.self_attn.v_proj.weight",
    "layers.out.kernel": "model.layers.{}.self_attn.o_proj.weight",
    "layers.mlp_norm.scale": "model.layers.{}.post_attention_layernorm.weight",
    "layers.gate.kernel": "model.layers.{}.mlp.gate_proj.weight",
    "layers.up.kernel": "model.layers.{}.mlp.up_proj.weight",
    "layers.down.kernel": "model.layers.{}.mlp.down_proj.weight",
    "norm.scale": "model.norm.weight",
    "head.kernel": "lm_head.weight",
}

IGNORED = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)
"""Tensors of released files that we compute ourselves."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KVCache:
    """Keys and values of what was read so far, a slot for each position of a row.

    Prompts of different lengths are padded on the left, so that all rows write their
    next token into the same slot. Two rows, prompts of 4 and 2, six slots, end = 4:

        slot    0 1 2 3 4 5
        row 0   a b c d . .        the next token goes to slot 4 of both rows; only
        row 1   - - e f . .        `attend` knows that row 1 must not look at - -
    """

    key: jax.Array  # [layers, batch, slots, key_heads, head_dim], after the rotation
    value: jax.Array  # [layers, batch, slots, key_heads, head_dim]
    end: jax.Array  # int32[]: the first free slot, common to all rows

    @classmethod
    def create(
        cls, config: LlamaConfig, *, batch: int, slots: int, dtype: jnp.dtype
    ) -> "KVCache":
        shape = (config.depth, batch, slots, config.key_heads, config.head_dim)
        zeros = jnp.zeros(shape, dtype)
        return cls(key=zeros, value=zeros, end=jnp.zeros((), jnp.int32))

    def write(
        self,
        layer: int | Int[Array, ""],
        key: Float[Array, "batch time key_heads head_dim"],
        value: Float[Array, "batch time key_heads head_dim"],
    ) -> "KVCache":
        """Puts a layer's new keys and values into its slots [end, end + time)."""
        start = (layer, 0, self.end, 0, 0)
        return KVCache(
            key=jax.lax.dynamic_update_slice(
                self.key, key[None].astype(self.key.dtype), start
            ),
            value=jax.lax.dynamic_update_slice(
                self.value, value[None].astype(self.value.dtype), start
            ),
            end=self.end,
        )

    def advance(self, time: int) -> "KVCache":
        """Moves the end, once all layers have written."""
        return KVCache(key=self.key, value=self.value, end=self.end + time)


class Layer(nnx.Module):
    """Attention, then a gated mlp, each added to the residual stream after a norm."""

    def __init__(self, config: LlamaConfig, *, rngs: nnx.Rngs):
        width, mlp_width = config.width, config.mlp_width
        queries = config.heads * config.head_dim
        keys = config.key_heads * config.head_dim
        self.config = config

        def linear_layer(fan_in: int, fan_out: int, *axes: str) -> Linear:
            return Linear(fan_in, fan_out, axes=axes, bias=False, rngs=rngs)

        self.attention_norm = Norm(width, bias=False, eps=config.norm_eps)
        self.query = linear_layer(width, queries, "embed", "heads")
        self.key = linear_layer(width, keys, "embed", "heads")
        self.value = linear_layer(width, keys, "embed", "heads")
        self.out = linear_layer(queries, width, "heads", "embed")
        self.mlp_norm = Norm(width, bias=False, eps=config.norm_eps)
        self.gate = linear_layer(width, mlp_width, "embed", "mlp")
        self.up = linear_layer(width, mlp_width, "embed", "mlp")
        self.down = linear_layer(mlp_width, width, "mlp", "embed")

    def __call__(
        self,
        x: Float[Array, "batch time width"],
        cache: KVCache | None,
        *,
        index: int | Int[Array, ""],
        positions: Int[Array, "batch time"],
        attend: Bool[Array, "batch time slots"],
    ) -> tuple[Float[Array, "batch time width"], KVCache | None]:
        """One layer; `index` says which, to a cache of all layers."""
        batch, time, _ = x.shape
        frequencies = jnp.asarray(self.config.rope_frequencies())

        def heads(y: jax.Array) -> jax.Array:
            return y.reshape(batch, time, -1, self.config.head_dim)

        normed = self.attention_norm(x)
        query = rotary(heads(self.query(normed)), positions, frequencies)
        key = rotary(heads(self.key(normed)), positions, frequencies)
        value = heads(self.value(normed))
        if cache is None:
            dtype = self.key.kernel.dtype
            key, value = key.astype(dtype), value.astype(dtype)
        else:
            cache = cache.write(index, key, value)
            key, value = cache.key[index], cache.value[index]
        mixed = attention(query, key, value, attend)
        x = x + self.out(mixed.reshape(batch, time, -1))

        normed = self.mlp_norm(x)
        return x + self.down(jax.nn.silu(self.gate(normed)) * self.up(normed)), cache


class Llama(nnx.Module):
    """Embedding, a stack of equal layers with a leading axis of depth, and a head."""

    def __init__(self, config: LlamaConfig, *, rngs: nnx.Rngs):
        self.config = config
        shape = (config.vocab, config.width)
        embedding = config.width**-0.5 * jax.random.normal(rngs.params(), shape)
        self.embedding = parameter(embedding, ("vocab", "embed"))
        keys = jax.random.split(rngs.params(), config.depth)
        self.layers = jax.vmap(lambda key: Layer(config, rngs=nnx.Rngs(key)))(keys)
        self.norm = Norm(config.width, bias=False, eps=config.norm_eps)
        self.head = (
            None
            if config.tied
            else Linear(
                config.width,
                config.vocab,
                axes=("embed", "vocab"),
                bias=False,
                rngs=rngs,
            )
        )

    def embed(
        self, tokens: Int[Array, "batch time"]
    ) -> Float[Array, "batch time width"]:
        """Word embeddings. A token beyond the vocabulary becomes NaN, not a word."""
        rows = jnp.take(self.embedding[...], tokens, axis=0, mode="fill")
        return rows.astype(jnp.float32)

    def __call__(
        self,
        embeddings: Float[Array, "batch time width"],
        *,
        positions: Int[Array, "batch time"],
        attend: Bool[Array, "batch time slots"],
        cache: KVCache | None,
        remat: bool,
    ) -> tuple[Float[Array, "batch time width"], KVCache | None]:
        """Reads vectors.

        Args:
          embeddings: one vector per position, of a word or of audio.
          positions: where each stands in its own text, for the rotary angles.
          attend: which slots each position may look at. Without a cache, slots are the
            positions themselves; with one, they are its slots.
          cache: what was read before, or None. There must be room for `time` more.
          remat: recompute each layer's inside when differentiating, so that only the
            residual stream between layers is kept.

        Returns:
          Hidden states after the final norm, and the cache with the new slots in it.
        """

        def step(carry, layer_and_index):
            layer, index = layer_and_index
            x, cache = carry
            x, cache = layer(x, cache, index=index, positions=positions, attend=attend)
            return (x, cache), None

        if remat:
            # Inside a scan nothing can be merged with the recomputation anyway.
            step = jax.checkpoint(step, prevent_cse=False)
        carry = embeddings.astype(jnp.float32), cache
        time = embeddings.shape[1]
        if cache is not None and time == 1:
            # A step of decoding does little else than to read the weights once. Under
            # a scan each layer's weights are copied out of the stack before they are
            # read; with fixed indices they are read in place.
            for index in range(self.config.depth):
                layer = jax.tree.map(lambda stack, i=index: stack[i], self.layers)
                carry, _ = step(carry, (layer, index))
        else:
            indices = jnp.arange(self.config.depth)
            carry, _ = jax.lax.scan(step, carry, (self.layers, indices))
        x, cache = carry
        return self.norm(x), None if cache is None else cache.advance(time)

    def logits(
        self, hidden: Float[Array, "*batch width"]
    ) -> Float[Array, "*batch vocab"]:
        """Scores of the next token, before the softmax."""
        if self.head is None:
            return linear(hidden, self.embedding[...].T, None)
        return self.head(hidden)

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
from musilingo_jax.runtime.sharding import constrain

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
    """Keys and values of what each row has read so far, from its slot 0 on.

    A row's text lies in its slots without a gap, so that a slot's number is the
    position of what stands in it. Every row has its own end and writes what comes next
    behind it. Rows of 4 and 2 in six slots, and who may look where when both read one
    more (x: may look):

        slot    0 1 2 3 4 5    ends    attend(1)
        row 0   a b c d . .      4     x x x x x .
        row 1   e f ? ? . .      2     x x x . . .

    Nobody looks beyond where he stands himself. So the padding of a batch of prompts
    (?) harms nobody where it lies, and is written over before anyone gets there; a row
    is emptied by setting its end to 0; and the beginning of one row's text can be put
    into other rows as it is, its rotary angles included. None of it would hold with
    padding on the left, where a row's positions depend on the longest of the batch.

    Every layer has arrays of its own: out of one for all, each would be copied before
    it is read.
    """

    key: tuple[
        jax.Array, ...
    ]  # [batch, key_heads, slots, head_dim], after the rotation
    value: tuple[jax.Array, ...]  # [batch, key_heads, slots, head_dim]
    ends: jax.Array  # int32[batch]: each row's first free slot

    @classmethod
    def create(cls, llama: "Llama", *, batch: int, slots: int) -> "KVCache":
        """An empty one, in the type of the embedding, or on CPUs in float32.

        XLA's CPU compiler has no way to write a bfloat16 into an array of them: it
        would convert the whole cache to float32, and back, for every token.
        """
        config = llama.config
        on_cpu = jax.default_backend() == "cpu"
        dtype = jnp.float32 if on_cpu else llama.embedding.dtype
        zeros = jnp.zeros((batch, config.key_heads, slots, config.head_dim), dtype)
        layers = (zeros,) * config.depth
        return cls(key=layers, value=layers, ends=jnp.zeros(batch, jnp.int32))

    @property
    def slots(self) -> int:
        """How long a row's text can become."""
        return self.key[0].shape[2]

    def positions(self, time: int) -> Int[Array, "batch time"]:
        """Where the next `time` of each row will stand."""
        return self.ends[:, None] + jnp.arange(time, dtype=jnp.int32)

    def attend(self, time: int) -> Bool[Array, "batch time slots"]:
        """Where the next `time` of each row may look: back, and at themselves."""
        return jnp.arange(self.slots) <= self.positions(time)[..., None]

    def write(
        self,
        layer: int,
        key: Float[Array, "batch time key_heads head_dim"],
        value: Float[Array, "batch time key_heads head_dim"],
    ) -> "KVCache":
        """Puts a layer's new keys and values behind each row's end.

        What finds no room any more, which can only be padding, is dropped.
        """
        rows = jnp.arange(key.shape[0])[:, None]
        where = (rows, slice(None), self.positions(key.shape[1]))

        def into(stored: tuple[jax.Array, ...], new: jax.Array):
            written = (
                stored[layer]
                .at[where]
                .set(new.astype(stored[layer].dtype), mode="drop")
            )
            return (*stored[:layer], written, *stored[layer + 1 :])

        return KVCache(into(self.key, key), into(self.value, value), self.ends)

    def read(
        self, layer: int
    ) -> tuple[Float[Array, "batch slots key_heads head_dim"], ...]:
        """The keys and values of a layer."""
        # Stored with heads first, which is how the products of attention take them.
        return self.key[layer].swapaxes(1, 2), self.value[layer].swapaxes(1, 2)

    def advance(self, lengths: int | Int[Array, " batch"]) -> "KVCache":
        """Moves the ends, once all layers have written."""
        return KVCache(self.key, self.value, self.ends + lengths)

    def take(self, rows: Int[Array, " rows"]) -> "KVCache":
        """A cache of some rows of this one, in their order; any of them repeatedly."""
        return jax.tree.map(lambda array: array[rows], self)

    def put(self, rows: Int[Array, " rows"], other: "KVCache") -> "KVCache":
        """Replaces rows by those of a cache with no more slots than this one.

        A row that there is not, such as `batch`, is replaced by nothing.
        """

        def into(ours: jax.Array, theirs: jax.Array) -> jax.Array:
            where = (rows, slice(None), slice(other.slots))[: ours.ndim]
            return ours.at[where].set(theirs, mode="drop")

        return jax.tree.map(into, self, other)

    def widen(self, slots: int) -> "KVCache":
        """The same with so many slots more."""

        def wider(array: jax.Array) -> jax.Array:
            return jnp.pad(array, ((0, 0), (0, 0), (0, slots), (0, 0)))

        key, value = jax.tree.map(wider, (self.key, self.value))
        return KVCache(key, value, self.ends)


class LlamaLayer(nnx.Module):
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
            if cache is None:
                # Or the TPU's compiler makes the product in the layout of the heads,
                # for which it keeps another copy of the kernels of all layers.
                y = jax.lax.optimization_barrier(y)
            y = y.reshape(batch, time, -1, self.config.head_dim)
            return constrain(y, "batch", None, "heads", None)

        normed = self.attention_norm(x)
        query = rotary(heads(self.query(normed)), positions, frequencies)
        key = rotary(heads(self.key(normed)), positions, frequencies)
        value = heads(self.value(normed))
        if cache is None:
            dtype = self.key.dtype
            key, value = key.astype(dtype), value.astype(dtype)
        else:
            cache = cache.write(index, key, value)
            key, value = cache.read(index)
        mixed = attention(query, key, value, attend).reshape(batch, time, -1)
        x = x + self.out(constrain(mixed, "batch", None, "heads"))
        x = constrain(x, "batch", None, None)

        normed = self.mlp_norm(x)
        inner = jax.nn.silu(self.gate(normed)) * self.up(normed)
        x = x + self.down(constrain(inner, "batch", None, "mlp"))
        return constrain(x, "batch", None, None), cache


class Llama(nnx.Module):
    """Embedding, a stack of equal layers with a leading axis of depth, and a head.

    For speaking, the layers stand each on its own (`unstack`).
    """

    def __init__(self, config: LlamaConfig, *, rngs: nnx.Rngs):
        self.config = config
        shape = (config.vocab, config.width)
        embedding = config.width**-0.5 * jax.random.normal(rngs.params(), shape)
        self.embedding = parameter(embedding, ("vocab", "embed"))
        keys = jax.random.split(rngs.params(), config.depth)
        self.layers = jax.vmap(lambda key: LlamaLayer(config, rngs=nnx.Rngs(key)))(keys)
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

    def unstack(self) -> "Llama":
        """The same model with a tuple of layers, each with arrays of its own.

        A step of decoding does little else than to read the weights once. Out of a
        stack, each layer's are copied first, every time a program begins or even in
        every step; so a model that is to speak is unstacked once, when it is loaded.
        It compiles in a time that grows with its depth, and cannot be saved.

        This one's stacked arrays are deleted, one after the other, so that there is
        never more than one of them twice.
        """
        stacks, structure = jax.tree.flatten(self.layers)
        layers = [[] for _ in range(self.config.depth)]
        for stack in stacks:
            for index, arrays in enumerate(layers):
                arrays.append(jax.block_until_ready(stack[index]))
            stack.delete()
        llama = jax.tree.map(lambda leaf: leaf, self)
        llama.layers = nnx.data(tuple(map(structure.unflatten, layers)))
        if jax.default_backend() == "cpu" and self.head is not None:
            # XLA's CPU compiler takes rows of bfloat16 out of a float32 copy of the
            # whole array, which every program would make anew.
            rows = self.embedding[...].astype(jnp.float32)
            llama.embedding = parameter(rows, ("vocab", "embed"))
        return llama

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
        x = constrain(embeddings.astype(jnp.float32), "batch", None, None)
        carry = x, cache
        time = embeddings.shape[1]
        if cache is None and not isinstance(self.layers, tuple):
            indices = jnp.arange(self.config.depth)
            carry, _ = jax.lax.scan(step, carry, (self.layers, indices))
        else:
            for index in range(self.config.depth):
                carry, _ = step(carry, (self._layer(index), index))
        x, cache = carry
        return self.norm(x), None if cache is None else cache.advance(time)

    def _layer(self, index: int) -> LlamaLayer:
        if isinstance(self.layers, tuple):
            return self.layers[index]
        return jax.tree.map(lambda stack: stack[index], self.layers)

    def logits(
        self, hidden: Float[Array, "*batch width"]
    ) -> Float[Array, "*batch vocab"]:
        """Scores of the next token, before the softmax."""
        if self.head is None:
            scores = linear(hidden, self.embedding[...].T, None, None)
        else:
            scores = self.head(hidden)
        inner = (None,) * (scores.ndim - 2)
        return constrain(scores, "batch", *inner, "vocab")

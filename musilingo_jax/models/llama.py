"""LLaMA, the language model, and its relatives (`decoder_families.py`).

Touvron et al. 2023, "LLaMA"; Grattafiori et al. 2024, "Llama 3".

It reads vectors, not tokens, so that audio can stand between the words: `embed` turns
tokens into vectors, the call turns vectors into hidden states, `logits` turns those
into scores of the next token. Vicuna is a LLaMA with other weights.

    Llama            layers stacked and scanned      whole texts: training, evaluation
    UnstackedLlama   layers apart, with a KV cache   decoding, a few tokens at a time
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int
from numpy import ndarray

from musilingo_jax.models import attention_blocks, cpu
from musilingo_jax.models.attention_blocks import Blocks
from musilingo_jax.models.kv_cache import KVCache
from musilingo_jax.models.layers import Linear, Norm, linear, parameter
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.llama_layer import LlamaLayer, narrowed
from musilingo_jax.models.lora import UNTUNED, LayerTuning, Tuning, tuned_norm
from musilingo_jax.models.names import Names
from musilingo_jax.models.remat import recomputing
from musilingo_jax.runtime.sharding import constrain

NAMES: Names = {
    "embedding": "model.embed_tokens.weight",
    "layers.attention_norm.scale": "model.layers.{}.input_layernorm.weight",
    "layers.query.kernel": "model.layers.{}.self_attn.q_proj.weight",
    "layers.query.bias": "model.layers.{}.self_attn.q_proj.bias",
    "layers.query_norm.scale": "model.layers.{}.self_attn.q_norm.weight",
    "layers.key.kernel": "model.layers.{}.self_attn.k_proj.weight",
    "layers.key.bias": "model.layers.{}.self_attn.k_proj.bias",
    "layers.key_norm.scale": "model.layers.{}.self_attn.k_norm.weight",
    "layers.value.kernel": "model.layers.{}.self_attn.v_proj.weight",
    "layers.value.bias": "model.layers.{}.self_attn.v_proj.bias",
    "layers.out.kernel": "model.layers.{}.self_attn.o_proj.weight",
    "layers.out.bias": "model.layers.{}.self_attn.o_proj.bias",
    "layers.mlp_norm.scale": "model.layers.{}.post_attention_layernorm.weight",
    "layers.gate.kernel": "model.layers.{}.mlp.gate_proj.weight",
    "layers.gate.bias": "model.layers.{}.mlp.gate_proj.bias",
    "layers.up.kernel": "model.layers.{}.mlp.up_proj.weight",
    "layers.up.bias": "model.layers.{}.mlp.up_proj.bias",
    "layers.down.kernel": "model.layers.{}.mlp.down_proj.weight",
    "layers.down.bias": "model.layers.{}.mlp.down_proj.bias",
    "norm.scale": "model.norm.weight",
    "head.kernel": "lm_head.weight",
}
"""Our name → the released one, of what some decoder has; few have biases or the norms
of queries and keys."""

IGNORED = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)
"""Tensors of released files that we compute ourselves."""


class _Ends(nnx.Module):
    """Both ends of a LLaMA: from tokens to vectors, and from vectors to scores."""

    config: LlamaConfig
    embedding: nnx.Param
    norm: Norm
    head: Linear | None

    def embed(
        self, tokens: Int[Array | ndarray, "batch time"]
    ) -> Float[Array, "batch time width"]:
        """Word embeddings; of a token outside the vocabulary, NaN."""
        rows = jnp.take(self.embedding[...], tokens, axis=0, mode="fill")
        return rows.astype(jnp.float32)

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


class Llama(_Ends):
    """A LLaMA whose equal layers are one `LlamaLayer` with a leading axis of depth."""

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

    def __call__(
        self,
        embeddings: Float[Array | ndarray, "batch time width"],
        *,
        positions: Int[Array | ndarray, "batch time"],
        segments: Int[Array | ndarray, "batch time"],
        remat: str,
        blocks: Blocks = attention_blocks.DEFAULT,
        added: Float[Array, "depth batch clips queries"] | None = None,
        tuning: Tuning = UNTUNED,
    ) -> Float[Array, "batch time width"]:
        """Reads whole texts.

        Args:
          embeddings: one vector per position, of a word or of audio.
          positions: of each vector in its own text, for the rotary angles.
          segments: 0 = padding, 1… = text in the row; a text does not attend to others.
          remat: what the backward pass keeps of each layer, a key of `remat.POLICIES`.
          blocks: of attention on TPUs.
          added: what each layer hears, as in `Heard`.
          tuning: what is trained beside the layers.

        Returns:
          Hidden states after the final norm.
        """
        # A window that holds the whole row changes nothing.
        time = embeddings.shape[1]
        windows = [size if size < time else 0 for size in self.config.windows] or [0]
        # If it is the same for all layers it is static, so that kernels can have it.
        static = windows[0] if len(set(windows)) == 1 else None

        def read(
            x: Array, one: tuple[LlamaLayer, Any], where: tuple[Array, Array]
        ) -> Array:
            positions, segments = where
            layer, (rotation, window, added, beside) = one
            return narrowed(layer, self.embedding.dtype)(
                x,
                positions=positions,
                segments=segments,
                rotation=rotation,
                window=window if static is None else static,
                blocks=blocks,
                added=added,
                tuning=beside,
            )

        where = jnp.asarray(positions), jnp.asarray(segments)
        dtypes = self.layers.key.dtype, self.embedding.dtype
        narrower = min(dtypes, key=lambda dtype: jnp.dtype(dtype).itemsize)
        kept = recomputing(read, remat, narrower)

        def step(x: Array, layer: tuple[LlamaLayer, Any]) -> tuple[Array, None]:
            return kept(x, layer, where), None

        x = jnp.asarray(embeddings, jnp.float32)
        x = constrain(x, "batch", None, None)
        each = (
            jnp.asarray(self.config.rotations()),
            (jnp.asarray(windows) if static is None else None),
            added,
            tuning.layers,
        )
        x, _ = jax.lax.scan(step, x, (self.layers, each))
        return tuned_norm(self.norm, tuning.norm, x)

    def values(
        self, x: Float[Array, "depth *batch width"]
    ) -> Float[Array, "depth *batch keys"]:
        """What the frozen value map of each layer makes of a vector, without its norm.

        Args:
          x: vectors for each layer.
        """

        def step(_: None, one: tuple[Linear, Array]) -> tuple[None, Array]:
            value, x = one
            return None, value(x)

        return jax.lax.scan(step, None, (self.layers.value, x))[1]


class UnstackedLlama(_Ends):
    """A LLaMA for decoding, whose layers have arrays of their own; see `unstacked`."""

    def __init__(
        self,
        config: LlamaConfig,
        *,
        embedding: nnx.Param,
        layers: tuple[LlamaLayer, ...],
        norm: Norm,
        head: Linear | None,
        cache_dtype: DTypeLike,
        slots_first: bool,
    ):
        self.config = config
        self.embedding = embedding
        self.layers = nnx.data(layers)
        self.norm = norm
        self.head = head
        self.cache_dtype = jnp.dtype(cache_dtype)
        self.slots_first = slots_first

    def empty_cache(self, *, batch: int, slots: int, hears: bool = False) -> KVCache:
        """A cache for `batch` rows of up to `slots` tokens each.

        Args:
          batch: rows.
          slots: tokens of each.
          hears: whether the layers will add what is heard.
        """
        return KVCache.empty(
            self.config,
            batch=batch,
            slots=slots,
            dtype=self.cache_dtype,
            slots_first=self.slots_first,
            hears=hears,
        )

    def __call__(
        self,
        embeddings: Float[Array | ndarray, "batch time width"],
        cache: KVCache,
        *,
        lengths: int | Int[Array, " batch"],
        tuning: Tuning = UNTUNED,
    ) -> tuple[Float[Array, "batch time width"], KVCache]:
        """Reads the next part of each row's text.

        Args:
          embeddings: vectors that follow what is in the cache, padded on the right.
          cache: what each row has read before, and what its layers hear.
          lengths: how many of each row's vectors are text and not padding.
          tuning: what is trained beside the layers.

        Returns:
          Hidden states after the final norm, and the cache with the vectors in it.
        """
        time = embeddings.shape[1]
        positions = cache.positions(time)
        x = jnp.asarray(embeddings, jnp.float32)
        x = constrain(x, "batch", None, None)
        beside = tuning.layers
        if isinstance(beside, LayerTuning):  # Nothing is trained.
            beside = (beside,) * len(self.layers)
        for index, layer in enumerate(self.layers):
            x, cache = layer.decode(
                x,
                cache,
                index=index,
                positions=positions,
                added=cache.added(index),
                tuning=beside[index],
            )
        x = tuned_norm(self.norm, tuning.norm, x)
        return x, cache.advance(lengths)

    def values(
        self, x: Float[Array, "depth *batch width"]
    ) -> Float[Array, "depth *batch keys"]:
        """As `Llama.values`."""
        return jnp.stack(
            [layer.value(x[index]) for index, layer in enumerate(self.layers)]
        )


def unstacked(llama: Llama) -> UnstackedLlama:
    """Takes a model apart into layers with arrays of their own.

    A step of decoding does little else than read every weight once. A layer in a stack
    is copied before it is read, at the start of each program or even in every step; so
    a model is unstacked once, when it is loaded for decoding. In return, a program that
    uses it takes longer to compile the deeper the model is.

    Takes ownership of `llama`: its stacked arrays are deleted one by one, so that no
    more than one of them is in memory twice. Embedding, norm and head are shared.
    """
    stacks, structure = jax.tree.flatten(llama.layers)
    layers = [[] for _ in range(llama.config.depth)]
    for stack in stacks:
        for index, arrays in enumerate(layers):
            arrays.append(jax.block_until_ready(stack[index]))
        stack.delete()
    embedding = llama.embedding
    cache_dtype = embedding.dtype
    on_cpu = _platform(embedding[...]) == "cpu"
    if on_cpu:
        cache_dtype = cpu.ROW_DTYPE
        if llama.head is not None:
            rows = embedding[...].astype(cpu.ROW_DTYPE)
            embedding = parameter(rows, ("vocab", "embed"))
    return UnstackedLlama(
        llama.config,
        embedding=embedding,
        layers=tuple(map(structure.unflatten, layers)),
        norm=llama.norm,
        head=llama.head,
        cache_dtype=cache_dtype,
        slots_first=not on_cpu,
    )


def _platform(array: jax.Array) -> str:
    """Where an array is: "cpu", "gpu" or "tpu"."""
    return next(iter(array.devices())).platform

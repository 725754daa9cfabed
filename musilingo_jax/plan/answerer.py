"""A language model that answers, as shapes and shardings: for `read` and `decode`.

A model that is loaded for answers has layers with arrays of their own
(`llama.unstacked`); its caches have the type of its weights, and their rows and heads
are spread as `PromptReader.place` spreads them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from musilingo_jax.answering.decoding import Rows, TokenRule
from musilingo_jax.answering.prompt_reader import PromptReader
from musilingo_jax.answering.sampling import Choice
from musilingo_jax.answering.stop_texts import Stops
from musilingo_jax.models.bridges.linear import LinearBridge
from musilingo_jax.models.kv_cache import KVCache, layer_shape
from musilingo_jax.models.llama import Llama, UnstackedLlama
from musilingo_jax.plan.job import held
from musilingo_jax.plan.model_shapes import Shapes
from musilingo_jax.pretrained import weights
from musilingo_jax.runtime.sharding import cache_sharding, placed, replicated
from musilingo_jax.training import flops

# States and kinds of tokens of a `Stops`; those of a few texts. They change nothing.
_STOP_TABLE = (8, 16)


@dataclass(frozen=True)
class AbstractAnswerer:
    """A language model and how it answers.

    Attributes:
      shapes: of the models.
      dtype: of the weights and of the cache.
      quantization: of the weights; "" for none.
      choice: how the next token is chosen.
      max_new_tokens: room for an answer's tokens.
    """

    shapes: Shapes
    dtype: str
    quantization: str
    choice: Choice
    max_new_tokens: int

    @property
    def weights(self) -> str:
        """The type of the frozen weights."""
        return self.quantization or self.dtype

    def reader(self, mesh: Mesh) -> PromptReader:
        """Bridge and language model."""
        widths = self.shapes.encoder_width, self.shapes.language_model.width
        adapter = jax.eval_shape(lambda: LinearBridge(*widths, rngs=nnx.Rngs(0)))
        llama = weights.abstract_language_model(
            self.shapes.language_model,
            dtype=self.dtype,
            quantization=self.quantization,
            mesh=mesh,
        )
        return PromptReader(placed(adapter, mesh), _unstacked(llama, self.dtype), mesh)

    def rule(self, mesh: Mesh) -> TokenRule:
        """How tokens are chosen."""
        vocab = self.shapes.language_model.vocab
        table = _whole(mesh, jnp.int32, *_STOP_TABLE)
        stops = Stops(table=table, kind=_whole(mesh, jnp.int32, 1, vocab))
        return TokenRule(self.choice, stops)

    def cache(self, mesh: Mesh, *, rows: int, slots: int, spread: bool) -> KVCache:
        """A cache; `spread` as in `PromptReader.place`."""
        config = self.shapes.language_model
        shape = layer_shape(config, batch=rows, slots=slots, slots_first=True)
        place = cache_sharding(
            mesh,
            batch=rows,
            key_heads=config.key_heads,
            rows=spread,
            slots_first=True,
        )
        layer: Any = jax.ShapeDtypeStruct(shape, jnp.dtype(self.dtype), sharding=place)
        layers = (layer,) * config.depth
        ends = _whole(mesh, jnp.int32, rows)
        return KVCache(layers, layers, ends, None, config.head_dim, slots_first=True)

    def rows(self, mesh: Mesh, *, rows: int, slots: int) -> Rows:
        """Rows in the middle of their answers."""
        return Rows(
            cache=self.cache(mesh, rows=rows, slots=slots, spread=True),
            tokens=_whole(mesh, jnp.int32, rows, self.max_new_tokens),
            count=_whole(mesh, jnp.int32, rows),
            stop_state=_whole(mesh, jnp.int32, rows),
            seeds=_whole(mesh, jnp.uint32, rows),
            limits=_whole(mesh, jnp.int32, rows),
        )

    def model_flops(self, *, tokens: int, pairs: int, scored: int) -> float:
        """Operations that the mathematics asks for, on all devices.

        Args:
          tokens: that are read.
          pairs: of a token and one that it attends to.
          scored: tokens after which the next one is chosen.
        """
        config = self.shapes.language_model
        layers = 2 * flops.layer_weights(config) * tokens
        attention = 4 * config.heads * config.head_dim * pairs
        head = 2 * config.width * config.vocab * scored
        return float(config.depth * (layers + attention) + head)

    def to_dict(self) -> dict[str, Any]:
        """Types and choice, for scripts."""
        return {
            "dtype": self.dtype,
            "quantization": self.quantization,
            "choice": repr(self.choice),
        }


def read_weights(llama: UnstackedLlama) -> float:
    """Bytes of weights on a device that a step reads: all but the embedding's rows.

    Of an embedding, a step reads one row for each token, unless it is the head, too.
    """
    whole = held(llama)
    return whole if llama.head is None else whole - held(llama.embedding)


def answer_memory(reader: PromptReader, rows: Rows) -> Mapping[str, float]:
    """Bytes on a device, by part; the adapter's come last."""
    others = (rows.tokens, rows.count, rows.stop_state, rows.seeds)
    return {
        "weights": held(reader.llama),
        "cache": held(rows.cache),
        "rows": held(others),
    }


def _unstacked(llama: Llama, cache_dtype: DTypeLike) -> UnstackedLlama:
    """`llama.unstacked` for a model without values, as accelerators load it."""

    def layer(leaf: Any) -> Any:
        place = leaf.sharding
        spec = PartitionSpec(*place.spec[1:])
        return jax.ShapeDtypeStruct(
            leaf.shape[1:], leaf.dtype, sharding=NamedSharding(place.mesh, spec)
        )

    one = jax.tree.map(layer, llama.layers)
    return UnstackedLlama(
        llama.config,
        embedding=llama.embedding,
        layers=(one,) * llama.config.depth,
        norm=llama.norm,
        head=llama.head,
        cache_dtype=cache_dtype,
        slots_first=True,
    )


def _whole(mesh: Mesh, dtype: DTypeLike, *shape: int) -> Any:
    """An abstract array that every device has."""
    return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype), sharding=replicated(mesh))

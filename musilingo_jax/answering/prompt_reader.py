"""Reads prompts with audio among their tokens into a language model's cache."""

import functools
from dataclasses import dataclass, field
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, Int

from musilingo_jax.answering.padded_prompts import PaddedPrompts
from musilingo_jax.models.answer_loss import splice
from musilingo_jax.models.bridges import Bridge
from musilingo_jax.models.kv_cache import KVCache
from musilingo_jax.models.llama import UnstackedLlama
from musilingo_jax.models.lora import UNTUNED, Tuning
from musilingo_jax.runtime.sharding import cache_sharding, replicated, row_shares

T = TypeVar("T")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PromptReader:
    """A bridge and a language model, and the devices that they are on.

    Attributes:
      bridge: cached features → what the language model hears.
      llama: the language model.
      mesh: the devices; None for the default one.
      tuning: what was trained beside the language model's weights.
    """

    bridge: Bridge
    llama: UnstackedLlama
    mesh: Mesh | None = field(metadata={"static": True})
    tuning: Tuning = UNTUNED

    @property
    def row_shares(self) -> int:
        """How many groups of devices the rows of a batch are divided among."""
        return 1 if self.mesh is None else row_shares(self.mesh.shape)

    def read(
        self, prompts: PaddedPrompts, cache: KVCache
    ) -> tuple[Float[Array, "batch width"], KVCache]:
        """Reads prompts behind what the rows of the cache hold already.

        Returns:
          The hidden state of each row's last token, and the cache.
        """
        heard = self.bridge(prompts.features, self.llama)
        embeddings = self.llama.embed(prompts.tokens)
        if heard.spliced is not None:
            embeddings = splice(embeddings, heard.spliced, prompts.audio_slot)
        if heard.added is not None:
            cache = cache.hear(heard.added[:, :, :1])
        hidden, filled = self.llama(
            embeddings, cache, lengths=prompts.lengths, tuning=self.tuning
        )
        last = jnp.maximum(prompts.lengths - 1, 0)[:, None, None]
        return jnp.take_along_axis(hidden, last, axis=1)[:, 0], filled

    def read_token(
        self, tokens: Int[Array, " batch"], cache: KVCache
    ) -> tuple[Float[Array, "batch width"], KVCache]:
        """Reads one more token in each row; returns as `read` does."""
        embeddings = self.llama.embed(tokens[:, None])
        hidden, filled = self.llama(embeddings, cache, lengths=1, tuning=self.tuning)
        return hidden[:, -1], filled

    def place(self, tree: T, *, spread: bool) -> T:
        """Constrains where the arrays of a traced tree with caches in it are.

        Args:
          tree: a cache, or something that holds one.
          spread: whether the rows of a cache are spread over the devices, or every
            device holds all of them. Its heads always are; all other arrays, which
            the host reads, are on every device.
        """
        mesh = self.mesh
        if mesh is None:
            return tree

        def sharding(array: jax.Array) -> NamedSharding:
            if array.ndim > 2:  # Keys and values.
                return cache_sharding(
                    mesh,
                    batch=array.shape[0],
                    key_heads=self.llama.config.key_heads,
                    rows=spread,
                    slots_first=self.llama.slots_first,
                )
            return replicated(mesh)

        return jax.lax.with_sharding_constraint(tree, jax.tree.map(sharding, tree))

    def replicate(self, tree: Any) -> Any:
        """Puts arrays of the host on every device."""
        place = None if self.mesh is None else replicated(self.mesh)
        return jax.device_put(tree, place)


@functools.partial(jax.jit, static_argnames=("rows", "slots", "spread"))
def empty_cache(
    reader: PromptReader, *, rows: int, slots: int, spread: bool
) -> KVCache:
    """Makes a cache on its devices, without it ever being whole on one of them.

    Args:
      reader: what reads into it.
      rows: texts that it holds.
      slots: tokens of each.
      spread: as in `PromptReader.place`.
    """
    hears = not reader.bridge.splices
    cache = reader.llama.empty_cache(batch=rows, slots=slots, hears=hears)
    return reader.place(cache, spread=spread)

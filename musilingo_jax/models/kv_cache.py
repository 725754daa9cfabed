"""The keys and values of what a language model has read, for decoding."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from musilingo_jax.models.llama_config import LlamaConfig


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KVCache:
    """Keys and values of each row's text, from slot 0 on.

    A row's text fills its slots without a gap, so that the number of a slot is the
    position of the token in it. Each row has its own end, where its next tokens go.
    Rows of 4 and 2 tokens in six slots, and what each attends to while it reads one
    more (x):

        slot    0 1 2 3 4 5    ends    attend(1)
        row 0   a b c d . .      4     x x x x x .
        row 1   e f ? ? . .      2     x x x . . .

    No query attends beyond its own position. So the padding of a batch of prompts (?)
    may stay where it is: it is overwritten before any query gets there. A row is
    emptied by setting its end to 0, and the beginning of one row's text can be copied
    to other rows as it is, rotary angles included. None of this would hold with padding
    on the left, where a row's positions depend on the longest row of its batch.

    Each layer has arrays of its own: slices of one array for all layers would be copied
    before they are read.
    """

    key: tuple[jax.Array, ...]  # [batch, key_heads, slots, head_dim], rotated
    value: tuple[jax.Array, ...]  # [batch, key_heads, slots, head_dim]
    ends: jax.Array  # int32[batch]: each row's first free slot

    @classmethod
    def empty(
        cls, config: LlamaConfig, *, batch: int, slots: int, dtype: DTypeLike
    ) -> "KVCache":
        """A cache of rows without text."""
        zeros = jnp.zeros((batch, config.key_heads, slots, config.head_dim), dtype)
        layers = (zeros,) * config.depth
        return cls(key=layers, value=layers, ends=jnp.zeros(batch, jnp.int32))

    @property
    def slots(self) -> int:
        """The longest text that a row can hold."""
        return self.key[0].shape[2]

    def positions(self, time: int) -> Int[Array, "batch time"]:
        """The positions of the next `time` tokens of each row."""
        return self.ends[:, None] + jnp.arange(time, dtype=jnp.int32)

    def attend(self, time: int) -> Bool[Array, "batch time slots"]:
        """Where the next `time` tokens of each row attend: back, and to themselves."""
        return jnp.arange(self.slots) <= self.positions(time)[..., None]

    def write(
        self,
        layer: int,
        key: Float[Array, "batch time key_heads head_dim"],
        value: Float[Array, "batch time key_heads head_dim"],
    ) -> "KVCache":
        """Puts a layer's new keys and values after each row's end.

        What exceeds the slots is dropped; it can only be padding.
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
    ) -> tuple[
        Float[Array, "batch slots key_heads head_dim"],
        Float[Array, "batch slots key_heads head_dim"],
    ]:
        """The keys and values of a layer."""
        # Stored with heads first, as the products of attention read them.
        return self.key[layer].swapaxes(1, 2), self.value[layer].swapaxes(1, 2)

    def advance(self, lengths: int | Int[Array, " batch"]) -> "KVCache":
        """Moves the ends, once all layers have written."""
        return KVCache(self.key, self.value, self.ends + lengths)

    def take(self, rows: Int[Array, " rows"]) -> "KVCache":
        """A cache of the rows of this one with these numbers, repetitions allowed."""
        return jax.tree.map(lambda array: array[rows], self)

    def put(self, rows: Int[Array, " rows"], other: "KVCache") -> "KVCache":
        """Replaces rows by those of a cache with no more slots than this one.

        A row number outside the cache, such as `batch`, is skipped.
        """

        def into(ours: jax.Array, theirs: jax.Array) -> jax.Array:
            where = (rows, slice(None), slice(other.slots))[: ours.ndim]
            return ours.at[where].set(theirs, mode="drop")

        return jax.tree.map(into, self, other)

    def widen(self, slots: int) -> "KVCache":
        """The same text with `slots` more slots for each row."""

        def wider(array: jax.Array) -> jax.Array:
            return jnp.pad(array, ((0, 0), (0, 0), (0, slots), (0, 0)))

        key, value = jax.tree.map(wider, (self.key, self.value))
        return KVCache(key, value, self.ends)

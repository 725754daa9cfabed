"""The keys and values of what a language model has read, for decoding."""

from dataclasses import dataclass, field, replace

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
    before they are read. Within a row, accelerators keep slots before heads, and the
    heads of a slot as one vector, so that a new token is written as one piece; in the
    other order, XLA:TPU copies the cache at the beginning and at the end of each
    program. CPUs keep heads before slots, as the products of attention read them.
    """

    key: tuple[jax.Array, ...]  # [batch, slots, key_heads · head_dim], rotated
    value: tuple[jax.Array, ...]  # or [batch, key_heads, slots, head_dim]
    ends: jax.Array  # int32[batch]: each row's first free slot
    heard: jax.Array | None  # float32[batch, depth · queries]: as `Heard.added`
    head_dim: int = field(metadata={"static": True})
    slots_first: bool = field(metadata={"static": True})

    @classmethod
    def empty(
        cls,
        config: LlamaConfig,
        *,
        batch: int,
        slots: int,
        dtype: DTypeLike,
        slots_first: bool,
        hears: bool = False,
    ) -> "KVCache":
        """A cache of rows without text.

        Args:
          config: of the language model.
          batch: rows.
          slots: tokens of each.
          dtype: of keys and values.
          slots_first: see above.
          hears: whether the layers add what is heard, which then is a part of a row.
        """
        shape = layer_shape(config, batch=batch, slots=slots, slots_first=slots_first)
        layers = (jnp.zeros(shape, dtype),) * config.depth
        ends = jnp.zeros(batch, jnp.int32)
        added = config.depth * config.heads * config.head_dim
        heard = jnp.zeros((batch, added), jnp.float32) if hears else None
        return cls(layers, layers, ends, heard, config.head_dim, slots_first)

    @property
    def slots(self) -> int:
        """The longest text that a row can hold."""
        return self.key[0].shape[self._axis]

    @property
    def _axis(self) -> int:
        """Of the slots, in the arrays of a layer."""
        return 1 if self.slots_first else 2

    def positions(self, time: int) -> Int[Array, "batch time"]:
        """The positions of the next `time` tokens of each row."""
        return self.ends[:, None] + jnp.arange(time, dtype=jnp.int32)

    def attend(self, time: int, window: int = 0) -> Bool[Array, "batch time slots"]:
        """Where the next `time` tokens of each row attend: back, and to themselves.

        Args:
          time: the number of tokens.
          window: how far back, themselves included; 0 = to the beginning.
        """
        slots, positions = jnp.arange(self.slots), self.positions(time)[..., None]
        seen = slots <= positions
        return seen & (slots > positions - window) if window else seen

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
        positions = self.positions(key.shape[1])
        where = (
            (rows, positions) if self.slots_first else (rows, slice(None), positions)
        )

        def into(stored: tuple[jax.Array, ...], new: jax.Array):
            if self.slots_first:
                new = new.reshape(*new.shape[:2], -1)
            written = (
                stored[layer]
                .at[where]
                .set(new.astype(stored[layer].dtype), mode="drop")
            )
            return (*stored[:layer], written, *stored[layer + 1 :])

        return replace(self, key=into(self.key, key), value=into(self.value, value))

    def read(
        self, layer: int
    ) -> tuple[
        Float[Array, "batch slots key_heads head_dim"],
        Float[Array, "batch slots key_heads head_dim"],
    ]:
        """The keys and values of a layer."""

        def heads(stored: jax.Array) -> jax.Array:
            if self.slots_first:
                return stored.reshape(*stored.shape[:2], -1, self.head_dim)
            return stored.swapaxes(1, 2)

        return heads(self.key[layer]), heads(self.value[layer])

    def hear(self, added: Float[Array, "depth batch 1 queries"]) -> "KVCache":
        """With what the layers add to each row from now on, as in `Heard`."""
        heard = added[:, :, 0].swapaxes(0, 1)
        return replace(self, heard=heard.reshape(heard.shape[0], -1))

    def added(self, layer: int) -> Float[Array, "batch 1 queries"] | None:
        """What a layer adds to each row; None if it adds nothing."""
        if self.heard is None:
            return None
        return self.heard.reshape(len(self.ends), len(self.key), -1)[:, layer, None]

    def advance(self, lengths: int | Int[Array, " batch"]) -> "KVCache":
        """Moves the ends, once all layers have written."""
        return replace(self, ends=self.ends + lengths)

    def take(self, rows: Int[Array, " rows"]) -> "KVCache":
        """A cache of the rows of this one with these numbers, repetitions allowed."""
        return jax.tree.map(lambda array: array[rows], self)

    def put(self, rows: Int[Array, " rows"], other: "KVCache") -> "KVCache":
        """Replaces rows by those of a cache with no more slots than this one.

        A row number outside the cache, such as `batch`, is skipped.
        """

        def into(ours: jax.Array, theirs: jax.Array) -> jax.Array:
            inner = (slice(None),) * (self._axis - 1) + (slice(other.slots),)
            where = (rows, *(inner if ours.ndim > 2 else ()))
            return ours.at[where].set(theirs, mode="drop")

        return jax.tree.map(into, self, other)

    def cut(self, lengths: Int[Array, " batch"]) -> "KVCache":
        """The beginnings of the texts, of so many tokens; the rest is overwritten."""
        return replace(self, ends=lengths)

    def where(self, chosen: Bool[Array, " batch"], other: "KVCache") -> "KVCache":
        """The chosen rows of this cache, and the others of one of the same shape."""

        def choose(ours: jax.Array, theirs: jax.Array) -> jax.Array:
            each = chosen.reshape(-1, *(1,) * (ours.ndim - 1))
            return jnp.where(each, ours, theirs)

        return jax.tree.map(choose, self, other)

    def widen(self, slots: int) -> "KVCache":
        """The same text with `slots` more slots for each row."""

        def wider(array: jax.Array) -> jax.Array:
            more = [(0, 0)] * array.ndim
            more[self._axis] = (0, slots)
            return jnp.pad(array, more)

        key, value = jax.tree.map(wider, (self.key, self.value))
        return replace(self, key=key, value=value)


def layer_shape(
    config: LlamaConfig, *, batch: int, slots: int, slots_first: bool
) -> tuple[int, ...]:
    """The shape of a layer's keys, and of its values."""
    if slots_first:
        return batch, slots, config.key_heads * config.head_dim
    return batch, config.key_heads, slots, config.head_dim

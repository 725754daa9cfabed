"""From prompts to tokens: the programs that read and speak, a row for each answer.

    read_prefixes   what questions about one clip begin with, each once
    admit           the rest of some prompts, into rows that are free; says a token each
    speak           token after token for all rows, until enough of them have finished

Each is compiled once for a shape; `continuous.py` calls them in turn. Rows never see
each other: what a row says does not depend on its neighbours, on how many they are, or
on how far it was padded. The state between two tokens is donated, so that a cache is
never there twice.
"""

import functools
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Bool, Float, Int

from musilingo_jax.answering.sampling import SILENCE, Choice, Said
from musilingo_jax.answering.stop_texts import Stops
from musilingo_jax.models.adapter import Adapter
from musilingo_jax.models.llama import KVCache, Llama
from musilingo_jax.models.musilingo import splice
from musilingo_jax.runtime.sharding import cache_sharding, replicated


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Prompts:
    """Prompts, or parts of them, padded on the right.

    Two of 5 and 3 tokens and one that only fills the batch (♪: audio):

        tokens        a  ♪  ♪  b  c        lengths   5
                      d  ♪  e  .  .                  3
                      .  .  .  .  .                  0
    """

    features: jax.Array  # float32[batch, windows, width]; pooled audio
    tokens: jax.Array  # int32[batch, time]
    audio_slot: jax.Array  # int32[batch, time]; audio vector here, -1 = text token
    lengths: jax.Array  # int32[batch]; 0 = nothing to read


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rows:
    """All that is known of the rows between two tokens: the carry of the loop."""

    cache: KVCache  # each row's prompt, then what it said before its last token
    tokens: jax.Array  # int32[rows, max_new_tokens]; SILENCE where nothing was said
    count: jax.Array  # int32[rows]: tokens said
    spelled: jax.Array  # int32[rows]: state of the stops, `finished` if it is done
    seeds: jax.Array  # uint32[rows]: what the row's draws come from

    @classmethod
    def silent(
        cls, cache: KVCache, seeds: Int[Array, " rows"], *, most: int, state: int
    ) -> "Rows":
        """Rows that have said nothing yet and may say up to `most` tokens."""
        rows = cache.ends.shape[0]
        return cls(
            cache=cache,
            tokens=jnp.full((rows, most), SILENCE, jnp.int32),
            count=jnp.zeros(rows, jnp.int32),
            spelled=jnp.full(rows, state, jnp.int32),
            seeds=seeds,
        )

    @property
    def last(self) -> Int[Array, " rows"]:
        """What each said last."""
        place = jnp.maximum(self.count - 1, 0)[:, None]
        return jnp.take_along_axis(self.tokens, place, axis=1)[:, 0]

    def put(self, rows: Int[Array, " some"], others: "Rows") -> "Rows":
        """Replaces rows; one that there is not is replaced by nothing."""

        def into(ours: jax.Array, theirs: jax.Array) -> jax.Array:
            return ours.at[rows].set(theirs, mode="drop")

        rest = {
            name: into(getattr(self, name), getattr(others, name))
            for name in ("tokens", "count", "spelled", "seeds")
        }
        return Rows(cache=self.cache.put(rows, others.cache), **rest)


def read(
    adapter: Adapter, llama: Llama, prompts: Prompts, cache: KVCache
) -> tuple[Float[Array, "batch width"], KVCache]:
    """Reads prompts behind what the rows of a cache have read already.

    Returns:
      The hidden state of each row's last token, and the cache.
    """
    time = prompts.tokens.shape[1]
    embeddings = splice(
        llama.embed(prompts.tokens), adapter(prompts.features), prompts.audio_slot
    )
    hidden, filled = llama(
        embeddings,
        positions=cache.positions(time),
        attend=cache.attend(time),
        cache=cache,
        remat=False,
    )
    last = jnp.maximum(prompts.lengths - 1, 0)[:, None, None]
    # Its padding is no text: the rows end where their prompts do.
    filled = replace(filled, ends=cache.ends + prompts.lengths)
    return jnp.take_along_axis(hidden, last, axis=1)[:, 0], filled


def say(
    llama: Llama,
    rows: Rows,
    hidden: Float[Array, "rows width"],
    stops: Stops,
    choice: Choice,
) -> Rows:
    """Every row that has not finished says a token."""
    said = Said(rows.tokens, rows.count, stops.finishing(rows.spelled))
    token = choice(llama.logits(hidden), said, rows.seeds)
    speaking = rows.spelled != stops.finished
    most = rows.tokens.shape[1]
    # A place beyond the last is none: there, nothing is written.
    place = jnp.where(speaking, rows.count, most)
    count = rows.count + speaking
    spelled = stops.follow(rows.spelled, token)
    return replace(
        rows,
        tokens=rows.tokens.at[jnp.arange(len(token)), place].set(token, mode="drop"),
        count=count,
        spelled=jnp.where(count == most, stops.finished, spelled),
    )


@functools.partial(jax.jit, static_argnames=("rows", "slots", "spread", "mesh"))
def empty_cache(
    llama: Llama, *, rows: int, slots: int, spread: bool, mesh: Mesh | None
) -> KVCache:
    """A cache where it belongs, without ever being whole on one device.

    Args:
      llama: who reads into it.
      rows: texts.
      slots: tokens of each.
      spread: whether rows are spread over the devices, or all are on all.
      mesh: the devices; None for the default one.
    """
    cache = KVCache.create(llama, batch=rows, slots=slots)
    return placed(cache, mesh, spread=spread)


@functools.partial(jax.jit, static_argnames="mesh", donate_argnames="bank")
def read_prefixes(
    adapter: Adapter,
    llama: Llama,
    bank: KVCache,
    prompts: Prompts,
    places: Int[Array, " batch"],
    *,
    mesh: Mesh | None,
) -> KVCache:
    """Reads what prompts begin with, to be taken up any number of times.

    Args:
      adapter: pooled audio → word embeddings.
      llama: the language model.
      bank: prefixes that were read before.
      prompts: the prefixes.
      places: the rows of the bank that they go to; beyond its last: nowhere.
      mesh: the devices; None for the default one.

    Returns:
      The bank.
    """
    batch = prompts.tokens.shape[0]
    cache = KVCache.create(llama, batch=batch, slots=bank.slots)
    _, cache = read(adapter, llama, prompts, placed(cache, mesh, spread=True))
    return placed(bank.put(places, cache), mesh, spread=False)


@functools.partial(jax.jit, static_argnames=("choice", "mesh"), donate_argnames="rows")
def admit(
    adapter: Adapter,
    llama: Llama,
    rows: Rows,
    bank: KVCache,
    prompts: Prompts,
    prefixes: Int[Array, " batch"],
    places: Int[Array, " batch"],
    seeds: Int[Array, " batch"],
    stops: Stops,
    *,
    choice: Choice,
    mesh: Mesh | None,
) -> Rows:
    """Reads new prompts and lets them say their first token.

    Args:
      adapter: pooled audio → word embeddings.
      llama: the language model.
      rows: those that are speaking, and free ones.
      bank: prefixes.
      prompts: what comes after the prefixes; none is empty.
      prefixes: the row of the bank that each begins with.
      places: the rows that they get; beyond the last: none.
      seeds: of their draws.
      stops: what ends an answer.
      choice: how a token is chosen.
      mesh: the devices; None for the default one.

    Returns:
      All rows.
    """
    cache = bank.take(prefixes).widen(prompts.tokens.shape[1])
    hidden, cache = read(adapter, llama, prompts, placed(cache, mesh, spread=True))
    fresh = Rows.silent(cache, seeds, most=rows.tokens.shape[1], state=0)
    fresh = say(llama, fresh, hidden, stops, choice)
    return placed(rows.put(places, fresh), mesh, spread=True)


@functools.partial(jax.jit, static_argnames=("choice", "mesh"), donate_argnames="rows")
def speak(
    llama: Llama,
    rows: Rows,
    stops: Stops,
    enough: Int[Array, ""] | int,
    steps: Int[Array, ""] | int,
    *,
    choice: Choice,
    mesh: Mesh | None,
) -> Rows:
    """Says token after token, all rows at once.

    Args:
      llama: the language model.
      rows: those that are speaking, and free ones, which count as finished.
      stops: what ends an answer.
      enough: returns as soon as so many rows have finished,
      steps: or have said so many tokens more.
      choice: how a token is chosen.
      mesh: the devices; None for the default one.
    """

    def speaking(step_and_rows: tuple[jax.Array, Rows]) -> Bool[Array, ""]:
        step, rows = step_and_rows
        return (step < steps) & (jnp.sum(rows.spelled == stops.finished) < enough)

    def read_and_say(step_and_rows: tuple[jax.Array, Rows]):
        step, rows = step_and_rows
        going = rows.spelled != stops.finished
        hidden, cache = llama(
            llama.embed(rows.last[:, None]),
            positions=rows.cache.positions(1),
            attend=rows.cache.attend(1),
            cache=rows.cache,
            remat=False,
        )
        # Who has finished stays where he is.
        cache = replace(cache, ends=rows.cache.ends + going)
        rows = say(llama, replace(rows, cache=cache), hidden[:, -1], stops, choice)
        return step + 1, placed(rows, mesh, spread=True)

    return jax.lax.while_loop(speaking, read_and_say, (jnp.int32(0), rows))[1]


def placed(tree: Rows | KVCache, mesh: Mesh | None, *, spread: bool) -> Rows | KVCache:
    """Heads, and rows if asked for, are spread; what the host looks at is on all."""
    if mesh is None:
        return tree

    def sharding(array: jax.Array) -> NamedSharding:
        if array.ndim == 4:  # Keys and values.
            return cache_sharding(mesh, array.shape, rows=spread)
        return replicated(mesh)

    return jax.lax.with_sharding_constraint(tree, jax.tree.map(sharding, tree))

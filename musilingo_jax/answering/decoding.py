"""From prompts to tokens: the compiled programs, one row for each answer.

    read_prefixes   reads what questions about one clip begin with, once for all of them
    admit           reads the rest of some prompts into free rows, and chooses the first
                    token of each
    decode          chooses token after token in all rows, until enough have finished

Each is compiled once for a shape; `continuous_batching.py` calls them in turn. Rows are
independent: what a row generates does not depend on its neighbours, on their number, or
on how far its prompt was padded. The state between two tokens is donated, so that there
is never a second copy of a cache.
"""

import functools
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from musilingo_jax.answering.padded_prompts import PaddedPrompts
from musilingo_jax.answering.prompt_reader import PromptReader, empty_cache
from musilingo_jax.answering.sampling import NO_TOKEN, Choice, Generated
from musilingo_jax.answering.stop_texts import Stops
from musilingo_jax.models.kv_cache import KVCache

# The tokens of one answer, including those that end it.
AnswerTokens = list[int]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TokenRule:
    """Which token comes next, and which one is the last.

    Attributes:
      choice: how the next token is chosen.
      stops: what ends an answer.
    """

    choice: Choice
    stops: Stops


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rows:
    """The state of all rows between two tokens: the carry of the loop.

    A row generates an answer until it is finished; then the host fetches the answer,
    and the row is free for another prompt. With a limit of 4, in the middle of the
    answer "It is jazz ###" and at its end:

        tokens   It is  .    .      count  2    cache   <prompt> It
        tokens   It is jazz ###     count  4    cache   <prompt> It is jazz
    """

    cache: KVCache  # each row's prompt, then its tokens except the last
    tokens: jax.Array  # int32[rows, max_new_tokens]; NO_TOKEN after the last
    count: jax.Array  # int32[rows]: tokens generated
    stop_state: jax.Array  # int32[rows]: state of `Stops`; the last one = finished
    seeds: jax.Array  # uint32[rows]: what a row's draws are derived from
    limits: jax.Array  # int32[rows]: tokens of a row's answer at most

    @classmethod
    def empty(
        cls,
        cache: KVCache,
        seeds: UInt32[Array, " rows"],
        *,
        max_new_tokens: int,
        stop_state: int | Int[Array, " rows"],
        limits: Int[Array, " rows"] | None = None,
    ) -> "Rows":
        """Rows without any token.

        Args:
          cache: their prompts.
          seeds: see above.
          max_new_tokens: the largest limit.
          stop_state: the state of the stops that they are in.
          limits: see above; None for the largest.
        """
        rows = cache.ends.shape[0]
        return cls(
            cache=cache,
            tokens=jnp.full((rows, max_new_tokens), NO_TOKEN, jnp.int32),
            count=jnp.zeros(rows, jnp.int32),
            stop_state=jnp.full(rows, stop_state, jnp.int32),
            seeds=seeds,
            limits=jnp.full(
                rows, max_new_tokens if limits is None else limits, jnp.int32
            ),
        )

    @property
    def last_token(self) -> Int[Array, " rows"]:
        """The token of each row that its cache does not hold yet."""
        place = jnp.maximum(self.count - 1, 0)[:, None]
        return jnp.take_along_axis(self.tokens, place, axis=1)[:, 0]

    def put(self, places: Int[Array, " others"], others: "Rows") -> "Rows":
        """Replaces the rows at `places`; a place beyond the last row is ignored."""

        def into(ours: jax.Array, theirs: jax.Array) -> jax.Array:
            return ours.at[places].set(theirs, mode="drop")

        return Rows(
            cache=self.cache.put(places, others.cache),
            tokens=into(self.tokens, others.tokens),
            count=into(self.count, others.count),
            stop_state=into(self.stop_state, others.stop_state),
            seeds=into(self.seeds, others.seeds),
            limits=into(self.limits, others.limits),
        )

    def append(
        self,
        token: Int[Array, " rows"],
        next_state: Int[Array, " rows"],
        finished: int,
    ) -> "Rows":
        """Adds a token to every row that has not finished.

        A row that is full finishes, whatever its last token is.

        Args:
          token: one for each row.
          next_state: the state of the stops after it.
          finished: the state of the stops in which a row is finished.
        """
        most = self.tokens.shape[1]
        active = self.stop_state != finished
        # Beyond the last place nothing is written.
        place = jnp.where(active, self.count, most)
        count = self.count + active
        return replace(
            self,
            tokens=self.tokens.at[jnp.arange(len(token)), place].set(
                token, mode="drop"
            ),
            count=count,
            stop_state=jnp.where(count == self.limits, finished, next_state),
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Held:
    """What prompts begin with that rows have read before, free or not."""

    rows: jax.Array  # int32[wave]: the row that holds the beginning
    lengths: jax.Array  # int32[wave]: tokens of it; 0 = the prefix is in the bank


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Admission:
    """Prompts that get rows: what is new of them, padded to a whole wave."""

    prompts: PaddedPrompts  # none is empty but those that only fill the batch
    prefixes: jax.Array  # int32[wave]: row of the bank that holds the prefix
    held: Held | None  # None where no prompt goes on with what a row holds
    places: jax.Array  # int32[wave]: row that the prompt gets; beyond the last: none
    seeds: jax.Array  # uint32[wave]
    limits: jax.Array  # int32[wave]
    stop_states: jax.Array  # int32[wave]: in which the stops begin


@functools.partial(jax.jit, donate_argnames="bank")
def read_prefixes(
    reader: PromptReader,
    bank: KVCache,
    prefixes: PaddedPrompts,
    places: Int[Array, " batch"],
) -> KVCache:
    """Reads what prompts begin with into the bank, to be copied any number of times.

    Args:
      reader: the model.
      bank: prefixes that were read before.
      prefixes: new ones.
      places: the rows of the bank that they go to; beyond its last row: nowhere.

    Returns:
      The bank.
    """
    batch = prefixes.tokens.shape[0]
    empty = empty_cache(reader, rows=batch, slots=bank.slots, spread=True)
    _, cache = reader.read(prefixes, empty)
    return reader.place(bank.put(places, cache), spread=False)


@functools.partial(jax.jit, donate_argnames="rows")
def admit(
    reader: PromptReader,
    rule: TokenRule,
    rows: Rows,
    bank: KVCache,
    admission: Admission,
) -> Rows:
    """Reads new prompts and chooses the first token of each answer.

    Args:
      reader: the model.
      rule: how tokens are chosen.
      rows: all rows, those that the new prompts get among them.
      bank: the prefixes of the new prompts.
      admission: the new prompts.

    Returns:
      All rows.
    """
    rest = admission.prompts
    # No text is longer than a row: what exceeds that is padding, which is dropped.
    room = rows.cache.slots - bank.slots
    if admission.held is None:
        room = min(rest.tokens.shape[1], room)
    cache = bank.take(admission.prefixes).widen(room)
    if (held := admission.held) is not None:
        begun = rows.cache.take(held.rows).cut(held.lengths)
        cache = begun.where(held.lengths > 0, cache)
    hidden, cache = reader.read(rest, reader.place(cache, spread=True))
    new = Rows.empty(
        cache,
        admission.seeds,
        max_new_tokens=rows.tokens.shape[1],
        stop_state=admission.stop_states,
        limits=admission.limits,
    )
    new = _next_token(reader, rule, new, hidden)
    return reader.place(rows.put(admission.places, new), spread=True)


@functools.partial(jax.jit, donate_argnames="rows")
def decode(
    reader: PromptReader,
    rule: TokenRule,
    rows: Rows,
    enough: Int[Array, ""],
    steps: Int[Array, ""],
) -> Rows:
    """Generates token after token, all rows at once.

    Args:
      reader: the model.
      rule: how tokens are chosen.
      rows: all rows.
      enough: returns as soon as this many rows are finished, …
      steps: … or have this many tokens more.
    """
    finished = rule.stops.finished

    def unfinished(carry: tuple[jax.Array, Rows]) -> Bool[Array, ""]:
        step, rows = carry
        return (step < steps) & (jnp.sum(rows.stop_state == finished) < enough)

    def generate(carry: tuple[jax.Array, Rows]) -> tuple[jax.Array, Rows]:
        step, rows = carry
        active = rows.stop_state != finished
        hidden, cache = reader.read_token(rows.last_token, rows.cache)
        # The end of a finished row stays: what was written behind it is not text.
        cache = replace(cache, ends=rows.cache.ends + active)
        rows = _next_token(reader, rule, replace(rows, cache=cache), hidden)
        return step + 1, reader.place(rows, spread=True)

    return jax.lax.while_loop(unfinished, generate, (jnp.int32(0), rows))[1]


def _next_token(
    reader: PromptReader, rule: TokenRule, rows: Rows, hidden: Float[Array, "rows w"]
) -> Rows:
    """Chooses a token for every row that has not finished."""
    stops = rule.stops
    generated = Generated(rows.tokens, rows.count, stops.finishing(rows.stop_state))
    token = rule.choice(reader.llama.logits(hidden), generated, rows.seeds)
    return rows.append(token, stops.follow(rows.stop_state, token), stops.finished)

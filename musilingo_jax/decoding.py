"""From prompts to new tokens: one compiled program reads the prompts and then speaks.

Everything here runs under one `jax.jit`: the prompts are read at once (prefill), then a
`lax.while_loop` says one token per turn for all rows until every row has stopped. Rows
never see each other: what a row says does not depend on its neighbours, on how many
they are, or on how far it was padded.
"""

import functools
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from musilingo_jax.models.adapter import Adapter
from musilingo_jax.models.llama import KVCache, Llama
from musilingo_jax.models.musilingo import splice

# Stands in `DecodingState.tokens` where a row has said nothing.
SILENCE = -1


@dataclass(frozen=True)
class Greedy:
    """Says the likeliest token."""

    def choose(
        self, logits: Float[Array, "batch vocab"], keys: Key[Array, " batch"]
    ) -> Int[Array, " batch"]:
        del keys
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)


@dataclass(frozen=True)
class Nucleus:
    """Draws among the likeliest tokens (Holtzman et al. 2020, "top-p").

    Attributes:
      temperature: logits are divided by it first; above 0.
      top_p: the fewest tokens whose probability reaches `top_p` are kept; in (0, 1].
    """

    temperature: float
    top_p: float

    def choose(
        self, logits: Float[Array, "batch vocab"], keys: Key[Array, " batch"]
    ) -> Int[Array, " batch"]:
        order = jnp.argsort(logits, axis=-1, descending=True)
        ranked = jnp.take_along_axis(logits, order, axis=-1) / self.temperature
        probability = jax.nn.softmax(ranked, axis=-1)
        # A token is kept if those before it have not reached top_p: the first always.
        before = jnp.cumsum(probability, axis=-1) - probability
        ranked = jnp.where(before < self.top_p, ranked, -jnp.inf)
        rank = jax.vmap(jax.random.categorical)(keys, ranked)
        token = jnp.take_along_axis(order, rank[:, None], axis=-1)[:, 0]
        return token.astype(jnp.int32)


Sampling = Greedy | Nucleus


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Prompts:
    """A batch of prompts, padded on the left so that all end in the same slot.

    Two prompts of 5 and 3 tokens and a row that only fills the batch (♪: audio):

        tokens        a  ♪  ♪  b  c        lengths   5
                      .  .  d  ♪  e                  3
                      .  .  .  .  .                  0
    """

    features: jax.Array  # float32[batch, windows, width]; pooled audio
    tokens: jax.Array  # int32[batch, time]
    audio_slot: jax.Array  # int32[batch, time]; audio vector here, -1 = text token
    lengths: jax.Array  # int32[batch]; 0 = not a prompt, says nothing
    seeds: jax.Array  # uint32[batch]; what the row's draws come from


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DecodingState:
    """The carry of the loop, between two tokens."""

    step: jax.Array  # int32[]; tokens said so far, by the rows still speaking
    tokens: jax.Array  # int32[batch, max_new_tokens]; SILENCE where nothing was said
    spelled: jax.Array  # int32[batch]; state of the stop table; its last one = finished
    last: jax.Array  # int32[batch]; the token said last, to be read next
    cache: KVCache  # the prompts, then what was said before `last`


@functools.partial(jax.jit, static_argnames=("sampling", "max_new_tokens"))
def decode(
    adapter: Adapter,
    llama: Llama,
    prompts: Prompts,
    stops: Int[Array, "states vocab"],
    *,
    sampling: Sampling,
    max_new_tokens: int,
) -> Int[Array, "batch max_new_tokens"]:
    """Says up to `max_new_tokens` tokens after each prompt.

    Args:
      adapter: pooled audio → word embeddings.
      llama: the language model.
      prompts: left-padded.
      stops: `stops[state, token]` is the next state of a row that says `token`; the
        last state means finished and leads only to itself (see `stops.stop_table`).
      sampling: how a token is chosen.
      max_new_tokens: where to stop at the latest.

    Returns:
      What each row said, the token that finished it included, then `SILENCE`.
    """
    batch, time = prompts.tokens.shape
    slots = time + max_new_tokens - 1  # The last token said is never read.
    finished = stops.shape[0] - 1
    keys = jax.vmap(jax.random.key)(prompts.seeds)
    # Padding is never looked at: [batch, slots], true from the first real slot on.
    slot = jnp.arange(slots, dtype=jnp.int32)
    padding = time - prompts.lengths
    real = slot >= padding[:, None]

    def say(state: DecodingState, logits: Float[Array, "batch vocab"]) -> DecodingState:
        turn = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, state.step)
        token = sampling.choose(logits, turn)
        said = jnp.where(state.spelled == finished, SILENCE, token)
        return replace(
            state,
            step=state.step + 1,
            tokens=state.tokens.at[:, state.step].set(said),
            spelled=stops[state.spelled, token],
            last=token,
        )

    def speaking(state: DecodingState) -> jax.Array:
        return (state.step < max_new_tokens) & jnp.any(state.spelled != finished)

    def read_and_say(state: DecodingState) -> DecodingState:
        hidden, cache = llama(
            llama.embed(state.last[:, None]),
            positions=(prompts.lengths + state.step - 1)[:, None],
            attend=(real & (slot <= state.cache.end))[:, None, :],
            cache=state.cache,
            remat=False,
        )
        return say(replace(state, cache=cache), llama.logits(hidden[:, -1]))

    embeddings = splice(
        llama.embed(prompts.tokens), adapter(prompts.features), prompts.audio_slot
    )
    # attend[b, t, s], for one row padded by 1 (x: may look):   s  0 1 2 3 …
    #                                                        t = 1  . x . .
    #                                                        t = 2  . x x .
    hidden, cache = llama(
        embeddings,
        positions=jnp.maximum(slot[:time] - padding[:, None], 0),
        attend=real[:, None, :] & (slot <= slot[:time, None]),
        cache=KVCache.create(
            llama.config, batch=batch, slots=slots, dtype=llama.embedding.dtype
        ),
        remat=False,
    )
    state = DecodingState(
        step=jnp.int32(0),
        tokens=jnp.full((batch, max_new_tokens), SILENCE, jnp.int32),
        spelled=jnp.where(prompts.lengths > 0, 0, finished).astype(jnp.int32),
        last=jnp.zeros(batch, jnp.int32),
        cache=cache,
    )
    state = say(state, llama.logits(hidden[:, -1]))
    return jax.lax.while_loop(speaking, read_and_say, state).tokens

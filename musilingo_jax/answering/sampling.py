"""How the next token is chosen from the scores of all tokens.

In the order of the `transformers` library, whose names these have:

    scores → repetition penalty → minimum length ─┬─ greedy: the likeliest
                                                  └─ temperature → top-k → top-p → min-p
                                                     → a draw from what is left

The first two apply to every search, beam search included; each of the last sees what
the ones before it have left. A forbidden token has the score −∞. Every row draws from
its own key, so that its tokens do not depend on its neighbours.

All of these are pytrees whose numbers are leaves: a number for all rows, or an array
[rows, 1] with one for each, as in `row_settings.py`. So no program is compiled anew for
another temperature, and a row chooses as it would if all rows had its numbers.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Shaped, UInt32

# Fills the places of an array of tokens where none has been generated.
NO_TOKEN = -1

Scores = Float[Array, "batch vocab"]
# One for all rows, or for each row its own.
Number = float | Shaped[Array, ""] | Shaped[Array, "batch 1"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Generated:
    """What the next token of each row depends on, besides the scores."""

    tokens: jax.Array  # int32[batch, max_new_tokens]; NO_TOKEN after the last
    count: jax.Array  # int32[batch]: how many there are
    finishing: jax.Array  # bool[batch, vocab]: whether this token would end the answer


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RepetitionPenalty:
    """Makes tokens of the answer so far less likely (Keskar et al. 2019, "CTRL").

    Attributes:
      penalty: positive scores are divided, negative ones multiplied by it; above 0,
        and above 1 to avoid repetition. Tokens of the prompt are not penalised: half of
        them are the same in all prompts, and `transformers`, which is given vectors,
        cannot see them.
    """

    penalty: Number

    def __call__(self, scores: Scores, generated: Generated) -> Scores:
        """The scores with the penalty."""
        rows = jnp.arange(scores.shape[0])[:, None]
        # The index −1 would be the last token; one beyond all of them is dropped.
        tokens = generated.tokens
        tokens = jnp.where(tokens == NO_TOKEN, scores.shape[1], tokens)
        seen = jnp.zeros(scores.shape, bool).at[rows, tokens].set(True, mode="drop")
        lowered = jnp.where(scores < 0, scores * self.penalty, scores / self.penalty)
        return jnp.where(seen, lowered, scores)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MinimumLength:
    """Forbids tokens that would end an answer too early, by themselves or as a text.

    Attributes:
      least: tokens that come before the end.
    """

    least: Number

    def __call__(self, scores: Scores, generated: Generated) -> Scores:
        """The scores, −∞ for tokens that would end an answer too early."""
        early = generated.finishing & (generated.count[:, None] < self.least)
        return jnp.where(early, -jnp.inf, scores)


Processor = RepetitionPenalty | MinimumLength


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Greedy:
    """Takes the likeliest token; of equally likely ones, the first."""

    def choose(
        self, scores: Scores, keys: Key[Array, " batch"]
    ) -> Int[Array, " batch"]:
        """The next token of each row; the keys are not used."""
        del keys
        return jnp.argmax(scores, axis=-1).astype(jnp.int32)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sample:
    """Draws among the likelier tokens.

    Of four tokens with the probabilities

        0.5  0.3  0.15  0.05      top_k = 2      0.625  0.375  .  .
                                  top_p = 0.7    0.625  0.375  .  .    0.5 < 0.7 ≤ 0.8
                                  min_p = 0.2    0.526  0.316  0.158  .    ≥ 0.2 · 0.5

    Attributes:
      temperature: scores are divided by it; a row with 0 takes the likeliest token, as
        `Greedy` does.
      top_k: this many of the likeliest tokens are kept; 0 keeps all.
      top_p: the fewest of the likeliest tokens are kept whose probabilities add up to
        it (Holtzman et al. 2020, "nucleus sampling"); 1 keeps all.
      min_p: tokens are kept whose probability is at least this part of the likeliest
        one's (Nguyen et al. 2024); 0 keeps all.

    Tokens exactly as likely as the last one that is kept are kept as well, since
    nothing distinguishes them.
    """

    temperature: Number
    top_k: Number
    top_p: Number
    min_p: Number

    def choose(
        self, scores: Scores, keys: Key[Array, " batch"]
    ) -> Int[Array, " batch"]:
        """The next token of each row, drawn with the row's key."""
        drawn = jax.vmap(jax.random.categorical)(keys, self.keep(scores))
        draws = jnp.broadcast_to(self.temperature > 0, (len(scores), 1))[:, 0]
        return jnp.where(draws, drawn, jnp.argmax(scores, axis=-1)).astype(jnp.int32)

    def keep(
        self, scores: Float[Array, "*batch vocab"]
    ) -> Float[Array, "*batch vocab"]:
        """The scores to draw from: at this temperature, and −∞ for what is not kept."""
        scores = scores / jnp.where(self.temperature > 0, self.temperature, 1.0)
        # Sorting a vocabulary takes a while; without need, it is left out.
        by_rank = jnp.any(self._has_top_k(scores)) | jnp.any(self.top_p < 1)
        scores = jax.lax.cond(by_rank, self._keep_by_rank, lambda same: same, scores)
        likeliest = jnp.max(scores, axis=-1, keepdims=True)
        return jnp.where(scores < likeliest + jnp.log(self.min_p), -jnp.inf, scores)

    def _has_top_k(self, scores: Float[Array, "*batch vocab"]) -> Bool[Array, "..."]:
        return (jnp.asarray(self.top_k) > 0) & (self.top_k < scores.shape[-1])

    def _keep_by_rank(
        self, scores: Float[Array, "*batch vocab"]
    ) -> Float[Array, "*batch vocab"]:
        """Keeps what `top_k` and then `top_p` keep."""
        ranked = jnp.sort(scores, axis=-1, descending=True)
        has_top_k = self._has_top_k(scores)
        last = jnp.where(has_top_k, self.top_k, scores.shape[-1]) - 1
        kept = ranked >= _at(ranked, last)
        ranked = jnp.where(kept, ranked, -jnp.inf)
        probability = jax.nn.softmax(ranked, axis=-1)
        # A token is kept if those before it do not reach top_p: the first one always.
        before = jnp.cumsum(probability, axis=-1) - probability
        # The sum of all may be rounded to a little more than 1.
        kept &= (before < self.top_p) | (jnp.asarray(self.top_p) >= 1)
        least = _at(ranked, jnp.sum(kept, axis=-1, keepdims=True) - 1)
        return jnp.where(scores < least, -jnp.inf, scores)


def _at(
    ranked: Float[Array, "*batch vocab"], place: Int[Array, "..."]
) -> Float[Array, "*batch 1"]:
    """The score at a place of each row."""
    places = jnp.broadcast_to(place, (*ranked.shape[:-1], 1))
    return jnp.take_along_axis(ranked, places, axis=-1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Choice:
    """The whole rule: some processors, then a method.

    Attributes:
      processors: change the scores, in this order.
      method: chooses from the changed scores.
    """

    processors: tuple[Processor, ...]
    method: Greedy | Sample

    def process(self, scores: Scores, generated: Generated) -> Scores:
        """The scores that the method, or a beam search, goes by."""
        for processor in self.processors:
            scores = processor(scores, generated)
        return scores

    def __call__(
        self, scores: Scores, generated: Generated, seeds: UInt32[Array, " batch"]
    ) -> Int[Array, " batch"]:
        """The next token of each row.

        Args:
          scores: of all tokens, before the softmax.
          generated: the rows' answers so far.
          seeds: each row's; its key is derived from its seed and from the number of
            tokens that it has.
        """
        keys = jax.vmap(jax.random.key)(seeds)
        keys = jax.vmap(jax.random.fold_in)(keys, generated.count)
        return self.method.choose(self.process(scores, generated), keys)

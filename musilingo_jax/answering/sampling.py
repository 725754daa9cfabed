"""How the next token is chosen from the scores of all tokens.

In the order of the `transformers` library, whose names these have too:

    scores → repetition penalty → minimum length ─┬─ greedy: the likeliest
                                                  └─ temperature → top-k → top-p → min-p
                                                     → a draw from what is left

The first two are for any search, beams included; each of the last sees what the ones
before it have left. A token that is not to be said has the score −∞. Every row draws
from its own key, so that what it says depends on no neighbour.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

# Stands where a row has said nothing.
SILENCE = -1

Scores = Float[Array, "batch vocab"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Said:
    """What the rows have said so far, as far as the next token depends on it."""

    tokens: jax.Array  # int32[batch, max_new_tokens]; SILENCE behind the last
    count: jax.Array  # int32[batch]: how many
    finishing: jax.Array  # bool[batch, vocab]: whether this token would end the answer


@dataclass(frozen=True)
class RepetitionPenalty:
    """Makes tokens that were said less likely (Keskar et al. 2019, "CTRL").

    Attributes:
      penalty: positive scores are divided, negative ones multiplied by it; above 0,
        and above 1 to avoid repetition. The prompt does not count: half of it is the
        same for all questions, and the other library, given vectors, cannot see it.
    """

    penalty: float

    def __call__(self, scores: Scores, said: Said) -> Scores:
        rows = jnp.arange(scores.shape[0])[:, None]
        # An index of −1 would mean the last token; one beyond all is left out.
        tokens = jnp.where(said.tokens == SILENCE, scores.shape[1], said.tokens)
        seen = jnp.zeros(scores.shape, bool).at[rows, tokens].set(True, mode="drop")
        lowered = jnp.where(scores < 0, scores * self.penalty, scores / self.penalty)
        return jnp.where(seen, lowered, scores)


@dataclass(frozen=True)
class MinimumLength:
    """Forbids what would end an answer too early: end tokens, and the stop texts.

    Attributes:
      least: tokens that come before the end.
    """

    least: int

    def __call__(self, scores: Scores, said: Said) -> Scores:
        early = said.finishing & (said.count < self.least)[:, None]
        return jnp.where(early, -jnp.inf, scores)


Processor = RepetitionPenalty | MinimumLength


@dataclass(frozen=True)
class Greedy:
    """Says the likeliest token; of equal ones, the first."""

    def choose(
        self, scores: Scores, keys: Key[Array, " batch"]
    ) -> Int[Array, " batch"]:
        del keys
        return jnp.argmax(scores, axis=-1).astype(jnp.int32)


@dataclass(frozen=True)
class Sample:
    """Draws among the likelier tokens.

    Of four tokens with the probabilities

        0.5  0.3  0.15  0.05      top_k = 2      0.625  0.375  .  .
                                  top_p = 0.7    0.625  0.375  .  .    0.5 < 0.7 ≤ 0.8
                                  min_p = 0.2    0.526  0.316  0.158  .    ≥ 0.2 · 0.5

    Attributes:
      temperature: scores are divided by it; above 0.
      top_k: so many of the likeliest are kept; 0 for all.
      top_p: the fewest of the likeliest are kept whose probability reaches it
        (Holtzman et al. 2020, "nucleus sampling"); 1 for all.
      min_p: those are kept that are at least so likely, as a part of the likeliest
        (Nguyen et al. 2024); 0 for all.

    Tokens as likely as the last one that is kept are kept, too: nothing tells them
    apart.
    """

    temperature: float
    top_k: int
    top_p: float
    min_p: float

    def choose(
        self, scores: Scores, keys: Key[Array, " batch"]
    ) -> Int[Array, " batch"]:
        drawn = jax.vmap(jax.random.categorical)(keys, self.keep(scores))
        return drawn.astype(jnp.int32)

    def keep(self, scores: Scores) -> Scores:
        """What is drawn from: the scores at this temperature, −∞ where not kept."""
        scores = scores / self.temperature
        if 0 < self.top_k < scores.shape[-1]:
            least = jax.lax.top_k(scores, self.top_k)[0][..., -1:]
            scores = jnp.where(scores < least, -jnp.inf, scores)
        if self.top_p < 1:
            scores = jnp.where(self._beyond_top_p(scores), -jnp.inf, scores)
        if self.min_p > 0:
            likeliest = jnp.max(scores, axis=-1, keepdims=True)
            scores = jnp.where(
                scores < likeliest + jnp.log(self.min_p), -jnp.inf, scores
            )
        return scores

    def _beyond_top_p(self, scores: Scores) -> Bool[Array, "batch vocab"]:
        ranked = jnp.sort(scores, axis=-1, descending=True)
        probability = jax.nn.softmax(ranked, axis=-1)
        # Kept are those before which top_p is not reached: the first always.
        kept = jnp.cumsum(probability, axis=-1) - probability < self.top_p
        last = jnp.sum(kept, axis=-1, keepdims=True) - 1
        return scores < jnp.take_along_axis(ranked, last, axis=-1)


@dataclass(frozen=True)
class Choice:
    """All of the above, as one rule."""

    processors: tuple[Processor, ...]
    method: Greedy | Sample

    def process(self, scores: Scores, said: Said) -> Scores:
        """The scores that the method, or a beam search, goes by."""
        for processor in self.processors:
            scores = processor(scores, said)
        return scores

    def __call__(
        self, scores: Scores, said: Said, seeds: Int[Array, " batch"]
    ) -> Int[Array, " batch"]:
        """The next token of each row.

        Args:
          scores: of all tokens, before the softmax.
          said: what came before.
          seeds: of each row's draws, together with how much it has said.
        """
        keys = jax.vmap(jax.random.fold_in)(jax.vmap(jax.random.key)(seeds), said.count)
        return self.method.choose(self.process(scores, said), keys)

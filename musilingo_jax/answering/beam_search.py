"""Beam search: the likeliest whole answer among those that a few texts lead to.

Equal to that of the `transformers` library with `early_stopping=False`. Several texts,
the beams, are followed at a time. In each step every beam could continue with every
token, and the best of all these continuations are the beams of the next step. With two:

    beams            continuations (log-probabilities so far)      next beams
    It is   −0.9     It is jazz −1.1   It is slow −2.9   …         It is jazz  −1.1
    A slow  −1.4     A slow ### −1.6   A slow song −1.9  …         A slow song −1.9
                              ↓
                     an answer of 3 tokens: −1.6 / 3^length_penalty

A continuation that ends is kept apart, as an answer, if it is among the best. Answers
of different lengths are compared by their log-probability over their length to the
power of `length_penalty` (Wu et al. 2016, without their constants): above 0, it favours
long ones. A row is done when its best beam, were it to end now, would beat none of its
answers; or when no continuation of it can beat the best of them, since a continuation
is never likelier than what it continues.

Two variations are those of MusiLingo's demo, whose library was `transformers` 4.28:

Beam sampling.  The continuations compete by chance: twice as many as there are beams
    are drawn, and the best of these are taken. A draw without repetition of n
    continuations, by their probabilities, is the n largest of score + noise, where the
    noise has a Gumbel distribution (Vieira 2014, "Gumbel-max trick and weighted
    reservoir sampling"). Temperature, top-k and top-p change the scores of whole texts,
    not those of next tokens. So a temperature of 0.5 counts a text's first token
    0.5 ** n times after n more tokens.
The first beam's end.  A stop text ends no beam by itself. When the best beam has just
    written one, the search ends, and the best of all beams and answers, as they are, is
    the answer. Only an end token still makes an answer of a beam.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt32

from musilingo_jax.answering.decoding import AnswerTokens, TokenRule
from musilingo_jax.answering.padded_prompts import (
    LENGTH_MULTIPLE,
    PaddedPrompts,
    pad,
    round_up,
    windows_for,
)
from musilingo_jax.answering.prompt_queue import QueuedPrompt
from musilingo_jax.answering.prompt_reader import PromptReader, empty_cache
from musilingo_jax.answering.sampling import NO_TOKEN, Generated, Sample
from musilingo_jax.answering.stop_texts import Stops
from musilingo_jax.models.kv_cache import KVCache
from musilingo_jax.runtime.signals import check_signals

# The score of a beam or an answer that does not exist; `transformers` has the same.
NO_SCORE = -1e9


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Beams:
    """The carry of the loop: in each row `beams` texts, and as many answers.

    Both are sorted, the best one first.
    """

    step: jax.Array  # int32[]: tokens that each text has
    cache: KVCache  # rows · beams texts, each without its last token
    tokens: jax.Array  # int32[rows, beams, max_new_tokens]; NO_TOKEN after the last
    score: jax.Array  # float32[rows, beams]: log-probability
    stop_state: jax.Array  # int32[rows, beams]: state of `Stops`
    text_state: (
        jax.Array
    )  # int32[rows, beams]: the same, of what ends at the first beam
    answers: jax.Array  # int32[rows, beams, max_new_tokens]
    answer_score: jax.Array  # float32[rows, beams]; NO_SCORE where there is no answer
    open: jax.Array  # bool[rows]: whether a better answer may still be found


@functools.partial(jax.jit, static_argnames=("max_new_tokens", "beams"))
def search(
    reader: PromptReader,
    rule: TokenRule,
    prompts: PaddedPrompts,
    seeds: UInt32[Array, " rows"],
    length_penalty: Float[Array, ""],
    first_beam: Stops | None,
    *,
    max_new_tokens: int,
    beams: int,
) -> Int[Array, "rows max_new_tokens"]:
    """The best answer to each prompt that a beam search finds.

    Args:
      reader: the model.
      rule: its processors are applied to log-probabilities. If its method is `Sample`,
        continuations are drawn.
      prompts: one for each row.
      seeds: what the draws of each row are derived from.
      length_penalty: see above.
      first_beam: what ends a row's search when its best beam has written it, if not
        None; `rule.stops` then contains end tokens only.
      max_new_tokens: tokens of an answer at most.
      beams: texts that are followed in each row.

    Returns:
      The answers' tokens, including those that end them, then `NO_TOKEN`.
    """
    stops, most, method = rule.stops, max_new_tokens, rule.choice.method
    rows, time = prompts.tokens.shape
    row = jnp.arange(rows)[:, None]
    cache = empty_cache(reader, rows=rows, slots=time, spread=True)
    hidden, cache = reader.read(prompts, cache)
    row_of_text = jnp.repeat(jnp.arange(rows), beams)
    if isinstance(method, Sample):
        # Their first tokens are drawn, so the beams may differ from the start.
        dead, score = -jnp.inf, jnp.zeros(beams)
    else:
        # All beams are still the same text, so only one of them counts.
        dead, score = NO_SCORE, jnp.where(jnp.arange(beams) == 0, 0.0, NO_SCORE)
    start = Beams(
        step=jnp.int32(0),
        cache=reader.place(cache.take(row_of_text).widen(most - 1), spread=True),
        tokens=jnp.full((rows, beams, most), NO_TOKEN, jnp.int32),
        score=jnp.tile(score, (rows, 1)),
        stop_state=jnp.zeros((rows, beams), jnp.int32),
        text_state=jnp.zeros((rows, beams), jnp.int32),
        answers=jnp.full((rows, beams, most), NO_TOKEN, jnp.int32),
        answer_score=jnp.full((rows, beams), NO_SCORE),
        open=prompts.lengths > 0,
    )

    def extend(state: Beams, hidden: Float[Array, "texts width"]) -> Beams:
        """Follows the best continuations, and keeps those that are answers."""
        scores = jax.nn.log_softmax(reader.llama.logits(hidden), axis=-1)
        finishing = stops.finishing(state.stop_state.reshape(-1))
        count = jnp.broadcast_to(state.step, len(scores))
        generated = Generated(state.tokens.reshape(-1, most), count, finishing)
        scores = rule.choice.process(scores, generated).reshape(rows, beams, -1)
        scores = scores + state.score[..., None]
        if isinstance(method, Sample):
            scores = _drawn(method, scores, seeds, state.step)
        length = state.step + 1
        ends = finishing.reshape(rows, beams, -1) | (length == most)
        answers, answer_score = _keep(state, scores, ends, length_penalty)
        score, parent, token = _best(jnp.where(ends, dead, scores))
        tokens = _of(state.tokens, parent).at[..., state.step].set(token)
        stop_state = stops.follow(_of(state.stop_state, parent).ravel(), token.ravel())
        text_state = _of(state.text_state, parent)
        open_ = state.open & (
            score[:, 0] / length**length_penalty > jnp.min(answer_score, axis=1)
        )
        if first_beam is not None:
            # A beam that wrote a stop text earlier begins anew.
            text_state = jnp.where(text_state == first_beam.finished, 0, text_state)
            text_state = first_beam.follow(text_state.ravel(), token.ravel())
            text_state = text_state.reshape(rows, beams)
            ended = open_ & (text_state[:, 0] == first_beam.finished)
            # `transformers` counts the start token in texts that did not end.
            final = jnp.where(
                ended[:, None], score / (length + 1) ** length_penalty, NO_SCORE
            )
            answers, answer_score = _merged(answers, answer_score, tokens, final)
            open_ &= ~ended
        elif not isinstance(method, Sample):
            # Longer texts are not likelier, but a penalty above 0 makes them better.
            longest = jnp.where(length_penalty > 0, most, length)
            attainable = score[:, 0] / longest**length_penalty
            open_ &= attainable > answer_score[:, 0]
        return Beams(
            step=length,
            cache=reader.place(
                state.cache.take((parent + row * beams).ravel()), spread=True
            ),
            tokens=tokens,
            score=score,
            stop_state=stop_state.reshape(rows, beams),
            text_state=text_state,
            answers=answers,
            answer_score=answer_score,
            open=open_,
        )

    def unfinished(state: Beams) -> Bool[Array, ""]:
        return (state.step < most) & jnp.any(state.open)

    def read_and_extend(state: Beams) -> Beams:
        last = jax.lax.dynamic_index_in_dim(state.tokens, state.step - 1, 2)
        hidden, cache = reader.read_token(last.reshape(-1), state.cache)
        return extend(replace(state, cache=cache), hidden)

    state = extend(start, hidden[row_of_text])
    return jax.lax.while_loop(unfinished, read_and_extend, state).answers[:, 0]


def search_each(
    reader: PromptReader,
    rule: TokenRule,
    prompts: Sequence[QueuedPrompt],
    *,
    texts: int,
    max_new_tokens: int,
    beams: int,
    length_penalty: float,
    first_beam: Stops | None,
) -> Iterator[tuple[int, AnswerTokens]]:
    """Yields each prompt's index and the tokens of its best answer, batch by batch.

    Args:
      reader: the model.
      rule: as in `search`.
      prompts: at least one; those of similar length are read together.
      texts: texts that are followed at the same time, `beams` for each prompt.
      max_new_tokens: tokens of an answer at most.
      beams: texts that are followed for each prompt.
      length_penalty: as in `search`.
      first_beam: as in `search`.
    """
    rows = round_up(min(max(1, texts // beams), len(prompts)), reader.row_shares)
    windows = windows_for([prompt.prompt for prompt in prompts])
    ordered = sorted(prompts, key=lambda prompt: len(prompt.prompt.tokens))
    for start in range(0, len(ordered), rows):
        check_signals()
        batch = ordered[start : start + rows]
        padded = pad(
            [prompt.prompt for prompt in batch],
            rows=rows,
            multiple=LENGTH_MULTIPLE,
            windows=windows,
            mesh=reader.mesh,
        )
        seeds = np.zeros(rows, np.uint32)
        seeds[: len(batch)] = [prompt.seed for prompt in batch]
        answers = search(
            reader,
            rule,
            padded,
            seeds,
            np.float32(length_penalty),
            first_beam,
            max_new_tokens=max_new_tokens,
            beams=beams,
        )
        for prompt, tokens in zip(batch, np.asarray(answers), strict=False):
            yield prompt.index, tokens[tokens != NO_TOKEN].tolist()


def _keep(
    state: Beams,
    scores: Float[Array, "rows beams vocab"],
    ends: Bool[Array, "rows beams vocab"],
    length_penalty: Float[Array, ""],
) -> tuple[Int[Array, "rows beams most"], Float[Array, "rows beams"]]:
    """The best answers so far and their scores, after one more step.

    A continuation that ends becomes an answer only if it is among the best of all
    continuations: it must have been worth following.
    """
    rows = state.answers.shape[0]
    score, parent, token = _best(scores)
    ending = ends[jnp.arange(rows)[:, None], parent, token] & state.open[:, None]
    score = jnp.where(ending, score / (state.step + 1) ** length_penalty, NO_SCORE)
    tokens = _of(state.tokens, parent).at[..., state.step].set(token)
    return _merged(state.answers, state.answer_score, tokens, score)


def _merged(
    answers: Int[Array, "rows beams most"],
    answer_score: Float[Array, "rows beams"],
    tokens: Int[Array, "rows beams most"],
    score: Float[Array, "rows beams"],
) -> tuple[Int[Array, "rows beams most"], Float[Array, "rows beams"]]:
    """The best of the answers so far and of other texts, and their scores."""
    beams = answers.shape[1]
    answers = jnp.concatenate([answers, tokens], axis=1)
    score = jnp.concatenate([answer_score, score], axis=1)
    score, order = jax.lax.top_k(score, beams)
    return _of(answers, order), score


def _drawn(
    method: Sample,
    scores: Float[Array, "rows beams vocab"],
    seeds: UInt32[Array, " rows"],
    step: Int[Array, ""],
) -> Float[Array, "rows beams vocab"]:
    """The changed scores of the continuations that are drawn, −∞ for all others.

    They are twice as many as there are beams, so that enough are left where some end.
    """
    rows, beams, vocab = scores.shape
    scores = method.keep(scores)
    keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), step))(seeds)
    noise = jax.vmap(lambda key: jax.random.gumbel(key, (beams, vocab)))(keys)
    noisy = scores + noise
    least = jax.lax.top_k(noisy.reshape(rows, -1), 2 * beams)[0][:, -1]
    return jnp.where(noisy < least[:, None, None], -jnp.inf, scores)


def _best(
    scores: Float[Array, "rows beams vocab"],
) -> tuple[
    Float[Array, "rows beams"], Int[Array, "rows beams"], Int[Array, "rows beams"]
]:
    """The best continuations, as many as there are beams: score, beam and token."""
    rows, beams, vocab = scores.shape
    best, index = jax.lax.top_k(scores.reshape(rows, -1), beams)
    return best, index // vocab, index % vocab


def _of(
    values: Shaped[Array, "rows beams *rest"], beams: Int[Array, "rows chosen"]
) -> Shaped[Array, "rows chosen *rest"]:
    """In each row, the values of some of its beams."""
    return values[jnp.arange(values.shape[0])[:, None], beams]

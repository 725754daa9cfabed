"""Beam search: the likeliest whole answer among those that a few texts lead to.

Equal to that of the `transformers` library with `early_stopping=False`. Several texts,
the beams, are followed at a time; in each step every beam could go on with every token,
and the best of all these continuations become the beams of the next step. With two:

    beams            continuations (log-probabilities so far)      next beams
    It is   −0.9     It is jazz −1.1   It is slow −2.9   …         It is jazz  −1.1
    A slow  −1.4     A slow ### −1.6   A slow song −1.9  …         A slow song −1.9
                              ↓
                     an answer of 3 tokens: −1.6 / 3^length_penalty

A continuation that ends is kept apart as an answer if it is among the best. Answers of
different lengths are compared by their log-probability over their length to the power
of `length_penalty` (Wu et al. 2016, without their constants): above 0, long ones gain.
A row is done when its best beam, were it to end now, would beat none of its answers.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Int32

from musilingo_jax.answering.continuous_batching import (
    BUCKET,
    QueuedPrompt,
    pad,
    round_up,
    windows_of,
)
from musilingo_jax.answering.decoding import Prompts, placed, read
from musilingo_jax.answering.sampling import SILENCE, Choice, Said
from musilingo_jax.answering.stop_texts import Stops
from musilingo_jax.models.adapter import Adapter
from musilingo_jax.models.llama import KVCache, Llama
from musilingo_jax.runtime.signals import check_signals

# Stands for the score of what is not there, as in the other library.
NONE = -1e9


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Search:
    """The carry of the loop: in each row `beams` texts, and as many answers."""

    step: jax.Array  # int32[]: tokens that each text has
    cache: KVCache  # rows · beams texts, less their last tokens
    tokens: jax.Array  # int32[rows, beams, most]; SILENCE behind the last
    score: jax.Array  # float32[rows, beams]: log-probability; the first is the best
    spelled: jax.Array  # int32[rows, beams]: state of the stops
    answers: jax.Array  # int32[rows, beams, most]; the first is the best
    worth: jax.Array  # float32[rows, beams]: of the answers; NONE where there is none
    open: jax.Array  # bool[rows]: whether answers may still become better


@functools.partial(jax.jit, static_argnames=("choice", "most", "beams", "mesh"))
def search(
    adapter: Adapter,
    llama: Llama,
    prompts: Prompts,
    stops: Stops,
    length_penalty: Float[Array, ""] | float,
    *,
    choice: Choice,
    most: int,
    beams: int,
    mesh: Mesh | None,
) -> Int[Array, "rows most"]:
    """The best answer to each prompt that a beam search finds.

    Args:
      adapter: pooled audio → word embeddings.
      llama: the language model.
      prompts: a row for each answer.
      stops: what ends one.
      length_penalty: see above.
      choice: its processors are applied to log-probabilities; nothing is drawn.
      most: tokens of an answer.
      beams: texts that are followed in each row.
      mesh: the devices; None for the default one.

    Returns:
      The answers' tokens, the one that ends it included, then `SILENCE`.
    """
    rows, time = prompts.tokens.shape
    texts = jnp.repeat(jnp.arange(rows), beams)
    cache = KVCache.create(llama, batch=rows, slots=time)
    hidden, cache = read(adapter, llama, prompts, placed(cache, mesh, spread=True))
    alone = jnp.arange(beams) == 0
    start = Search(
        step=jnp.int32(0),
        cache=placed(cache.take(texts).widen(most - 1), mesh, spread=True),
        tokens=jnp.full((rows, beams, most), SILENCE, jnp.int32),
        # All beams are the same text as yet: only one of them counts.
        score=jnp.tile(jnp.where(alone, 0.0, NONE), (rows, 1)),
        spelled=jnp.zeros((rows, beams), jnp.int32),
        answers=jnp.full((rows, beams, most), SILENCE, jnp.int32),
        worth=jnp.full((rows, beams), NONE),
        open=prompts.lengths > 0,
    )

    def extend(state: Search, hidden: Float[Array, "texts width"]) -> Search:
        scores = jax.nn.log_softmax(llama.logits(hidden), axis=-1)
        finishing = stops.finishing(state.spelled.reshape(-1))
        count = jnp.broadcast_to(state.step, len(scores))
        said = Said(state.tokens.reshape(-1, most), count, finishing)
        scores = choice.process(scores, said).reshape(rows, beams, -1)
        scores = scores + state.score[..., None]
        length = state.step + 1
        ends = finishing.reshape(rows, beams, -1) | (length == most)
        answers, worth = _keep(state, scores, ends, length_penalty)
        score, parent, token = _best(jnp.where(ends, NONE, scores))
        spelled = stops.follow(_of(state.spelled, parent).ravel(), token.ravel())
        possible = score[:, 0] / length**length_penalty
        return Search(
            step=length,
            cache=placed(
                state.cache.take((parent + jnp.arange(rows)[:, None] * beams).ravel()),
                mesh,
                spread=True,
            ),
            tokens=_of(state.tokens, parent).at[..., state.step].set(token),
            score=score,
            spelled=spelled.reshape(rows, beams),
            answers=answers,
            worth=worth,
            open=state.open & (possible > jnp.min(worth, axis=1)),
        )

    def unfinished(state: Search) -> Bool[Array, ""]:
        return (state.step < most) & jnp.any(state.open)

    def read_and_extend(state: Search) -> Search:
        last = jax.lax.dynamic_index_in_dim(state.tokens, state.step - 1, 2)
        hidden, cache = llama(
            llama.embed(last.reshape(-1, 1)),
            positions=state.cache.positions(1),
            attend=state.cache.attend(1),
            cache=state.cache,
            remat=False,
        )
        return extend(replace(state, cache=cache), hidden[:, -1])

    state = extend(start, hidden[texts])
    return jax.lax.while_loop(unfinished, read_and_extend, state).answers[:, 0]


def search_each(
    adapter: Adapter,
    llama: Llama,
    waiting: Sequence[QueuedPrompt],
    stops: Stops,
    choice: Choice,
    *,
    rows: int,
    most: int,
    beams: int,
    length_penalty: float,
    mesh: Mesh | None,
) -> Iterator[tuple[int, Int32[np.ndarray, " said"]]]:
    """Gives each prompt's index and the tokens of its best answer, batch by batch.

    Args:
      adapter, llama, stops, choice, most, beams, length_penalty, mesh: as in `search`.
      waiting: the prompts; those of like length are read together.
      rows: texts that are followed at the same time, in all rows together.
    """
    shares = 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
    rows = round_up(min(max(1, rows // beams), len(waiting)), shares)
    windows = windows_of([prompt.text for prompt in waiting])
    ordered = sorted(waiting, key=lambda prompt: len(prompt.text.tokens))
    for start in range(0, len(ordered), rows):
        check_signals()
        batch = ordered[start : start + rows]
        texts = [prompt.text for prompt in batch]
        said = search(
            adapter,
            llama,
            pad(texts, rows=rows, bucket=BUCKET, windows=windows, mesh=mesh),
            stops,
            np.float32(length_penalty),
            choice=choice,
            most=most,
            beams=beams,
            mesh=mesh,
        )
        for prompt, tokens in zip(batch, np.asarray(said), strict=False):
            yield prompt.index, tokens[tokens != SILENCE]


def _keep(
    state: Search,
    scores: Float[Array, "rows beams vocab"],
    ends: Bool[Array, "rows beams vocab"],
    length_penalty: Float[Array, ""] | float,
) -> tuple[Int[Array, "rows beams most"], Float[Array, "rows beams"]]:
    """The best answers so far, and what they are worth, after one more step.

    Only the best continuations of all may become answers, not what follows them where
    they go on: an answer must have been worth following.
    """
    rows, beams, _ = state.answers.shape
    score, parent, token = _best(scores)
    ending = ends[jnp.arange(rows)[:, None], parent, token] & state.open[:, None]
    worth = jnp.where(ending, score / (state.step + 1) ** length_penalty, NONE)
    tokens = _of(state.tokens, parent).at[..., state.step].set(token)
    worth = jnp.concatenate([state.worth, worth], axis=1)
    answers = jnp.concatenate([state.answers, tokens], axis=1)
    worth, order = jax.lax.top_k(worth, beams)
    return _of(answers, order), worth


def _best(
    scores: Float[Array, "rows beams vocab"],
) -> tuple[Float[Array, "rows beams"], ...]:
    """As many of the best continuations as there are beams: score, beam and token."""
    rows, beams, vocab = scores.shape
    best, index = jax.lax.top_k(scores.reshape(rows, -1), beams)
    return best, index // vocab, index % vocab


def _of(
    values: Int[Array, "rows beams *rest"], beams: Int[Array, "rows chosen"]
) -> Int[Array, "rows chosen *rest"]:
    """In each row, what belongs to some of its beams."""
    return values[jnp.arange(values.shape[0])[:, None], beams]

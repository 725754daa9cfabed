"""Trains the embedded language model on text about composed music.

MusiLingo's language model is frozen while the adapter learns, so the adapter can only
say what the model already knows how to hear in a vector: Vicuna's embedding space has
room for "a slow waltz" because it read the web. A model of a million parameters that
never saw anything in the audio slot would learn to speak fluently and to ignore it.
So while it learns to speak, its slot holds *hints*: for every audio vector, the sum of
the embeddings of the words of the piece's attributes, randomly thinned, blurred with
other values, and noisy. The adapter must later produce such vectors from sound. The
model card says this openly.
"""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from musilingo_jax.answering import prompts
from musilingo_jax.answering.answer import Answerer, answer
from musilingo_jax.answering.config import GREEDY
from musilingo_jax.corpora import questions, synthetic
from musilingo_jax.evaluation.metrics.naming import named_value
from musilingo_jax.models.llama import Llama
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.musilingo import Batch, answer_loss
from musilingo_jax.pretrained.tokenizer import Tokenizer
from musilingo_jax.recipes import start
from musilingo_jax.recipes.encoder import resume
from musilingo_jax.recipes.texts import Pool
from musilingo_jax.runtime import cli
from musilingo_jax.training.checkpoints import Checkpoints


@dataclasses.dataclass(frozen=True)
class LanguageRecipe:
    """How the language model learns.

    Attributes:
      pieces: how many pieces are composed to write about.
      tokens: size of the vocabulary, special tokens included.
      steps: optimiser steps.
      short_rows, long_rows: rows per step of the two lengths of text.
      short_length, long_length: their lengths in tokens; a text that fits neither is
        left out and counted.
      short_share: share of the steps on short text.
      learning_rate, warmup_steps, weight_decay: of AdamW; cosine to a tenth.
      keep: probability that an attribute that the text does not ask about is hinted
        at, in each third of the training.
      asked: the same for those that it asks about or tells of.
      thin: probability that a hint is left out of one audio vector.
      blur: a hint is mixed with another value's, with a share uniform in [0, blur].
      noise: standard deviation of the noise, in units of the embeddings' own.
      checkpoint_every: steps between checkpoints.
      seed: of weights, texts and hints.
    """

    pieces: int
    tokens: int
    steps: int
    short_rows: int
    long_rows: int
    short_length: int
    long_length: int
    short_share: float
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    keep: tuple[float, float, float]
    asked: float
    thin: float
    blur: float
    noise: float
    checkpoint_every: int
    seed: int


def value_tokens(tokenizer: Tokenizer) -> np.ndarray:
    """The tokens of every value's words, int32 [attributes, values, words], else -1."""
    spelt = [
        [tokenizer.encode(value) for value in values]
        for values in synthetic.ATTRIBUTES.values()
    ]
    most = max(len(values) for values in spelt)
    longest = max(len(words) for values in spelt for words in values)
    table = np.full((len(spelt), most, longest), -1, np.int32)
    for attribute, values in enumerate(spelt):
        for value, words in enumerate(values):
            table[attribute, value, : len(words)] = words
    return table


def value_embeddings(
    llama: Llama, table: np.ndarray
) -> Float[Array, "attributes values width"]:
    """The sum of the embeddings of each value's words."""
    embedded = llama.embed(jnp.maximum(table, 0).reshape(len(table), -1))
    embedded = embedded.reshape(*table.shape, -1)
    return jnp.sum(jnp.where(table[..., None] >= 0, embedded, 0.0), axis=2)


def hints(
    llama: Llama,
    table: np.ndarray,
    values: Array,
    asked: Array,
    *,
    windows: int,
    keep: Array,
    recipe: LanguageRecipe,
    key: Array,
) -> Float[Array, "batch windows width"]:
    """What stands in the audio slot while the language model learns.

    Args:
      llama: whose embeddings the hints are made of; they get no gradient from here.
      table: from `value_tokens`.
      values: int32 [batch, attributes].
      asked: bool [batch, attributes].
      windows: audio vectors per row.
      keep: probability of a hint about what is not asked.
      recipe: the other probabilities.
      key: of all draws.
    """
    batch, attributes = values.shape
    keys = jax.random.split(key, 6)
    embedded = jax.lax.stop_gradient(value_embeddings(llama, table))
    counts = np.array([len(v) for v in synthetic.ATTRIBUTES.values()])
    others = jax.random.randint(keys[0], values.shape, 0, counts)
    blur = recipe.blur * jax.random.uniform(keys[1], (batch, windows, attributes, 1))
    row = np.arange(attributes)
    hint = (1 - blur) * embedded[row, values][:, None]
    hint += blur * embedded[row, others][:, None]
    kept = jax.random.uniform(keys[2], values.shape) < jnp.where(
        asked, recipe.asked, keep
    )
    kept &= jax.random.uniform(keys[3], (batch, 1)) < 0.95  # else an empty slot
    there = jax.random.uniform(keys[4], (batch, windows, attributes)) > recipe.thin
    vectors = jnp.sum(hint * (kept[:, None] & there)[..., None], axis=2)
    spread = recipe.noise * jnp.std(embedded)
    return vectors + spread * jax.random.normal(keys[5], vectors.shape)


def loss(
    llama: Llama,
    table: np.ndarray,
    rows: tuple[Array, Array, Array, Array, Array],
    keep: Array,
    key: Array,
    *,
    recipe: LanguageRecipe,
) -> Array:
    """Mean cross entropy of all text tokens after the first, given the hints."""
    tokens, audio_slot, lengths, values, asked = rows
    places = jnp.arange(tokens.shape[1])
    inside = places < lengths[:, None]
    batch = Batch(
        features=hints(
            llama,
            table,
            values,
            asked,
            windows=8,
            keep=keep,
            recipe=recipe,
            key=key,
        ),
        tokens=tokens,
        audio_slot=audio_slot,
        segments=inside.astype(jnp.int32),
        positions=jnp.where(inside, places, 0),
        targets=jnp.where(inside & (audio_slot < 0) & (places > 0), places, -1),
    )
    total, count = answer_loss(lambda vectors: vectors, llama, batch, remat=False)
    return total / count


def train(
    config: LlamaConfig,
    recipe: LanguageRecipe,
    *,
    tokenizer: Tokenizer,
    short: Pool,
    long: Pool,
    folder: Path,
) -> Llama:
    """Trains the language model, resuming from the newest checkpoint in `folder`."""
    table = value_tokens(tokenizer)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0,
        recipe.learning_rate,
        recipe.warmup_steps,
        recipe.steps,
        end_value=recipe.learning_rate / 10,
    )
    tx = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(
            schedule,
            b2=0.98,
            weight_decay=recipe.weight_decay,
            mask=functools.partial(jax.tree.map, lambda x: x.ndim > 1),
        ),
    )
    llama = Llama(config, rngs=nnx.Rngs(recipe.seed))
    saved = Checkpoints(folder, keep=1)
    start, state = resume(saved, (llama, jax.jit(tx.init)(llama)))

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, rows, keep, key):
        llama, moments = state
        value, gradient = jax.value_and_grad(loss)(
            llama, table, rows, keep, key, recipe=recipe
        )
        updates, moments = tx.update(gradient, moments, llama)
        return (optax.apply_updates(llama, updates), moments), value

    with cli.progress(
        total=recipe.steps, initial=start, unit="step", label="language model"
    ) as bar:
        for index in range(start, recipe.steps):
            rng = np.random.default_rng([recipe.seed, 2, index])
            pool, count = (
                (short, recipe.short_rows)
                if rng.random() < recipe.short_share
                else (long, recipe.long_rows)
            )
            drawn = rng.integers(0, len(pool.tokens), count)
            rows = tuple(
                getattr(pool, field.name)[drawn] for field in dataclasses.fields(Pool)
            )
            keep = recipe.keep[min(2, 3 * index // recipe.steps)]
            key = jax.random.fold_in(jax.random.key(recipe.seed), index)
            state, value = step(state, rows, keep, key)
            bar.update()
            if index % 50 == 0:
                bar.set_postfix(loss=f"{float(value):.3f}")
                bar.write(f"language model step {index}: loss {float(value):.4f}")
            if (index + 1) % recipe.checkpoint_every == 0 or index + 1 == recipe.steps:
                saved.save(
                    index + 1, state, dataclasses.asdict(recipe), validation=None
                )
    saved.close()
    return state[0]


def reading_accuracy(
    llama: Llama,
    tokenizer: Tokenizer,
    recipe: LanguageRecipe,
    prompt: prompts.PromptConfig,
    *,
    pieces: int,
) -> dict[str, float]:
    """How often the model says what clean hints tell it, per attribute.

    New pieces are asked about; the slot holds three copies of the sum of the
    embeddings of their attributes' words, without thinning, blur or noise.
    """
    words = np.asarray(value_embeddings(llama, value_tokens(tokenizer)))
    width = llama.config.width
    unchanged = start.linear_adapter(np.eye(width), np.zeros(width))
    speaker = Answerer(unchanged, llama, tokenizer)
    requests, goals = [], []
    for index in range(pieces):
        rng = np.random.default_rng([recipe.seed, 3, index])
        piece = synthetic.compose(rng, duration=1.0)
        chosen = [
            words[row, value]
            for row, value in enumerate(piece.label_indices().values())
        ]
        vectors = np.tile(np.sum(chosen, axis=0, dtype=np.float32), (3, 1))
        for question, _, attribute, value in questions.short(piece, rng):
            requests.append((vectors, question))
            goals.append((attribute, value))
    config = dataclasses.replace(GREEDY, max_new_tokens=24, batch_size=64)
    answers = answer(speaker, prompt, requests, config, mesh=None)
    right: dict[str, list[bool]] = {name: [] for name in synthetic.ATTRIBUTES}
    for (attribute, value), said in zip(goals, answers, strict=True):
        named = named_value(said, set(synthetic.ATTRIBUTES[attribute]))
        right[attribute].append(named == value)
    return {name: float(np.mean(found)) for name, found in right.items()}

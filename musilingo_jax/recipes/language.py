"""Trains the embedded language model on text about music.

MusiLingo's language model is frozen while the adapter learns, so the adapter can only
produce vectors that the model can already read. Vicuna's embedding space has room for
"a slow waltz", because Vicuna was trained on the web. A model of a million parameters
that never saw anything in the audio slot would learn to write fluently and to ignore
the slot. So during its training the slot holds hints: noisy sums of the codes of what
is known of the song (`hints.py`). The model card states this openly.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from musilingo_jax.answering.answer import Answerer, answer
from musilingo_jax.answering.config import GREEDY
from musilingo_jax.answering.prompts import PromptConfig
from musilingo_jax.corpora import synthetic
from musilingo_jax.corpora.fact_questions import stated_value
from musilingo_jax.corpora.facts import UNSURE
from musilingo_jax.models.answer_loss import Batch, answer_loss
from musilingo_jax.models.heard import Heard
from musilingo_jax.models.llama import Llama, unstacked
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.parts import Parts
from musilingo_jax.pretrained.tokenizer import Tokenizer
from musilingo_jax.recipes import loop, start
from musilingo_jax.recipes.hints import codes, hints
from musilingo_jax.recipes.texts import (
    MOST_WINDOWS,
    Pool,
    made_up,
    of_piece,
    of_recording,
)
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import setting

_GRADIENT_NORM = 1.0
# What the model is asked about new pieces: three windows, as a clip of 10 s has.
_WINDOWS_READ = 3
_TOKENS_READ = 24


@dataclasses.dataclass(frozen=True)
class LanguageRecipe:
    """How the language model learns.

    Attributes:
      start: a language model that is taken as it is, tokenizer and all, a folder or the
        name of an embedded one; "" to train one.
      pieces: how many pieces are composed to write about.
      recordings: how many recordings are made up to write about.
      tokens: size of the vocabulary, special tokens included.
      steps: updates.
      short_rows, long_rows: rows per update of the two lengths of text.
      short_length, long_length: their lengths in tokens; a text that fits neither is
        left out and counted.
      short_share: share of the updates on short text.
      learning_rate, warmup_steps, weight_decay: of AdamW; a cosine to a tenth.
      keep: probability that a fact that the text is not about is hinted at, in
        each third of the training.
      asked: the same for those that it is about.
      thin, blur, noise: as in `hints.hints`.
      checkpoint_every: updates between checkpoints.
      seed: of weights, texts and hints.
    """

    start: str = setting()
    pieces: int = setting(at_least=1)
    recordings: int = setting(at_least=0)
    tokens: int = setting(at_least=1)
    steps: int = setting(at_least=1)
    short_rows: int = setting(at_least=1)
    long_rows: int = setting(at_least=1)
    short_length: int = setting(at_least=1)
    long_length: int = setting(at_least=1)
    short_share: float = setting(at_least=0, at_most=1)
    learning_rate: float = setting(above=0)
    warmup_steps: int = setting(at_least=0)
    weight_decay: float = setting(at_least=0)
    keep: tuple[float, ...] = setting(at_least=0, at_most=1)
    asked: float = setting(at_least=0, at_most=1)
    thin: float = setting(at_least=0, at_most=1)
    blur: float = setting(at_least=0, at_most=1)
    noise: float = setting(at_least=0)
    checkpoint_every: int = setting(at_least=1)
    seed: int = setting(at_least=0)


def loss(
    llama: Llama,
    rows: tuple[
        Int[Array, "batch length"],
        Int[Array, "batch length"],
        Int[Array, " batch"],
        Int[Array, "batch answer"],
        Int[Array, "batch facts"],
        Bool[Array, "batch facts"],
    ],
    keep: Float[Array, ""],
    key: PRNGKeyArray,
    *,
    recipe: LanguageRecipe,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Mean cross entropy of the answers' tokens, given the hints.

    Args:
      llama: what learns.
      rows: the fields of `Pool`.
      keep: probability of a hint about what the text is not about.
      key: of the hints.
      recipe: the other probabilities.

    Returns:
      The loss, and no other numbers.
    """
    tokens, audio_slot, lengths, targets, values, asked = rows
    places = jnp.arange(tokens.shape[1])
    inside = places < lengths[:, None]
    batch = Batch(
        features=hints(
            values,
            asked,
            width=llama.config.width,
            windows=MOST_WINDOWS,
            keep_asked=recipe.asked,
            keep_others=keep,
            thin=recipe.thin,
            blur=recipe.blur,
            noise=recipe.noise,
            key=key,
        ),
        tokens=tokens,
        audio_slot=audio_slot,
        segments=inside.astype(jnp.int32),
        positions=jnp.where(inside, places, 0),
        targets=targets,
    )
    # The features are word embeddings already.
    unchanged: Any = lambda vectors, _: Heard(spliced=vectors, added=None)  # noqa: E731
    total, count = answer_loss(
        Parts(llama=llama), Parts(bridge=unchanged), batch, remat="everything"
    )
    return total / count, {}


def train(
    config: LlamaConfig,
    recipe: LanguageRecipe,
    *,
    tokenizer: Tokenizer,
    short: Pool,
    long: Pool,
    folder: Path,
) -> Llama:
    """Trains the language model, resuming from the newest checkpoint in `folder`.

    Args:
      config: of the model.
      recipe: of the training.
      tokenizer: the model's.
      short: the texts of the short length.
      long: the texts of the long length.
      folder: of the checkpoints.

    Raises:
      UserError: no text has a length that the recipe draws.
    """
    for name, pool, drawn in (
        ("short_length", short, recipe.short_share > 0),
        ("long_length", long, recipe.short_share < 1),
    ):
        if drawn and not len(pool.tokens):
            raise UserError(
                f"config.language.recipe.{name} = {getattr(recipe, name)}: no text has "
                "that length; choose another, or set short_share to 0 or 1"
            )

    def batch(step: int) -> tuple:
        rng = np.random.default_rng([recipe.seed, 2, step])
        pool, count = (
            (short, recipe.short_rows)
            if rng.random() < recipe.short_share
            else (long, recipe.long_rows)
        )
        rows = pool.rows(rng.integers(0, len(pool.tokens), count))
        keep = recipe.keep[len(recipe.keep) * step // recipe.steps]
        return rows, keep, jax.random.fold_in(jax.random.key(recipe.seed), step)

    return loop.train(
        Llama(config, rngs=nnx.Rngs(recipe.seed)),
        functools.partial(loss, recipe=recipe),
        batch,
        optimiser=loop.adamw(
            learning_rate=recipe.learning_rate,
            final_learning_rate=recipe.learning_rate / 10,
            warmup_steps=recipe.warmup_steps,
            steps=recipe.steps,
            weight_decay=recipe.weight_decay,
            gradient_norm=_GRADIENT_NORM,
        ),
        steps=recipe.steps,
        checkpoint_every=recipe.checkpoint_every,
        folder=folder,
        settings=dataclasses.asdict(recipe),
        label="language model",
        examine=lambda llama: {},
    )


def reading_accuracy(
    llama: Llama,
    tokenizer: Tokenizer,
    recipe: LanguageRecipe,
    prompt: PromptConfig,
    *,
    pieces: int,
) -> dict[str, float]:
    """Share of answers that name what clean hints say, per fact.

    The questions are about new pieces and new made-up recordings. The slot holds equal
    copies of the sum of the codes of what is known: without thinning, blur or noise.
    `unsure` is the share of questions about what is not known whose answer says so.

    Args:
      llama: what answers.
      tokenizer: the model's.
      recipe: its seed chooses the pieces.
      prompt: how questions are asked.
      pieces: how many pieces, and how many recordings, are asked about.
    """
    width = llama.config.width
    table = codes(width)
    unchanged = start.linear_adapter(np.eye(width), np.zeros(width))
    # A copy, because `unstacked` deletes its argument.
    decoding = unstacked(jax.tree.map(jnp.copy, llama))
    answerer = Answerer(unchanged, decoding, tokenizer)
    requests, expected = [], []
    for index in range(2 * pieces):
        rng = np.random.default_rng([recipe.seed, 3, index])
        if index % 2:
            asked = of_recording(made_up(rng), rng)
        else:
            asked = of_piece(synthetic.compose(rng, duration=1.0), rng)
        vectors = np.tile(start.goal(asked[0].labels, table), (_WINDOWS_READ, 1))
        for text in asked:
            if text.question and len(text.asked) == 1:
                (fact,) = text.asked
                requests.append((vectors, text.question))
                expected.append((fact, text.labels.get(fact)))
    config = dataclasses.replace(GREEDY, max_new_tokens=_TOKENS_READ, batch_size=64)
    answers = answer(answerer, prompt, requests, config)
    right: dict[str, list[bool]] = {}
    for (fact, value), text in zip(expected, answers, strict=True):
        if value is None:
            right.setdefault("unsure", []).append(UNSURE in text)
        else:
            right.setdefault(fact, []).append(stated_value(text, fact) == value)
    return {name: float(np.mean(found)) for name, found in right.items()}

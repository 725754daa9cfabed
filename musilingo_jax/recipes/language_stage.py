"""The stage of the recipe that makes the language model: trains one, or takes one.

One that can say already all that is to be said need not be trained again when only the
encoder hears better: hints have the same codes (`hints.py`), so it reads the new
adapter's vectors as it read the old one's.
"""

import shutil
from typing import Any

import jax

from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.pretrained import sources, weights
from musilingo_jax.recipes import language, texts
from musilingo_jax.recipes.config import RecipeConfig
from musilingo_jax.recipes.shipping import CARD, STORED
from musilingo_jax.runtime import storage
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.training.stage_config import StageConfig


def make(recipe: RecipeConfig) -> dict[str, Any]:
    """Trains or takes tokenizer and language model, and saves both.

    Returns:
      What it reads in the slot, and how it came to be.
    """
    made = take(recipe) if recipe.language.start else train(recipe)
    folder = recipe.work / "model" / "language_model"
    llama = weights.load_language_model(
        folder, dtype="float32", quantization="", mesh=None
    )
    tokenizer = weights.load_tokenizer(folder)
    questions = StageConfig.from_config(recipe.experiment, "stage2").prompt
    return made | {
        "vocab": tokenizer.size,
        "parameters": parameters(llama),
        "reads": language.reading_accuracy(
            llama, tokenizer, recipe.language, questions, pieces=recipe.read_pieces
        ),
    }


def take(recipe: RecipeConfig) -> dict[str, Any]:
    """Copies tokenizer and language model; returns which, and its card.

    Raises:
      UserError: there is none, or it has another architecture than the recipe's.
    """
    start = recipe.language.start
    taken = sources.find(start, "language_model")
    config = LlamaConfig.from_dict(dict(taken.config))
    if config != LlamaConfig.from_dict(
        recipe.language_model | {"vocab_size": config.vocab}
    ):
        raise UserError(
            f"config.language.recipe.start is {start}: its architecture is another "
            'than that of config.language.model; choose another, or "" to train one'
        )
    folder = recipe.work / "model" / "language_model"
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(taken.folder.iterdir()):
        if file.name != CARD:
            with storage.atomic(folder / file.name) as partial:
                shutil.copyfile(file, partial)
    card = taken.folder / CARD
    return {"taken": start, "card": card.read_text("utf-8") if card.exists() else ""}


def train(recipe: RecipeConfig) -> dict[str, Any]:
    """Trains and saves tokenizer and language model; returns what it learnt from."""
    numbers = recipe.language
    folder = recipe.work / "model" / "language_model"
    found = texts.texts(
        pieces=numbers.pieces, recordings=numbers.recordings, seed=numbers.seed
    )
    tokenizer = texts.train_tokenizer(found, folder, tokens=numbers.tokens)
    captions, questions = (
        StageConfig.from_config(recipe.experiment, stage).prompt
        for stage in ("stage1", "stage2")
    )
    short, long, left_out = texts.pools(
        found,
        tokenizer,
        {False: captions, True: questions},
        short_length=numbers.short_length,
        long_length=numbers.long_length,
        seed=numbers.seed,
    )
    llama = language.train(
        LlamaConfig.from_dict(recipe.language_model | {"vocab_size": tokenizer.size}),
        numbers,
        tokenizer=tokenizer,
        short=short,
        long=long,
        folder=recipe.work / "checkpoints" / "language",
    )
    weights.save_language_model(llama, folder, dtype=STORED)
    return {"texts": len(found), "left_out": left_out}


def parameters(module: Any) -> int:
    """How many numbers a module holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(module))

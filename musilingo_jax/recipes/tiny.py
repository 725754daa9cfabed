r"""The embedded model and corpus, from soundfonts and seeds to the shipped files.

    make recipe        # or, with soundfonts of your own in one folder:
    python -m musilingo_jax.recipes.tiny --config=tiny_from_scratch \
        --soundfonts=build/soundfonts

The stages, each finished once and kept below `config.work`:

    sets        rendered clips: a training set, and two held-out ones, of which one is
                played by a soundfont that training never uses
    encoder     `encoder.py`, on the training set           → model/encoder
    language    `language.py`, tokenizer and language model → model/language_model
    songs       a corpus of rendered songs as files, as a user's own would be
    adapter     a ridge start (`start.py`), then the ordinary `musilingo_jax.train`
                                                            → model/adapter
    corpus      the small embedded corpus, of other pieces
    cards       a README.md beside each part that says how it was made

It can be stopped at any time; the same command resumes. `--install` copies the result
over the files in the package.
"""

import os
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from musilingo_jax import train
from musilingo_jax.corpora import songs
from musilingo_jax.corpora.styles import ATTRIBUTES
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.pretrained import weights
from musilingo_jax.pretrained.model_config import KINDS
from musilingo_jax.recipes import (
    cards,
    encoder,
    language,
    render,
    rendered_set,
    shipping,
    start,
    texts,
)
from musilingo_jax.recipes.config import AdapterConfig, RecipeConfig, SongsConfig
from musilingo_jax.recipes.rendered_set import RenderedSet
from musilingo_jax.recipes.stage_log import StageLog
from musilingo_jax.runtime import cli
from musilingo_jax.runtime.errors import UsageError, UserError
from musilingo_jax.training.stage_config import StageConfig

ASSETS = Path(str(resources.files("musilingo_jax"))) / "assets"
# Weights are stored as float16: half the size, and no value is near its limits.
STORED = np.float16


def main(argv: list[str]) -> None:
    """Makes what is not made yet."""
    if argv[1:]:
        raise UsageError(f"unknown argument {argv[1]!r} (try --help)")
    if flags.FLAGS.config is None:
        raise UsageError("give --config=configs/tiny_from_scratch.py")
    recipe = RecipeConfig.from_config(flags.FLAGS.config)
    make(recipe, Path(flags.FLAGS.soundfonts))
    for kind in KINDS:
        print(f"{kind}: {weights.digest(recipe.work / 'model', kind)}")
    if flags.FLAGS.install:
        shipping.install(recipe.work, ASSETS)


def make(recipe: RecipeConfig, fonts: Path) -> None:
    """Goes through all stages; finished ones are only checked.

    Args:
      recipe: the numbers.
      fonts: the folder of the soundfonts.

    Raises:
      UserError: a soundfont is missing or cannot be read.
    """
    work = recipe.work
    log = StageLog(work / "log.json")
    with log.stage("sets"):
        make_sets(recipe, fonts)
    with log.stage("encoder"):
        log.note("encoder", make_encoder(recipe))
    with log.stage("language"):
        log.note("language", make_language_model(recipe))
    with log.stage("songs"):
        make_songs(recipe, recipe.adapter, work / "songs", fonts, offset=3)
    with log.stage("adapter"):
        make_adapter(recipe)
    with log.stage("corpus"):
        make_songs(recipe, recipe.corpus, work / "corpus", fonts, offset=4)
    cards.write(recipe, log.read())


def soundfonts(folder: Path, names: tuple[str, ...]) -> list[str]:
    """The paths of soundfonts.

    Raises:
      UserError: one is missing.
    """
    paths = [folder / name for name in names]
    for path in paths:
        if not path.is_file():
            raise UserError(
                f"{path}: there is no such soundfont; `make soundfonts` puts it there, "
                "or name its folder with --soundfonts"
            )
    return [str(path) for path in paths]


def make_sets(recipe: RecipeConfig, fonts: Path) -> None:
    """Renders the training set and the two held-out sets."""
    numbers = recipe.render
    known = soundfonts(fonts, numbers.training_soundfonts)
    unseen = soundfonts(fonts, (numbers.unseen_soundfont,))
    for offset, (name, clips, played_by, augment) in enumerate(
        (
            ("training", numbers.clips, known, True),
            ("held_out", numbers.held_out_clips, known, False),
            ("unseen", numbers.held_out_clips, unseen, False),
        )
    ):
        rendered_set.write_set(
            recipe.work / "sets" / name,
            clips=clips,
            seed=recipe.seed + offset,
            soundfonts=played_by,
            duration=numbers.seconds,
            augment=augment,
            processes=os.cpu_count() or 1,
        )


def make_encoder(recipe: RecipeConfig) -> dict[str, Any]:
    """Trains and saves the encoder; returns how often its heads are right."""
    config = recipe.encoder_model
    samples = round(recipe.render.seconds * config.sample_rate)
    sets = {
        name: RenderedSet(
            recipe.work / "sets" / name,
            frames=int(config.frames(samples)),
            frames_per_second=config.frames_per_second,
        )
        for name in ("training", "held_out", "unseen")
    }
    student = encoder.train(
        config,
        recipe.encoder,
        training=sets.pop("training"),
        held_out=sets,
        folder=recipe.work / "checkpoints" / "encoder",
    )
    folder = recipe.work / "model" / "encoder"
    weights.save_encoder(student.encoder, folder, dtype=STORED)
    measured = {
        name: encoder.accuracy(student, rendered, recipe.encoder)
        for name, rendered in sets.items()
    }
    return measured | {
        "values": {name: len(values) for name, values in ATTRIBUTES.items()},
        "parameters": parameters(student.encoder),
    }


def make_language_model(recipe: RecipeConfig) -> dict[str, Any]:
    """Trains and saves tokenizer and language model; returns what it reads."""
    numbers = recipe.language
    folder = recipe.work / "model" / "language_model"
    found = texts.texts(pieces=numbers.pieces, seed=numbers.seed)
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
    return {
        "texts": len(found),
        "left_out": left_out,
        "vocab": tokenizer.size,
        "parameters": parameters(llama),
        "reads": language.reading_accuracy(
            llama, tokenizer, numbers, questions, pieces=recipe.read_pieces
        ),
    }


def parameters(module: Any) -> int:
    """How many numbers a module holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(module))


def make_songs(
    recipe: RecipeConfig,
    numbers: AdapterConfig | SongsConfig,
    folder: Path,
    fonts: Path,
    *,
    offset: int,
) -> None:
    """Renders songs as files, unless they are there already.

    Args:
      recipe: seed, length and soundfonts.
      numbers: how many clips, and the share of them in the split "test".
      folder: gets the songs.
      fonts: the folder of the soundfonts.
      offset: added to the seed, so that no two sets or corpora share a piece.
    """
    if not (folder / songs.FILE_NAME).exists():
        render.write_corpus(
            folder,
            clips=numbers.clips,
            seed=recipe.seed + offset,
            soundfonts=soundfonts(fonts, recipe.render.training_soundfonts),
            duration=recipe.render.seconds,
            test_share=numbers.test_share,
        )


def make_adapter(recipe: RecipeConfig) -> None:
    """Finds the closed-form start, trains from it as any user would, and saves."""
    start.write_start(recipe.experiment, shrinkage=recipe.adapter.shrinkage)
    train.train(recipe.experiment)
    shipping.write_adapter(recipe.experiment, recipe.work / "model")


if __name__ == "__main__":
    cli.define_config()
    flags.DEFINE_string(
        "soundfonts", "build/soundfonts", "folder of the soundfonts of the config"
    )
    flags.DEFINE_bool("install", False, "copy model and corpus into the package")
    cli.run(main)

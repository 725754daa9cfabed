"""The embedded model and corpus, from soundfonts and seeds to the shipped files.

    make recipe        (or, with soundfonts of your own in one folder:)
    python -m musilingo_jax.recipes.tiny --config=configs/tiny_from_scratch.py \
        --soundfonts=build/soundfonts

The stages, each finished once and kept below `config.work`:

    sets        rendered clips: a training set, and two held-out ones of which one is
                played by a soundfont that training never hears
    encoder     `encoder.py`, on the training set           → model/encoder
    language    `language.py`, tokenizer and language model → model/language_model
    songs       a corpus of rendered songs as files, as a user's own would be
    adapter     ridge start (`start.py`), then the ordinary `musilingo_jax.train`
                                                            → model/adapter
    corpus      the small embedded corpus, other pieces again
    cards       a README.md beside each part that says how it came about

It can be stopped at any time; the same command goes on. `--install` copies the result
over the files in the package.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from musilingo_jax import train
from musilingo_jax.answering.prompts import PromptConfig
from musilingo_jax.audio.cache import feature_cache
from musilingo_jax.corpora import mixture, songs, synthetic
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.pretrained import weights
from musilingo_jax.recipes import cards, encoder, language, render, start, texts
from musilingo_jax.recipes.encoder import EncoderRecipe
from musilingo_jax.recipes.language import LanguageRecipe
from musilingo_jax.runtime import cli
from musilingo_jax.runtime.errors import UsageError, UserError
from musilingo_jax.runtime.sharding import make_mesh
from musilingo_jax.runtime.storage import write_text

PARTS = ("encoder", "language_model", "adapter")
# Stored as float16: half the size, and every value of these models is well within it.
STORED = np.float16


def main(argv: list[str]) -> None:
    """Makes what is not made yet."""
    if argv[1:]:
        raise UsageError(f"unknown argument {argv[1]!r} (try --help)")
    config = flags.FLAGS.config
    if config is None:
        raise UsageError("say --config=configs/tiny_from_scratch.py")
    fonts = Path(flags.FLAGS.soundfonts)
    work = Path(config.work)
    log = Log(work / "log.json")
    with log.stage("sets"):
        make_sets(config, work, fonts)
    with log.stage("encoder"):
        log.note("encoder", make_encoder(config, work))
    with log.stage("language"):
        log.note("language", make_language_model(config, work))
    with log.stage("songs"):
        make_songs(work / "songs", config.adapter, config, fonts, seed=config.seed + 3)
    with log.stage("adapter"):
        make_adapter(config, work)
    with log.stage("corpus"):
        make_songs(work / "corpus", config.corpus, config, fonts, seed=config.seed + 4)
    cards.write(work, config, log.read())
    for part in PARTS:
        print(f"{part}: {weights.digest(work / 'model', part)}")
    if flags.FLAGS.install:
        install(work)


class Log:
    """How long each stage took, over all interruptions, and what it found."""

    def __init__(self, path: Path):
        self.path = path

    def read(self) -> dict[str, Any]:
        """What is known so far: {stage: {"seconds": …, …}}."""
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    def note(self, stage: str, found: dict[str, Any]) -> None:
        """Adds what a stage found."""
        known = self.read()
        known[stage] = known.get(stage, {"seconds": 0.0}) | found
        write_text(self.path, json.dumps(known, indent=2) + "\n")

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time spent inside to the stage's."""
        print(f"== {name}")
        began = time.monotonic()
        try:
            yield
        finally:
            before = self.read().get(name, {}).get("seconds", 0.0)
            self.note(name, {"seconds": before + time.monotonic() - began})
            print(f"== {name}: {self.read()[name]['seconds']:.0f} s")


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
                "or say --soundfonts=folder"
            )
    return [str(path) for path in paths]


def make_sets(config: ConfigDict, work: Path, fonts: Path) -> None:
    """Renders the training set and the two held-out sets."""
    numbers = config.render
    known = soundfonts(fonts, numbers.training_soundfonts)
    unseen = soundfonts(fonts, (numbers.unseen_soundfont,))
    for offset, (name, clips, played, augment) in enumerate(
        (
            ("training", numbers.clips, known, True),
            ("held_out", numbers.held_out_clips, known, False),
            ("unseen", numbers.held_out_clips, unseen, False),
        )
    ):
        render.write_set(
            work / "sets" / name,
            clips=clips,
            seed=config.seed + offset,
            soundfonts=played,
            duration=numbers.seconds,
            augment=augment,
            processes=os.cpu_count() or 1,
        )


def make_encoder(config: ConfigDict, work: Path) -> dict[str, Any]:
    """Trains and saves the encoder; returns what its heads name on held-out clips."""
    mert_config = MertConfig.from_dict(config.encoder.model.to_dict())
    recipe = EncoderRecipe(**config.encoder.recipe)
    samples = round(config.render.seconds * mert_config.sample_rate)
    sets = {
        name: encoder.RenderedSet(
            work / "sets" / name,
            frames=mert_config.frames(samples),
            frames_per_second=mert_config.frames_per_second,
        )
        for name in ("training", "held_out", "unseen")
    }
    student = encoder.train(
        mert_config,
        recipe,
        training=sets.pop("training"),
        held_out=sets,
        folder=work / "checkpoints" / "encoder",
    )
    weights.save_encoder(student.encoder, work / "model" / "encoder", dtype=STORED)
    found = {name: encoder.accuracy(student, s, recipe) for name, s in sets.items()}
    values = {name: len(values) for name, values in synthetic.ATTRIBUTES.items()}
    return found | {"values": values, "parameters": parameters(student.encoder)}


def make_language_model(config: ConfigDict, work: Path) -> dict[str, Any]:
    """Trains and saves tokenizer and language model; returns what it reads."""
    recipe = LanguageRecipe(**config.language.recipe)
    folder = work / "model" / "language_model"
    found = texts.texts(pieces=recipe.pieces, seed=recipe.seed)
    tokenizer = texts.train_tokenizer(found, folder, tokens=recipe.tokens)
    stages = config.adapter.train
    short, long, left_out = texts.pools(
        found,
        tokenizer,
        {
            asks: PromptConfig(**stages[stage].prompt)
            for asks, stage in ((False, "stage1"), (True, "stage2"))
        },
        short_length=recipe.short_length,
        long_length=recipe.long_length,
        seed=recipe.seed,
    )
    llama_config = LlamaConfig.from_dict(
        config.language.model.to_dict() | {"vocab_size": tokenizer.size}
    )
    llama = language.train(
        llama_config,
        recipe,
        tokenizer=tokenizer,
        short=short,
        long=long,
        folder=work / "checkpoints" / "language",
    )
    weights.save_language_model(llama, folder, dtype=STORED)
    return {
        "texts": len(found),
        "left_out": left_out,
        "vocab": tokenizer.size,
        "parameters": parameters(llama),
        "reads": language.reading_accuracy(
            llama,
            tokenizer,
            recipe,
            PromptConfig(**stages.stage2.prompt),
            pieces=config.language.read_pieces,
        ),
    }


def parameters(module: Any) -> int:
    """How many numbers a module holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(module))


def make_songs(
    folder: Path, numbers: ConfigDict, config: ConfigDict, fonts: Path, *, seed: int
) -> None:
    """Renders `numbers.clips` songs as files, unless they are there already."""
    if not (folder / songs.FILE_NAME).exists():
        render.write_corpus(
            folder,
            clips=numbers.clips,
            seed=seed,
            soundfonts=soundfonts(fonts, config.render.training_soundfonts),
            duration=config.render.seconds,
            test_share=numbers.test_share,
        )


def make_adapter(config: ConfigDict, work: Path) -> None:
    """Finds the closed-form start, then trains from it as any user would."""
    experiment = config.adapter.train
    mesh = make_mesh(**experiment.mesh)
    corpus = experiment.corpus
    records = mixture.split(corpus, corpus.train_split, answered=True)
    features = feature_cache.prepare(experiment, records, mesh)
    llama = weights.load_language_model(
        experiment.model.language_model,
        dtype=np.float32,
        quantization="",
        mesh=mesh,
    )
    tokenizer = weights.load_tokenizer(experiment.model.language_model)
    values: dict[str, dict[str, str]] = {}
    for record in records:
        if record.attribute:
            values.setdefault(record.clip, {})[record.attribute] = record.value
    table = language.value_tokens(tokenizer)
    words = np.asarray(language.value_embeddings(llama, table))
    heard, goals = [], []
    for clip, labels in values.items():
        chosen = [
            words[row, synthetic.ATTRIBUTES[name].index(labels[name])]
            for row, name in enumerate(synthetic.ATTRIBUTES)
        ]
        windows = features.features(clip)
        heard.append(windows)
        goals.append(np.tile(np.sum(chosen, axis=0), (len(windows), 1)))
    weights.save_adapter(
        start.ridge(
            np.concatenate(heard),
            np.concatenate(goals),
            shrinkage=config.adapter.shrinkage,
        ),
        Path(experiment.model.adapter),
        dtype=np.float32,
        window_frames=experiment.features.window_frames,
    )
    train.train(experiment)
    weights.save_adapter(
        weights.load_adapter(f"{experiment.run}/adapter", mesh=None),
        work / "model" / "adapter",
        dtype=np.float32,
        window_frames=experiment.features.window_frames,
    )
    # What `chat` and others need to know to use the three parts together.
    shipped = experiment.copy_and_resolve_references()
    shipped.model.update(pretrained="musilingo-tiny", **dict.fromkeys(PARTS, ""))
    shipped.run, shipped.features.cache = "runs/tiny", "runs/tiny/cache"
    (work / "model" / "config.json").write_text(
        json.dumps(shipped.to_dict(), indent=2) + "\n"
    )


def install(work: Path) -> None:
    """Copies model and corpus over those in the package."""
    assets = Path(str(resources.files("musilingo_jax"))) / "assets"
    for made, name in (
        ("model", "musilingo-tiny"),
        ("corpus", "musilingo-tiny-corpus"),
    ):
        shutil.rmtree(assets / name, ignore_errors=True)
        shutil.copytree(work / made, assets / name)
        print(f"installed {assets / name}")


if __name__ == "__main__":
    cli.define_config()
    flags.DEFINE_string(
        "soundfonts", "build/soundfonts", "the folder with the soundfonts of the config"
    )
    flags.DEFINE_bool("install", False, "copy model and corpus into the package")
    cli.run(main)

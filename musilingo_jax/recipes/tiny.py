r"""The embedded model and corpus, from soundfonts and seeds to the shipped files.

    make recipe        # or, with soundfonts of your own in one folder:
    python -m musilingo_jax.recipes.tiny --config=tiny_from_scratch \
        --soundfonts=build/soundfonts --music=build/music --teachers=build/teachers

The stages, each finished once and kept below `config.work`:

    sets        rendered clips: a training set, and two held-out ones, of which one is
                played by a soundfont that training never uses
    recordings  excerpts of recordings, of packages to learn from and of others to
                measure with; speech, noise, and voices that sing (`singing.py`)
    teachers    what published models hear in them (`lessons.py`)
    encoder     `encoder.py`, on the training set and the recordings, in two stages
                                                             → model/encoder
    language    `language_stage.py`, tokenizer and language model, trained or taken
                                                             → model/language_model
    songs       a corpus of rendered songs as files, as a user's own would be, and one
                of recordings
    adapter     a ridge start (`start.py`), then the ordinary `musilingo_jax.train`
                                                             → model/adapter
    corpus      the small embedded corpus, of other pieces
    cards       a README.md beside each part that says how it was made

It can be stopped at any time; the same command resumes. `--install` copies the result
over the files in the package. What the model says of recordings is measured by
`python -m musilingo_jax.recipes.measure`.
"""

import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from absl import flags

from musilingo_jax import train
from musilingo_jax.annotation import tags
from musilingo_jax.corpora import songs
from musilingo_jax.pretrained import weights
from musilingo_jax.pretrained.model_config import KINDS
from musilingo_jax.recipes import (
    cards,
    encoder,
    excerpts,
    language_stage,
    no_music,
    notes,
    recorded_songs,
    recordings,
    render,
    rendered_set,
    shipping,
    singing,
    start,
)
from musilingo_jax.recipes.agreement import agreement
from musilingo_jax.recipes.config import AdapterConfig, RecipeConfig, SongsConfig
from musilingo_jax.recipes.excerpts import RecordedSet
from musilingo_jax.recipes.lessons import SOUNDS, Lessons, sound_of
from musilingo_jax.recipes.rendered_set import LABELS, RenderedSet
from musilingo_jax.recipes.singing import SUNG
from musilingo_jax.recipes.stage_log import StageLog
from musilingo_jax.recipes.student import Student
from musilingo_jax.runtime import cli
from musilingo_jax.runtime.errors import UsageError, UserError

ASSETS = Path(str(resources.files("musilingo_jax"))) / "assets"
# The role of packages → the name of their set.
RECORDED = {recordings.LEARN: "learnt", recordings.LEFT_OUT: "left_out"}
# A set of recordings, and what the teachers heard in it.
Taught = tuple[RecordedSet, Lessons]


def main(argv: list[str]) -> None:
    """Makes what is not made yet."""
    if argv[1:]:
        raise UsageError(f"unknown argument {argv[1]!r} (try --help)")
    if flags.FLAGS.config is None:
        raise UsageError("give --config=configs/tiny_from_scratch.py")
    recipe = RecipeConfig.from_config(flags.FLAGS.config)
    given = flags.FLAGS
    sources = Sources(*map(Path, (given.soundfonts, given.music, given.teachers)))
    make(recipe, sources)
    for kind in KINDS:
        print(f"{kind}: {weights.digest(recipe.work / 'model', kind)}")
    if flags.FLAGS.install:
        shipping.install(recipe.work, ASSETS)


@dataclass(frozen=True)
class Sources:
    """The folders of what the recipe starts from.

    Attributes:
      soundfonts: as `make soundfonts` fills it.
      music: as `make music` fills it.
      teachers: as `make teachers` fills it.
    """

    soundfonts: Path
    music: Path
    teachers: Path


def make(recipe: RecipeConfig, sources: Sources) -> None:
    """Goes through all stages; finished ones are only checked.

    Args:
      recipe: the numbers.
      sources: the folders to start from.

    Raises:
      UserError: a soundfont, a package or a teacher is missing or cannot be read.
    """
    work, fonts = recipe.work, sources.soundfonts
    log = StageLog(work / "log.json")
    with log.stage("sets"):
        make_sets(recipe, fonts)
    with log.stage("recordings"):
        make_recordings(recipe, sources)
    with log.stage("teachers"):
        learnt, left_out = let_teach(recipe, sources)
    parts = recipe.encoder.parts
    for part in range(1, parts + 1):
        with log.stage(f"encoder {part} of {parts}"):
            student = train_encoder(recipe, learnt[1], part)
    with log.stage("encoder"):
        log.note("encoder", save_encoder(recipe, student, learnt, left_out))
    with log.stage("language"):
        log.note("language", language_stage.make(recipe))
    with log.stage("songs"):
        make_songs(recipe, recipe.adapter, work / "songs", fonts, offset=3, more=True)
        make_recorded_songs(recipe, learnt)
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
    more = soundfonts(fonts, numbers.more_soundfonts)
    unseen = soundfonts(fonts, (numbers.unseen_soundfont,))
    for offset, (name, clips, played_by, augment) in enumerate(
        (
            ("training", numbers.clips, [*known, *more], True),
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


def make_recordings(recipe: RecipeConfig, sources: Sources) -> None:
    """Draws excerpts of the recordings; makes speech, noise and voices that sing."""
    numbers, work = recipe.recordings, recipe.work
    for offset, (role, name) in enumerate(RECORDED.items()):
        seed = recipe.seed + 5 + 2 * offset
        few = role == recordings.LEFT_OUT
        songs = recordings.tracks(sources.music, role)
        if numbers.songs:
            songs = songs[:: max(1, len(songs) // numbers.songs)][: numbers.songs]
        others = no_music.write(
            work / "no_music" / name,
            recordings.tracks(sources.music, role, speech=True),
            clips=max(1, numbers.no_music // 4) if few else numbers.no_music,
            seconds=recipe.render.seconds,
            seed=seed,
        )
        sung = []
        if not few:
            sung = singing.write(
                work / "sung",
                songs,
                recordings.tracks(sources.music, role, speech=True),
                clips=numbers.sung,
                seconds=recipe.render.seconds,
                seed=recipe.seed + 10,
            )
        excerpts.write_set(
            work / "recordings" / name,
            [*songs, *others, *sung],
            seconds=recipe.render.seconds,
            spacing=numbers.spacing,
            most=max(1, numbers.most // 2) if few else numbers.most,
            seed=seed + 1,
            processes=os.cpu_count() or 1,
        )


def let_teach(recipe: RecipeConfig, sources: Sources) -> tuple[Taught, Taught]:
    """What the teachers hear in the excerpts to learn from, and in the others."""
    config = recipe.encoder_model
    samples = round(recipe.render.seconds * config.sample_rate)
    taught = []
    for name in RECORDED.values():
        recorded = RecordedSet(recipe.work / "recordings" / name)
        lessons = Lessons.of(
            recorded,
            taggers=sources.teachers / tags.WHEEL,
            transcriber=sources.teachers / notes.WHEEL,
            frames=int(config.frames(samples)),
            frames_per_second=config.frames_per_second,
            processes=os.cpu_count() or 1,
            copies=name == RECORDED[recordings.LEARN],
        )
        taught.append((recorded, lessons))
    learnt, left_out = taught
    return learnt, left_out


def rendered_sets(recipe: RecipeConfig) -> dict[str, RenderedSet]:
    """The sets of `make_sets`, by name, as the encoder learns from them."""
    config = recipe.encoder_model
    samples = round(recipe.render.seconds * config.sample_rate)
    return {
        name: RenderedSet(
            recipe.work / "sets" / name,
            frames=int(config.frames(samples)),
            frames_per_second=config.frames_per_second,
        )
        for name in ("training", "held_out", "unseen")
    }


def train_encoder(recipe: RecipeConfig, lessons: Lessons, part: int) -> Student:
    """Trains the encoder to the end of a part, unless it has come so far already."""
    sets = rendered_sets(recipe)
    return encoder.train(
        recipe.encoder_model,
        recipe.encoder,
        training=sets.pop("training"),
        lessons=lessons,
        held_out=sets,
        folder=recipe.work / "checkpoints" / "encoder",
        part=part,
    )


def save_encoder(
    recipe: RecipeConfig, student: Student, learnt: Taught, left_out: Taught
) -> dict[str, Any]:
    """Saves the encoder, and measures it.

    Returns:
      How often its heads are right about rendered clips, and how far they agree with
      the teachers on packages that were left out.
    """
    folder = recipe.work / "model" / "encoder"
    weights.save_encoder(student.encoder, folder, dtype=shipping.STORED)
    sets = rendered_sets(recipe)
    measured = {
        name: encoder.accuracy(student, sets[name], recipe.encoder)
        for name in ("held_out", "unseen")
    }
    return measured | {
        "values": {name: len(values) for name, values in LABELS.items()},
        "agreement": agreement(student, *left_out, recipe.encoder),
        "excerpts": sum(
            sound_of(p) == SOUNDS[0] and p != SUNG for p in learnt[0].packages
        ),
        "sung": learnt[0].packages.count(SUNG),
        "parameters": language_stage.parameters(student.encoder),
    }


def make_songs(
    recipe: RecipeConfig,
    numbers: AdapterConfig | SongsConfig,
    folder: Path,
    fonts: Path,
    *,
    offset: int,
    more: bool = False,
) -> None:
    """Renders songs as files, unless they are there already.

    Args:
      recipe: seed, length and soundfonts.
      numbers: how many clips, and the share of them in the split "test".
      folder: gets the songs.
      fonts: the folder of the soundfonts.
      offset: added to the seed, so that no two sets or corpora share a piece.
      more: as in `render.write_corpus`; and whether more soundfonts play them.
    """
    names = recipe.render.training_soundfonts
    if more:
        names += recipe.render.more_soundfonts
    if not (folder / songs.FILE_NAME).exists():
        render.write_corpus(
            folder,
            clips=numbers.clips,
            seed=recipe.seed + offset,
            soundfonts=soundfonts(fonts, names),
            duration=recipe.render.seconds,
            test_share=numbers.test_share,
            more=more,
        )


def make_recorded_songs(recipe: RecipeConfig, learnt: Taught) -> None:
    """Writes a corpus of recordings to learn from, unless it is there already."""
    folder = recipe.work / "recorded_songs"
    if not (folder / songs.FILE_NAME).exists():
        recorded, lessons = learnt
        recorded_songs.write_corpus(
            folder,
            recorded,
            recorded_songs.known_facts(recorded, lessons, likely=True),
            lessons.bpm,
            split="train",
            seed=recipe.seed + 9,
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
    flags.DEFINE_string("music", "build/music", "folder of the recordings' packages")
    flags.DEFINE_string(
        "teachers", "build/teachers", "folder of the teachers' packages"
    )
    flags.DEFINE_bool("install", False, "copy model and corpus into the package")
    cli.run(main)

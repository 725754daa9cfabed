"""The config of a recipe, checked before the first of its stages begins."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.recipes.encoder import EncoderRecipe
from musilingo_jax.recipes.language import LanguageRecipe
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import read_section, setting
from musilingo_jax.training.stage_config import StageConfig

_SECTIONS = (
    "work",
    "seed",
    "render",
    "recordings",
    "encoder",
    "language",
    "adapter",
    "corpus",
)


@dataclass(frozen=True)
class RenderConfig:
    """The sets of clips that the encoder learns from and is measured on.

    Attributes:
      clips: in the training set.
      held_out_clips: in each of the two held-out sets.
      seconds: length of a clip, in these sets and in all corpora.
      training_soundfonts: names of the files that play everything but one held-out set.
      more_soundfonts: names of files that share the parts of the training set, too.
      unseen_soundfont: the file that plays that set.
    """

    clips: int = setting(at_least=1)
    held_out_clips: int = setting(at_least=1)
    seconds: float = setting(above=0)
    training_soundfonts: tuple[str, ...] = setting()
    more_soundfonts: tuple[str, ...] = setting()
    unseen_soundfont: str = setting()


@dataclass(frozen=True)
class RecordingsConfig:
    """The excerpts of recordings that the encoder learns from.

    Attributes:
      spacing: a song gives an excerpt for each so many seconds of it.
      most: excerpts of one song at most.
      songs: songs of each role at most, spread over the packages; 0 for all.
      no_music: clips of speech, and as many of noise.
      sung: songs with a voice that sings, which `singing.py` makes.
    """

    spacing: float = setting(above=0)
    most: int = setting(at_least=1)
    songs: int = setting(at_least=0)
    no_music: int = setting(at_least=1)
    sung: int = setting(at_least=0)


@dataclass(frozen=True)
class SongsConfig:
    """A corpus of rendered songs.

    Attributes:
      clips: how many songs.
      test_share: share of them in the split "test".
    """

    clips: int = setting(at_least=1)
    test_share: float = setting(at_least=0, at_most=1)


@dataclass(frozen=True)
class AdapterConfig:
    """The songs that the adapter learns from, and its start.

    Attributes:
      clips, test_share: as in `SongsConfig`.
      shrinkage: as in `start.ridge`.
    """

    clips: int = setting(at_least=1)
    test_share: float = setting(at_least=0, at_most=1)
    shrinkage: float = setting(above=0)


@dataclass(frozen=True)
class RecipeConfig:
    """All numbers of a recipe.

    Attributes:
      work: the folder of all that it makes.
      seed: of the rendered sets and corpora, which take this one and the next four.
      render: the rendered sets.
      recordings: the recorded sets.
      encoder_model, encoder: the encoder and how it learns.
      language_model: a `config.json` of LLaMA's, without the size of the vocabulary.
      language: how the language model learns.
      read_pieces: pieces that the language model is asked about when it is trained.
      adapter: the adapter's songs and its start.
      experiment: the config with which the adapter is trained.
      corpus: the embedded corpus.
    """

    work: Path
    seed: int
    render: RenderConfig
    recordings: RecordingsConfig
    encoder_model: MertConfig
    encoder: EncoderRecipe
    language_model: dict[str, Any]
    language: LanguageRecipe
    read_pieces: int
    adapter: AdapterConfig
    experiment: ConfigDict
    corpus: SongsConfig

    @classmethod
    def from_config(cls, config: ConfigDict) -> "RecipeConfig":
        """The config of `configs/tiny_from_scratch.py`, or one like it.

        Raises:
          UserError: a key is missing or unknown, or its value is out of bounds.
        """
        if missing := [name for name in _SECTIONS if name not in config]:
            raise UserError(
                f"the config lacks {', '.join(missing)}: give a recipe's, such as "
                "configs/tiny_from_scratch.py"
            )
        experiment = config.adapter.train
        for stage in experiment.stages:
            try:
                StageConfig.from_config(experiment, stage)
            except UserError as error:
                raise UserError(f"config.adapter.train: {error}") from error
        start = {key: value for key, value in config.adapter.items() if key != "train"}
        recipe = cls(
            work=Path(config.work),
            seed=config.seed,
            render=read_section(RenderConfig, config.render, "config.render"),
            recordings=read_section(
                RecordingsConfig, config.recordings, "config.recordings"
            ),
            encoder_model=MertConfig.from_dict(config.encoder.model.to_dict()),
            encoder=read_section(
                EncoderRecipe, config.encoder.recipe, "config.encoder.recipe"
            ),
            language_model=config.language.model.to_dict(),
            language=read_section(
                LanguageRecipe, config.language.recipe, "config.language.recipe"
            ),
            read_pieces=config.language.read_pieces,
            adapter=read_section(AdapterConfig, start, "config.adapter"),
            experiment=experiment,
            corpus=read_section(SongsConfig, config.corpus, "config.corpus"),
        )
        recipe.check()
        return recipe

    def check(self) -> None:
        """Checks what no field can be checked for alone.

        Raises:
          UserError: two keys contradict each other.
        """
        for name in ("encoder", "language"):
            learning: EncoderRecipe | LanguageRecipe = getattr(self, name)
            if learning.warmup_steps >= learning.steps:
                raise UserError(
                    f"config.{name}.recipe.warmup_steps is {learning.warmup_steps}: it "
                    f"must be less than steps, which is {learning.steps}"
                )
        if self.encoder.parts > self.encoder.steps:
            raise UserError(
                f"config.encoder.recipe.parts is {self.encoder.parts}: it must be at "
                f"most steps, which is {self.encoder.steps}"
            )
        for name in ("clips", "held_out_clips"):
            clips = getattr(self.render, name)
            if clips < self.encoder.batch_size:
                raise UserError(
                    f"config.render.{name} is {clips}: it must be at least "
                    f"config.encoder.recipe.batch_size, which is "
                    f"{self.encoder.batch_size}"
                )
        if not self.language.keep or not self.render.training_soundfonts:
            raise UserError(
                "config.language.recipe.keep and config.render.training_soundfonts "
                "need one entry at least"
            )

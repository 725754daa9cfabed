"""How a model is used: as it was trained."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ml_collections import ConfigDict

from musilingo_jax.answering import released
from musilingo_jax.answering.answer import context_of
from musilingo_jax.answering.config import GenerateConfig
from musilingo_jax.answering.prompts import PromptConfig
from musilingo_jax.answering.question_format import question_format
from musilingo_jax.audio.features import FeatureConfig
from musilingo_jax.pretrained import sources
from musilingo_jax.pretrained.sources import ModelConfig
from musilingo_jax.pretrained.tensor_files import CONFIG
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import read_json


@dataclass(frozen=True)
class Usage:
    """How a model is used: as it was trained.

    Attributes:
      model: the sources of its parts.
      prompt: how a question is put.
      max_windows: audio vectors that training heard at once.
      max_tokens: of a question with its song.
      features: how a song becomes vectors.
      generate: how answers are decoded.
    """

    model: ModelConfig
    prompt: PromptConfig
    max_windows: int
    max_tokens: int
    features: FeatureConfig
    generate: GenerateConfig

    @classmethod
    def of(cls, source: str, adapter: str | None) -> "Usage":
        """That of a run, an embedded model or a MusiLingo release.

        Args:
          source: a folder, or a name; its `config.json` tells.
          adapter: another adapter for the same encoder and language model.

        Raises:
          UserError: the source is no such thing, or never learnt to answer questions.
        """
        # Not the weights yet, which may be large and not wanted after all.
        folder = sources.resolve(source, weights=False)
        said = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
        if sources.is_release(said):
            return cls._released(source, adapter, said)
        if not sources.is_run(said):
            if sources.kinds(source) == list(sources.KINDS):
                # A release that was split: its adapter's config has what is left of
                # the one for all.
                return cls._released(
                    source, adapter, read_json(folder / "adapter" / CONFIG)
                )
            raise UserError(
                f"{folder}: holds no whole model; name a run, a MusiLingo release, or "
                "leave out --run and --model for the embedded model"
            )
        config = ConfigDict(said)
        try:
            stage = question_format(config, "a question")
            model = ModelConfig.from_config(config)
            features = FeatureConfig.from_config(config)
            decoding = GenerateConfig.from_config(config)
        except (UserError, KeyError, AttributeError) as error:
            raise UserError(
                f"{folder / CONFIG}: {error}; this version cannot use a run that was "
                "made by another: train it anew into another folder, or choose "
                "another --run"
            ) from error
        if stage is None:
            raise UserError(
                f"{folder}: none of its stages ({', '.join(config.stages)}) learnt to "
                "answer questions; choose another --run"
            )
        return cls(
            model=replace(model, adapter=adapter or str(source)),
            prompt=stage.prompt,
            max_windows=stage.max_windows,
            max_tokens=stage.max_tokens,
            features=features,
            generate=decoding,
        )

    @classmethod
    def _released(
        cls, source: str, adapter: str | None, said: Mapping[str, Any]
    ) -> "Usage":
        """That of a release, whose `config.json` leaves most unsaid."""
        return cls(
            model=ModelConfig(
                source,
                source,
                adapter or source,
                dtype=released.DTYPE,
                quantization="",
            ),
            prompt=released.prompt_of(said),
            max_windows=released.MAX_WINDOWS,
            max_tokens=context_of(source) - released.GENERATE.max_new_tokens,
            features=replace(
                released.FEATURES, window_frames=sources.released_window(said)
            ),
            generate=released.GENERATE,
        )

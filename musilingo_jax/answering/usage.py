"""How a model is used, which is how it was trained."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from musilingo_jax.answering import released
from musilingo_jax.answering.answerer import context_of
from musilingo_jax.answering.config import GenerateConfig
from musilingo_jax.answering.prompts import PromptConfig
from musilingo_jax.answering.question_format import question_format
from musilingo_jax.audio.features import FeatureConfig
from musilingo_jax.pretrained import (
    embedded_models,
    model_config,
    model_folder,
    number_type,
    sources,
    tuned_model,
    weights,
)
from musilingo_jax.pretrained.model_config import ModelConfig
from musilingo_jax.pretrained.tensor_files import CONFIG
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json
from musilingo_jax.runtime.settings import make_config
from musilingo_jax.runtime.top_level import check_top_level


@dataclass(frozen=True)
class Usage:
    """Everything that a question about a song needs besides the weights.

    Attributes:
      model: the sources of the model's parts.
      prompt: the conversation around a question.
      max_windows: audio vectors that one prompt had in training at most.
      max_tokens: tokens of a question with its song at most.
      features: how a song becomes audio vectors.
      generate: how answers are decoded.
      earlier_turns: turns about a song that may stand before a question about it; None
        for as many as fit.
    """

    model: ModelConfig
    prompt: PromptConfig
    max_windows: int
    max_tokens: int
    features: FeatureConfig
    generate: GenerateConfig
    earlier_turns: int | None

    @classmethod
    def of(
        cls, source: str | Path, adapter: str | None, style: str | None = None
    ) -> "Usage":
        """Reads how a run, an embedded model or a MusiLingo release is used.

        Args:
          source: a folder or a name; its `config.json` decides which of them it is.
          adapter: another adapter for the same encoder and language model; None for
            the source's own.
          style: of `released.STYLES`, for a release; None for its "evaluation", and for
            everything else, whose config says how it is used.

        Raises:
          UserError: the source is not a whole model, cannot be read, or never learnt to
            answer questions; or the style is unknown, or is given for something else
            than a release.
        """
        source = embedded_models.exact(str(source))
        adapter = embedded_models.exact(adapter) if adapter else None
        # Without the weights, which may be large, and not needed in the end.
        folder = model_folder.resolve(source, weights=False)
        path = folder / CONFIG
        described = read_json(path) if path.is_file() else {}
        layout = model_folder.ModelFolder.open(source, weights=False).layout
        if layout == "mu_llama":
            return cls._of_mu_llama(source, adapter, {}, style)
        if model_folder.is_release(described):
            return cls._of_release(source, adapter, described, style)
        if model_folder.is_run(described):
            if style is not None:
                raise UserError(
                    f"{path}: says how this model is used; a style ({style!r}) is for "
                    "released MusiLingo models only"
                )
            return cls._of_run(source, adapter, path, described)
        if sources.kinds(source) == list(model_config.KINDS):
            # A release that was split into parts. The adapter's config holds what is
            # left of the one for all.
            described = read_json(folder / "adapter" / CONFIG)
            if not weights.bridge_kind(described).splices:
                return cls._of_mu_llama(source, adapter, described, style)
            return cls._of_release(source, adapter, described, style)
        raise UserError(
            f"{folder}: holds no whole model; name a run, a MusiLingo release, or "
            "leave out --run and --model for the embedded model"
        )

    @classmethod
    def _of_run(
        cls, source: str, adapter: str | None, path: Path, described: dict[str, Any]
    ) -> "Usage":
        """As its config says; the last stage that learnt from questions asks them."""
        try:
            config = make_config(described, "config")
            check_top_level(config, ("model",), "config")
            stage = question_format(config, "a question")
            config.model = embedded_models.as_recorded(config.model)
            model = ModelConfig.from_config(config)
            features = FeatureConfig.from_config(config)
            generate = GenerateConfig.from_config(config)
        except (UserError, KeyError, AttributeError) as error:
            raise UserError(
                f"{path}: {error}; this version cannot use a run that was made by "
                "another: train it anew into another folder, or choose another --run"
            ) from error
        for name in (model.encoder, model.language_model):
            if problem := embedded_models.missing(name):
                raise UserError(
                    f"{path}: the run was begun with {name}, which {problem}, or train "
                    "it anew into another folder"
                )
        if stage is None:
            raise UserError(
                f"{path.parent}: none of its stages ({', '.join(config.stages)}) "
                "learnt to answer questions; choose another --run"
            )
        return cls(
            model=tuned_model.with_adapter(model, adapter or source),
            prompt=stage.prompt,
            max_windows=stage.max_windows,
            max_tokens=stage.max_tokens,
            features=features,
            generate=generate,
            # No corpus has questions that follow others; with one earlier turn the
            # embedded model is right in 45 of 72 cases instead of 68.
            earlier_turns=0,
        )

    @classmethod
    def _of_mu_llama(
        cls,
        source: str,
        adapter: str | None,
        described: Mapping[str, Any],
        style: str | None,
    ) -> "Usage":
        """As in the code of its authors, but a song is heard whole."""
        if style is not None:
            raise UserError(
                f"{source}: is used in one way; a style ({style!r}) is for released "
                "MusiLingo models only"
            )
        generate = released.MU_LLAMA_GENERATE
        parts = {"encoder": source, "language_model": source}
        return cls(
            model=ModelConfig(
                encoder=source,
                language_model=source,
                adapter=adapter or source,
                dtype=number_type.of_this_machine(parts, quantization=""),
                quantization="",
            ),
            prompt=released.mu_llama_prompt_of(described),
            max_windows=released.MAX_WINDOWS,
            max_tokens=context_of(source) - generate.max_new_tokens,
            features=released.MU_LLAMA_FEATURES,
            generate=generate,
            # It learnt single questions.
            earlier_turns=0,
        )

    @classmethod
    def _of_release(
        cls,
        source: str,
        adapter: str | None,
        described: Mapping[str, Any],
        style: str | None,
    ) -> "Usage":
        """As in the code of its authors; its `config.json` names little of it."""
        name = released.EVALUATION if style is None else style
        generate = released.style_of(name).generate
        window_frames = sources.released_window(described)
        parts = {"encoder": source, "language_model": source}
        return cls(
            model=ModelConfig(
                encoder=source,
                language_model=source,
                adapter=adapter or source,
                dtype=number_type.of_this_machine(parts, quantization=""),
                quantization="",
            ),
            prompt=released.prompt_of(name, described),
            max_windows=released.MAX_WINDOWS,
            max_tokens=context_of(source) - generate.max_new_tokens,
            features=replace(released.FEATURES, window_frames=window_frames),
            generate=generate,
            # As their demo does: Vicuna was made for conversations.
            earlier_turns=None,
        )

"""The questions of a corpus, answered by a trained model and kept in a file."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from musilingo_jax.answering.answer import answer_each, check_question
from musilingo_jax.answering.answer_file import AnswerFile, AskedQuestion, fingerprint
from musilingo_jax.answering.answerer import Answerer, check_reduction, context_of
from musilingo_jax.answering.config import GenerateConfig
from musilingo_jax.answering.padded_prompts import Features
from musilingo_jax.answering.question_format import QuestionFormat, question_format
from musilingo_jax.audio.cache.feature_cache import Identity
from musilingo_jax.audio.features import FeatureConfig, crop
from musilingo_jax.corpora import mixture
from musilingo_jax.corpora.records import Record
from musilingo_jax.pretrained import (
    embedded_models,
    sources,
    trained_with,
    tuned_model,
    weights,
)
from musilingo_jax.pretrained.model_config import ModelConfig
from musilingo_jax.pretrained.tensor_files import CONFIG
from musilingo_jax.runtime import cli, signals
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import identity_of
from musilingo_jax.runtime.sharding import make_mesh


def adapter_of(config: ConfigDict, given: str | None) -> str:
    """The adapter to use: the one given, else the run's, else the config's own.

    Raises:
      UserError: none of them is a trained adapter.
    """
    trained = Path(config.run) / "adapter"
    if given:
        return embedded_models.exact(given)
    if (trained / CONFIG).is_file():
        return str(trained)
    unfinished = any(Path(config.run).glob("*/checkpoints/[0-9]*"))
    named = ModelConfig.from_config(config).adapter
    if named == "random" or unfinished:
        raise UserError(
            f"{trained}: there is no trained adapter (yet); let `python -m "
            "musilingo_jax.train --config=…` finish, or give one with --adapter"
        )
    return named


def model_of(config: ConfigDict, adapter: str) -> ModelConfig:
    """The sources of the model that answers.

    Raises:
      UserError: the adapter was trained with others; or with `config.generate`, the
        language model can answer no question.
    """
    model = tuned_model.with_adapter(ModelConfig.from_config(config), adapter)
    # Also when the answerer is loaded; but that is after the songs are encoded.
    trained_with.check(adapter, model.encoder, model.language_model)
    check_reduction(adapter, FeatureConfig.from_config(config).reduction)
    part = sources.find(model.language_model, "language_model")
    GenerateConfig.from_config(config).check_room(
        prompt=1,
        context=context_of(model.language_model),
        vocab=weights.blueprint(part).module.config.vocab,
    )
    return model


def mesh_of(config: ConfigDict) -> jax.sharding.Mesh:
    """The mesh of the config, made of this process's own devices.

    Each of several processes holds a whole model, and answers without waiting for the
    others.
    """
    return make_mesh(**config.mesh, devices=jax.local_devices())


def identity(config: ConfigDict, adapter: str) -> dict[str, Any]:
    """Everything that the answers of a config depend on, besides songs and questions.

    Without folders and batch sizes, which change no answer. A field that a later
    version adds to one of these classes does not change the identity as long as it has
    the value of its `before=`, so that files of answers stay valid.
    """
    generate = identity_of(GenerateConfig.from_config(config))
    del generate["batch_size"]
    stages = {name: QuestionFormat.of_stage(config, name) for name in config.stages}
    model = tuned_model.with_adapter(ModelConfig.from_config(config), adapter)
    language_model = model.language_model
    return {
        "format": 2,
        "adapter": weights.digest(adapter, "adapter"),
        "language_model": weights.digest(language_model, "language_model"),
        "numbers": [model.dtype, model.quantization],
        "end_tokens": weights.load_tokenizer(language_model).ends,
        "features": identity_of(Identity.of(config)),
        "generate": generate,
        "stages": {
            name: [identity_of(stage.prompt), stage.questions, stage.max_windows]
            for name, stage in stages.items()
        },
    }


def open_answers(
    path: Path,
    config: ConfigDict,
    adapter: str,
    split: str,
    besides: Mapping[str, Any] | None = None,
) -> AnswerFile:
    """The file of a model's answers to a split, as this process sees it.

    Args:
      path: the file.
      config: of the model.
      adapter: its source.
      split: of the corpus.
      besides: what else the answers depend on; None for nothing.

    Raises:
      UserError: the file holds something else.
    """
    asked = {"corpus": mixture.title(config.corpus), "split": split}
    return AnswerFile(
        path,
        fingerprint(identity(config, adapter) | asked | dict(besides or {})),
        process=jax.process_index(),
        processes=jax.process_count(),
    )


def answer_corpus(
    answerer: Answerer,
    config: ConfigDict,
    asks: Sequence[AskedQuestion],
    features: Callable[[str], Features],
    file: AnswerFile,
) -> None:
    """Answers what the file lacks, and writes each answer as soon as it is finished.

    Each of several processes answers its share. Afterwards the first one's file holds
    all answers, in the order of `asks`.

    Args:
      answerer: the model.
      config: how each kind of question is put and answered.
      asks: the questions, as `askable_records` chooses them.
      features: clip id → its features.
      file: this model's answers so far.

    Raises:
      UserError: as in `answer_each`, or an answer cannot be written.
    """
    generate = GenerateConfig.from_config(config)
    jobs = []
    for stage, unanswered in _by_format(config, file, asks).items():
        # Of a longer song the middle is heard, as long as training heard at once.
        most = stage.max_windows if answerer.bridge.splices else None
        requests = [
            (
                features(ask.heard)
                if most is None
                else crop(features(ask.heard), most, None),
                ask.record.question,
            )
            for ask in unanswered
        ]
        answers = answer_each(answerer, stage.prompt, requests, generate)
        jobs.append((unanswered, answers))
    total = sum(len(unanswered) for unanswered, _ in jobs)
    with (
        cli.progress(total=total, unit="answers", label="answering") as bar,
        signals.raise_at_checks(),
    ):
        for unanswered, answers in jobs:
            for index, answer in answers:
                file.add(unanswered[index], answer.text, is_cut=answer.is_cut)
                bar.update()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("answered")
    if jax.process_index() == 0:
        file.finish(asks)


def _by_format(
    config: ConfigDict, file: AnswerFile, asks: Sequence[AskedQuestion]
) -> dict[QuestionFormat, list[AskedQuestion]]:
    """This process's questions without an answer, by how they are put."""
    found: dict[QuestionFormat, list[AskedQuestion]] = {}
    for ask in file.share(list(dict.fromkeys(asks))):
        if file.answer(ask) is None:
            stage = question_format(config, ask.record.question)
            if stage is None:
                raise ValueError(f"no stage learns from {ask.record.question!r}")
            found.setdefault(stage, []).append(ask)
    return found


def askable_records(
    config: ConfigDict, records: Sequence[Record], ids: Collection[str]
) -> list[Record]:
    """The records whose song can be read and whose kind of question a stage learns.

    Args:
      config: the experiment.
      records: questions and captions.
      ids: the clips that have features.

    Raises:
      UserError: no record is left, or a question contains the end sign.
    """
    chosen = []
    for record in records:
        stage = question_format(config, record.question)
        if record.clip not in ids or stage is None:
            continue
        try:
            check_question(stage.prompt, record.question)
        except UserError as error:
            raise UserError(f"{record.clip}: {error}") from error
        chosen.append(record)
    if not chosen:
        raise UserError(
            f"of {len(records)} records none can be asked: their songs cannot be read, "
            "or no stage of config.stages learns from their kind (captions, questions)"
        )
    return chosen

"""Asks a model the questions of a corpus, also as controls, and scores its answers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from musilingo_jax.answering import corpus_answers
from musilingo_jax.answering.answer_file import AnswerFile, AskedQuestion
from musilingo_jax.answering.answerer import load_answerer
from musilingo_jax.answering.padded_prompts import Features
from musilingo_jax.audio.cache import feature_cache
from musilingo_jax.audio.features import FeatureConfig
from musilingo_jax.corpora import mixture
from musilingo_jax.corpora.records import Record, contents_of
from musilingo_jax.evaluation import (
    controls,
    heard_before,
    protocols,
    report_files,
    scoring,
)
from musilingo_jax.evaluation.answered_questions import AnsweredQuestion
from musilingo_jax.evaluation.metrics import facts
from musilingo_jax.evaluation.metrics.wording import WordingModels
from musilingo_jax.evaluation.report import About
from musilingo_jax.evaluation.score_table import OWN
from musilingo_jax.evaluation.scoring import Scored
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import check_writable_folder

ANSWERS = "answers.jsonl"


def evaluate(
    config: ConfigDict,
    adapter: str | None,
    out: Path | None,
    *,
    protocol: str = protocols.WHOLE,
    bertscore: str | None = None,
    layer: int | None = None,
) -> tuple[Path, Scored | None]:
    """Asks, scores and writes the report.

    Answers that the folder already holds are not asked again.

    Args:
      config: the experiment.
      adapter: folder or embedded name of an adapter; None for the run's.
      out: folder of the report; None for `<run>/evaluation`, and for a protocol that
        is not the usual one `<run>/evaluation_<protocol>`.
      protocol: a name of `protocols.PROTOCOLS`.
      bertscore: the model of BERTScore; None for none.
      layer: its layer; None for the one that its authors chose.

    Returns:
      The folder, and the scores; None on all processes but the first.

    Raises:
      UserError: there is no adapter or test split, a part of the model cannot be read,
        the model of BERTScore cannot be used, or the folder holds answers of another
        adapter or configuration.
    """
    if config.seed < 0:
        raise UserError(f"config.seed is {config.seed}: it must be at least 0")
    adapter = corpus_answers.adapter_of(config, adapter)
    model = corpus_answers.model_of(config, adapter)
    usual = protocol == protocols.WHOLE
    name = "evaluation" if usual else f"evaluation_{protocol}"
    folder = out or Path(config.run) / name
    check_writable_folder(folder, flag="--out")
    split = config.corpus.test_split
    besides = None if usual else {"protocol": protocol}
    file = corpus_answers.open_answers(
        folder / ANSWERS, config, adapter, split, besides
    )
    is_first = jax.process_index() == 0
    # Before hours of answering, because a part may be missing.
    models = WordingModels.require(bertscore, layer) if is_first else None
    mesh = corpus_answers.mesh_of(config)
    test = mixture.split(config.corpus, split, answered=True)
    pieces = protocols.pieces(test, protocol)
    heard_clips = [piece for each in pieces.values() for piece in each]
    features = feature_cache.prepare(config, heard_clips, mesh)
    readable = {
        clip
        for clip, each in pieces.items()
        if all(piece.clip in features.ids for piece in each)
    }
    records = corpus_answers.askable_records(config, test, readable)

    def begins(clip: str) -> Features:
        """The features of what is heard first of a clip, or of a piece."""
        return features.features(pieces[clip][0].clip if clip in pieces else clip)

    hear = controls.heard_features(begins, records[0].clip)
    single = {OWN: [AskedQuestion(record, heard=record.clip) for record in records]}
    single |= controls.asks(records, begins, config.seed)
    asks = protocols.joined(single, records, pieces)
    each_once = dict.fromkeys(
        ask for every in asks.values() for joined in every for ask in joined
    )
    answerer = load_answerer(model, FeatureConfig.from_config(config), mesh)
    corpus_answers.answer_corpus(answerer, config, [*each_once], hear, file)
    if models is None:
        return folder, None

    answers = {
        system: [_answer(file, joined) for joined in each]
        for system, each in asks.items()
    }
    corpus = mixture.load(config.corpus)
    training = [r for r in corpus if r.split == config.corpus.train_split and r.answer]
    cut = [any(map(file.is_cut, joined)) for joined in asks[OWN]]
    scored = _score(records, answers, cut, corpus, training, models, config.seed)
    heard = {contents_of(record.clip) or record.clip for record in training}
    tested = {record.clip for record in records}
    about = About(
        title=f"{adapter} on {mixture.title(config.corpus)} ({split})",
        left_out=len(test) - len(records),
        not_held_out=sum((contents_of(clip) or clip) in heard for clip in tested),
        identity=corpus_answers.identity(config, adapter),
        config=json.loads(config.to_json_best_effort()),
        notes=(
            *heard_before.notes(config, adapter),
            *protocols.note({clip: pieces[clip] for clip in tested}, protocol),
        ),
    )
    report_files.write(folder, about, scored)
    return folder, scored


def _answer(file: AnswerFile, joined: Sequence[AskedQuestion]) -> str:
    """The answers to questions whose answers are joined, which are mostly one."""
    answers = [file.answer(ask) for ask in joined]
    # `answer_corpus` has finished.
    return " ".join(answer for answer in answers if answer is not None)


def _others(
    record: Record, right: Mapping[tuple[str, str], Sequence[str]]
) -> tuple[str, ...]:
    """The further right answers to a record's question, each once."""
    every = dict.fromkeys(right[record.clip, record.question])
    return tuple(answer for answer in every if answer != record.answer)


def _score(
    records: list[Record],
    answers: dict[str, list[str]],
    cut: list[bool],
    corpus: list[Record],
    training: list[Record],
    models: WordingModels,
    seed: int,
) -> Scored:
    """Scores answers, with the controls that need no model.

    Args:
      records: the records that were asked.
      answers: system → its answer to each record.
      cut: whether the model's own answer to each was cut.
      corpus: all records, which define the values of attributes.
      training: those with which the constant control is made.
      models: what some metrics need.
      seed: of the controls and of the bootstrap.
    """
    by_model = {name: each for name, each in answers.items() if name != OWN}
    right: dict[tuple[str, str], list[str]] = {}
    for record in records:
        right.setdefault((record.clip, record.question), []).append(record.answer)
    rows = [
        AnsweredQuestion.of(record, answer, _others(record, right), is_cut=is_cut)
        for record, answer, is_cut in zip(records, answers[OWN], cut, strict=True)
    ]
    known = [AnsweredQuestion.of(record, "") for record in training]
    return scoring.score(
        rows,
        controls.with_model_free(rows, known, by_model, seed),
        facts.vocabulary((record.attribute, record.value) for record in corpus),
        models,
        seed=seed,
    )

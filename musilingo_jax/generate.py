"""Answers the questions of a corpus.

    python -m musilingo_jax.generate --config=tiny --out=answers.jsonl
    python -m musilingo_jax.generate --config=tiny --out=a.jsonl --split=train

writes the answers to the test split as JSON lines (`answering/answer_file.py`). The
same command resumes an interrupted run. Several processes (`--distributed`) share the
questions. For songs and questions in memory see `answering.answer.answer`.
"""

from pathlib import Path

import jax
from absl import flags

from musilingo_jax.answering import chat_templates, corpus_answers, unused_settings
from musilingo_jax.answering.answer_file import AskedQuestion
from musilingo_jax.answering.answerer import load_answerer
from musilingo_jax.answering.config import GenerateConfig
from musilingo_jax.audio.cache import feature_cache, recorded_type
from musilingo_jax.audio.features import FeatureConfig
from musilingo_jax.corpora import mixture
from musilingo_jax.pretrained import embedded_models
from musilingo_jax.runtime import cli, command_line, distributed, platforms
from musilingo_jax.runtime.errors import UsageError
from musilingo_jax.runtime.paths import check_writable_file
from musilingo_jax.runtime.printable import print_note


def main(argv: list[str]) -> None:
    """Reads the flags and answers a split."""
    if argv[1:]:
        raise UsageError(f"unknown argument {argv[1]!r} (try --help)")
    given = flags.FLAGS.adapter
    split = [] if flags.FLAGS.split else ["corpus.test_split"]
    config = cli.required_config(
        "run", "stages", "corpus", *split, "features", "model", "generate", "mesh"
    )
    if flags.FLAGS.out is None:
        raise UsageError("--out is missing: name a file, as in --out=answers.jsonl")
    out = Path(flags.FLAGS.out)
    check_writable_file(out, flag="--out")
    distributed.start()
    platforms.start()
    embedded_models.settle(config)
    chat_templates.settle(config)
    if jax.process_index() == 0:
        decoding = GenerateConfig.from_config(config)
        for note in unused_settings.notes(decoding, command_line.typed_keys()):
            print_note(note)
    recorded_type.settle(config)
    adapter = corpus_answers.adapter_of(config, given)
    model = corpus_answers.model_of(config, adapter)
    split = flags.FLAGS.split or config.corpus.test_split
    file = corpus_answers.open_answers(out, config, adapter, split)
    mesh = corpus_answers.mesh_of(config)
    records = mixture.split(config.corpus, split, answered=False)
    features = feature_cache.prepare(config, records, mesh)
    records = corpus_answers.askable_records(config, records, features.ids)
    asks = [AskedQuestion(record, heard=record.clip) for record in records]
    answerer = load_answerer(model, FeatureConfig.from_config(config), mesh)
    corpus_answers.answer_corpus(answerer, config, asks, features.features, file)
    if jax.process_index() == 0:
        print(f"{len(asks)} answers in {file.path}")


if __name__ == "__main__":
    # Here and not above, so that other programs can import this one's functions.
    cli.define_config()
    flags.DEFINE_string("out", None, "file for the answers, as JSON lines")
    flags.DEFINE_string("adapter", None, "folder of an adapter; default: the run's")
    flags.DEFINE_string("split", None, "split of the corpus; default: the test split")
    distributed.define_flags()
    cli.run(main)

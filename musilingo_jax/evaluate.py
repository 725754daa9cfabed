"""Evaluates a trained adapter, or the answers of any system, against controls.

    python -m musilingo_jax.evaluate --config=tiny
    python -m musilingo_jax.evaluate --config=tiny --adapter=musilingo-tiny --out=report
    python -m musilingo_jax.evaluate --predictions=answers.jsonl --json=scores.json

The first asks the questions of the test split, with each clip's own music, with another
clip's, with silence and without music. What is right without the music comes from the
question and from habit, not from listening. The second scores a file of answers,
with the controls that need no model. Outputs of other projects are read as they are:
their keys are guessed and told, or named with `--predictions_keys`.

Scores, intervals and controls are written to `<run>/evaluation`, or to `--out`:
report.html and report.md to read, report.json, examples.jsonl (one line per answer,
with its scores) and, of a model, answers.jsonl. An interrupted evaluation resumes.
Several processes (`--distributed`) share the questions. `--protocol=mu_llama` answers
every second minute of a song and joins the answers, as for MU-LLaMA's published scores.
"""

import json
from pathlib import Path

import jax
from absl import flags

from musilingo_jax.answering import chat_templates, unused_settings
from musilingo_jax.answering.config import GenerateConfig
from musilingo_jax.audio.cache import recorded_type
from musilingo_jax.evaluation import foreign_keys, protocols, report_data
from musilingo_jax.evaluation.evaluate_model import evaluate
from musilingo_jax.evaluation.evaluate_predictions import evaluate_predictions
from musilingo_jax.evaluation.scoring import Scored
from musilingo_jax.pretrained import embedded_models
from musilingo_jax.runtime import cli, command_line, distributed, platforms
from musilingo_jax.runtime.errors import UsageError
from musilingo_jax.runtime.paths import check_writable_file
from musilingo_jax.runtime.printable import print_note, printable
from musilingo_jax.runtime.storage import write_text, writing


def main(argv: list[str]) -> None:
    """Reads the flags, evaluates and prints the report."""
    if argv[1:]:
        raise UsageError(f"unknown argument {argv[1]!r} (try --help)")
    _check_flags()
    given = flags.FLAGS
    out = Path(given.out) if given.out else None
    bertscore, layer = given.bertscore, given.bertscore_layer
    if given.json is not None:
        check_writable_file(Path(given.json), flag="--json")
    if given.predictions is not None:
        text, scored = evaluate_predictions(
            Path(given.predictions),
            out,
            bertscore=bertscore,
            layer=layer,
            keys=foreign_keys.parse(given.predictions_keys),
        )
    else:
        config = cli.required_config(
            "seed",
            "run",
            "stages",
            "corpus",
            "corpus.train_split",
            "corpus.test_split",
            "features",
            "model",
            "generate",
            "mesh",
        )
        distributed.start()
        platforms.start()
        embedded_models.settle(config)
        chat_templates.settle(config)
        if jax.process_index() == 0:
            decoding = GenerateConfig.from_config(config)
            for note in unused_settings.notes(decoding, command_line.typed_keys()):
                print_note(note)
        recorded_type.settle(config)
        out, scored = evaluate(
            config,
            given.adapter,
            out,
            protocol=given.protocol,
            bertscore=bertscore,
            layer=layer,
        )
        if scored is None:
            return  # The first process reports for all.
        text = (out / "report.md").read_text("utf-8")
    print(printable(text))
    if given.json is not None:
        _write_scores(Path(given.json), scored)
    if out is not None:
        print(f"The report and the answers are in {out}: open {out / 'report.html'}")


def _check_flags() -> None:
    """Checks that no flag is given that would be ignored.

    Raises:
      UsageError: one is.
    """
    given = flags.FLAGS
    if (given.config is None) == (given.predictions is None):
        raise UsageError(
            "choose what to evaluate: give either --config=configs/tiny.py or "
            "--predictions=answers.jsonl"
        )
    if given.predictions is not None:
        for name in ("adapter", "protocol", *distributed.FLAGS):
            if given[name].present:
                raise UsageError(
                    "--predictions scores existing answers in one process: "
                    f"--{name} goes with --config"
                )
    elif given.predictions_keys is not None:
        raise UsageError("--predictions_keys are those of --predictions: give both")
    if given.bertscore_layer is not None and given.bertscore is None:
        raise UsageError("--bertscore_layer is a layer of --bertscore: give both")


def _write_scores(path: Path, scored: Scored) -> None:
    """Writes the scores alone.

    Raises:
      UserError: the file cannot be written.
    """
    content = json.dumps(report_data.summary(scored), indent=2, ensure_ascii=False)
    with writing(f"--json={path}", again="run the same command again"):
        write_text(path, content + "\n")


if __name__ == "__main__":
    # Here, so that a program that imports this module does not get its flags.
    cli.define_config()
    flags.DEFINE_string("adapter", None, "folder of an adapter; default: the run's")
    flags.DEFINE_string(
        "predictions", None, "file with answers of any system: JSON or CSV"
    )
    flags.DEFINE_list(
        "predictions_keys",
        None,
        "their names of our keys, if they are not guessed: answer=model_output,…",
    )
    flags.DEFINE_string(
        "out", None, "folder of the report; default: evaluation/ in the run, or none"
    )
    flags.DEFINE_enum(
        "protocol",
        protocols.WHOLE,
        protocols.PROTOCOLS,
        "one answer a song, or one to every second minute",
    )
    flags.DEFINE_string("json", None, "file for the scores alone, in percent")
    flags.DEFINE_string("bertscore", None, "model of BERTScore: a name or a folder")
    flags.DEFINE_integer(
        "bertscore_layer",
        None,
        "its layer, if bert_score does not know it",
        lower_bound=1,
    )
    distributed.define_flags()
    cli.run(main)

"""What a trained adapter hears, or what anyone's answers are worth, against controls.

    python -m musilingo_jax.evaluate --config=configs/tiny.py
    python -m musilingo_jax.evaluate --predictions=answers.jsonl --json=scores.json

The first asks the questions of the test split, with each clip's own music, with another
clip's, with silence and with nothing (`controls.py`). What is right without the music
comes from the question and from habit, not from listening. The second scores answers
that were given elsewhere (`predictions.py`), with the controls that need no model.

Scores, intervals and controls go to `<run>/evaluation`, or to `--out`: report.html and
report.md to read, report.json, examples.jsonl (a line per answer, with its scores) and,
of a model, answers.jsonl. An interrupted evaluation goes on where it was. Several
processes (`--distributed`) share the questions.
"""

import json
import sys
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict

from musilingo_jax.answering import corpus_answers
from musilingo_jax.answering.answer import load_answerer
from musilingo_jax.answering.answer_file import Ask, files_of
from musilingo_jax.audio.cache import feature_cache
from musilingo_jax.corpora import mixture
from musilingo_jax.evaluation import answered_questions, controls, report, scoring
from musilingo_jax.evaluation.answered_questions import AnsweredQuestion
from musilingo_jax.evaluation.metrics import facts, wording
from musilingo_jax.evaluation.report import About
from musilingo_jax.evaluation.scoring import Scored
from musilingo_jax.runtime import cli, distributed
from musilingo_jax.runtime.compilation_cache import keep_compiled_programs
from musilingo_jax.runtime.errors import UsageError, UserError
from musilingo_jax.runtime.paths import check_writable_file, check_writable_folder
from musilingo_jax.runtime.storage import write_text

_ANSWERS = "answers.jsonl"
# Of the bootstrap and the shuffle where there is no config to say it.
_SEED = 0


def evaluate(
    config: ConfigDict,
    adapter: str | None,
    out: Path | None,
    *,
    bertscore: str | None = None,
    layer: int | None = None,
) -> tuple[Path, Scored | None]:
    """Asks, scores and reports.

    Args:
      config: the experiment.
      adapter: folder or embedded name of an adapter; None for the run's.
      out: folder of the report; None for `<run>/evaluation`.
      bertscore: the model of BERTScore; None for none.
      layer: its layer; None for the one its authors chose.

    Returns:
      The folder, and the scores; None on all processes but the first. Answers that the
      folder already holds are taken over.

    Raises:
      UserError: there is no adapter or test split, a part cannot be read, the model of
        BERTScore cannot be used, or the folder holds answers of another adapter or
        configuration.
    """
    if config.seed < 0:
        raise UserError(f"config.seed is {config.seed}: it must be 0 or more")
    adapter = corpus_answers.adapter_of(config, adapter)
    model = corpus_answers.model_of(config, adapter)
    folder = out or Path(config.run) / "evaluation"
    check_writable_folder(folder, flag="--out")
    split = config.corpus.test_split
    file = corpus_answers.open_answers(folder / _ANSWERS, config, adapter, split)
    # Before hours of answering, for it may not be there.
    parts = _parts(bertscore, layer) if jax.process_index() == 0 else None
    mesh = corpus_answers.mesh_of(config)
    test = mixture.split(config.corpus, split, answered=True)
    features = feature_cache.prepare(config, test, mesh)
    records = corpus_answers.askable(config, test, features.ids)
    hear = controls.heard_features(features.features, records[0].clip)
    asks = {scoring.OWN: [Ask(r, heard=r.clip) for r in records]}
    asks |= controls.asks(records, features.features, config.seed)
    every = list(dict.fromkeys(ask for each in asks.values() for ask in each))
    speaker = load_answerer(model, config.features.window_frames, mesh)
    corpus_answers.answer_corpus(speaker, config, every, hear, file, mesh)
    if jax.process_index() != 0:
        return folder, None

    said = {name: [file.answer(ask) for ask in each] for name, each in asks.items()}
    rows = list(map(AnsweredQuestion.of, records, said.pop(scoring.OWN)))
    corpus = mixture.load(config.corpus)
    training = [r for r in corpus if r.split == config.corpus.train_split and r.answer]
    known = [AnsweredQuestion.of(r, "") for r in training]
    scored = scoring.score(
        rows,
        _with_deaf(rows, known, said, config.seed),
        facts.vocabulary((r.attribute, r.value) for r in corpus),
        parts,
        seed=config.seed,
        progress=cli.progress,
    )
    trained_on = {r.clip for r in training}
    about = About(
        title=f"{adapter} on {mixture.title(config.corpus)} ({split})",
        left_out=len(test) - len(records),
        not_held_out=len({r.clip for r in records} & trained_on),
        identity=corpus_answers.identity(config, adapter),
        config=json.loads(config.to_json_best_effort()),
    )
    _write(folder, about, scored)
    return folder, scored


def evaluate_predictions(
    path: Path, out: Path | None, *, bertscore: str | None, layer: int | None
) -> tuple[str, Scored]:
    """Scores anyone's answers.

    Args:
      path: the file, as `predictions.read` takes it.
      out: folder of the report; None for no report.
      bertscore: the model of BERTScore; None for none.
      layer: its layer; None for the one its authors chose.

    Returns:
      The report as text, and the scores.

    Raises:
      UserError: the file cannot be read, the model of BERTScore cannot be used, or the
        folder holds the answers of another system.
    """
    rows = answered_questions.read(path)
    if out is not None:
        check_writable_folder(out, flag="--out")
        for held in files_of(out / _ANSWERS):
            if not held.samefile(path):
                raise UserError(
                    f"{held} holds the answers of another system, which a report on "
                    f"{path} would not fit: give another --out, or delete it"
                )
    parts = _parts(bertscore, layer)
    scored = scoring.score(
        rows,
        _with_deaf(rows, rows, {}, _SEED),
        facts.vocabulary((row.attribute, row.value) for row in rows),
        parts,
        seed=_SEED,
        progress=cli.progress,
    )
    about = About(path.name, left_out=0, not_held_out=0, identity={}, config={})
    if out is not None:
        _write(out, about, scored)
    return report.markdown(about, scored), scored


def _with_deaf(
    rows: list[AnsweredQuestion],
    known: list[AnsweredQuestion],
    said: dict[str, list[str]],
    seed: int,
) -> dict[str, list[str | None]]:
    """All controls in the order of reports: with those that need no model."""
    every = {
        **said,
        "shuffled": controls.shuffled(rows, seed),
        "constant": controls.constant(rows, known, seed),
    }
    return {name: every[name] for name in controls.LABELS if name in every}


def _parts(bertscore: str | None, layer: int | None) -> wording.WordingModels:
    """What metrics need; says at once what is not there.

    Raises:
      UserError: a model of BERTScore was named, but cannot be used.
    """
    parts = wording.find_parts(bertscore, layer)
    for name, reason in parts.absent.items():
        if name == "honest.bertscore":
            if bertscore is not None:
                raise UserError(
                    f"--bertscore={bertscore}: {reason}; or leave the flag out"
                )
        elif name.startswith("honest."):
            print(
                f"{name.removeprefix('honest.')} is not computed: {reason}",
                file=sys.stderr,
            )
    return parts


def _write(folder: Path, about: About, scored: Scored) -> None:
    """Writes the report.

    Raises:
      UserError: it cannot be written.
    """
    try:
        report.write(folder, about, scored)
    except OSError as error:
        raise UserError(
            f"{folder}: the report cannot be written ({error.strerror}); the answers "
            "are kept: make room, and the same command scores them"
        ) from error


def _check_flags() -> None:
    """Checks that no flag is given that would not be looked at.

    Raises:
      UsageError: there is one.
    """
    given = flags.FLAGS
    if (given.config is None) == (given.predictions is None):
        raise UsageError(
            "say what to evaluate, either --config=configs/tiny.py or "
            "--predictions=answers.jsonl"
        )
    if given.predictions is not None:
        for name in ("adapter", *distributed.FLAGS):
            if given[name].present:
                raise UsageError(
                    f"--predictions scores answers that were given before, by one "
                    f"process: --{name} goes with --config"
                )
    if given.bertscore_layer is not None and given.bertscore is None:
        raise UsageError("--bertscore_layer is a layer of --bertscore: give both")


def main(argv: list[str]) -> None:
    """Reads the flags and evaluates."""
    if argv[1:]:
        raise UsageError(f"unknown argument {argv[1]!r} (try --help)")
    _check_flags()
    given = flags.FLAGS
    out = Path(given.out) if given.out else None
    if given.json is not None:
        check_writable_file(Path(given.json), flag="--json")
    how = {"bertscore": given.bertscore, "layer": given.bertscore_layer}
    if given.predictions is not None:
        text, scored = evaluate_predictions(Path(given.predictions), out, **how)
        folder = out
    else:
        distributed.start()
        keep_compiled_programs()
        folder, scored = evaluate(given.config, given.adapter, out, **how)
        text = None if scored is None else (folder / "report.md").read_text("utf-8")
    if scored is None:
        return
    print(text)
    if given.json is not None:
        content = json.dumps(report.summary(scored), indent=2, ensure_ascii=False)
        try:
            write_text(Path(given.json), content + "\n")
        except OSError as error:
            raise UserError(
                f"--json={given.json} cannot be written: {error.strerror}"
            ) from error
    if folder is not None:
        print(f"report and answers are in {folder}: open {folder / 'report.html'}")


if __name__ == "__main__":
    # Here and not above, so that other programs can import this one's functions.
    cli.define_config()
    distributed.define_flags()
    flags.DEFINE_string("adapter", None, "folder of an adapter; default: the run's")
    flags.DEFINE_string("predictions", None, "JSON lines of anyone's answers to score")
    flags.DEFINE_string(
        "out", None, "folder of the report; default: <run>/evaluation, or none"
    )
    flags.DEFINE_string("json", None, "file for the scores alone, in percent")
    flags.DEFINE_string("bertscore", None, "model of BERTScore: a name or a folder")
    flags.DEFINE_integer(
        "bertscore_layer", None, "its layer, where it is not known", lower_bound=1
    )
    cli.run(main)

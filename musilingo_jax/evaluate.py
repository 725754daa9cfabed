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
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
from absl import flags
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from musilingo_jax import (
    cache,
    cli,
    controls,
    distributed,
    generate,
    predictions,
    report,
    scoring,
)
from musilingo_jax.answers import AnswerFile, Ask, fingerprint
from musilingo_jax.compilation import keep_compiled_programs
from musilingo_jax.corpora import mixture
from musilingo_jax.errors import UsageError, UserError
from musilingo_jax.files import write_whole
from musilingo_jax.metrics import facts, wording
from musilingo_jax.predictions import Row
from musilingo_jax.report import About
from musilingo_jax.scoring import Scored
from musilingo_jax.sharding import make_mesh
from musilingo_jax.sources import ModelConfig
from musilingo_jax.speaker import Features

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
      folder already holds are taken over if they are of this very adapter and
      configuration, else replaced.

    Raises:
      UserError: there is no adapter, no test split, or a part cannot be read.
    """
    if config.seed < 0:
        raise UserError(f"config.seed is {config.seed}: it must be 0 or more")
    adapter = generate.adapter_of(config, adapter)
    folder = out or Path(config.run) / "evaluation"
    identity = generate.identity(config, adapter)
    mesh = _mesh(config)
    test = mixture.split(config.corpus, config.corpus.test_split, answered=True)
    features = cache.prepare(config, test, mesh)
    records = generate.askable(config, test, features.ids)
    hear = controls.heard_features(features.features, records[0].clip)
    asks = {scoring.OWN: [Ask(r, heard=r.clip) for r in records]}
    asks |= controls.asks(records, features.features, config.seed)
    model = replace(ModelConfig.from_config(config), adapter=adapter)
    said = _answers(config, model, asks, hear, folder, fingerprint(identity), mesh)
    if jax.process_index() != 0:
        return folder, None
    parts = _parts(bertscore, layer)

    rows = list(map(Row.of, records, said.pop(scoring.OWN)))
    corpus = mixture.load(config.corpus)
    training = [r for r in corpus if r.split == config.corpus.train_split and r.answer]
    known = [Row.of(r, "") for r in training]
    scored = scoring.score(
        rows,
        _with_deaf(rows, known, said, config.seed),
        facts.vocabulary((r.attribute, r.value) for r in corpus),
        parts,
        seed=config.seed,
        progress=cli.progress,
    )
    trained_on = {r.clip for r in training}
    split = f"{mixture.title(config.corpus)} ({config.corpus.test_split})"
    about = About(
        title=f"{adapter} on {split}",
        left_out=len(test) - len(records),
        not_held_out=len({r.clip for r in records} & trained_on),
        identity=identity,
        config=json.loads(config.to_json_best_effort()),
    )
    report.write(folder, about, scored)
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
      UserError: the file cannot be read.
    """
    rows = predictions.read(path)
    scored = scoring.score(
        rows,
        _with_deaf(rows, rows, {}, _SEED),
        facts.vocabulary((row.attribute, row.value) for row in rows),
        _parts(bertscore, layer),
        seed=_SEED,
        progress=cli.progress,
    )
    about = About(path.name, left_out=0, not_held_out=0, identity={}, config={})
    if out is not None:
        report.write(out, about, scored)
    return report.markdown(about, scored), scored


def _with_deaf(
    rows: list[Row], known: list[Row], said: dict[str, list[str]], seed: int
) -> dict[str, list[str | None]]:
    """All controls in the order of reports: with those that need no model."""
    every = {
        **said,
        "shuffled": controls.shuffled(rows, seed),
        "constant": controls.constant(rows, known, seed),
    }
    return {name: every[name] for name in controls.LABELS if name in every}


def _answers(
    config: ConfigDict,
    model: ModelConfig,
    asks: dict[str, list[Ask]],
    hear: Callable[[str], Features],
    folder: Path,
    made_by: str,
    mesh: jax.sharding.Mesh,
) -> dict[str, list[str]]:
    """All answers, by control; each process gives its share of them.

    answers.jsonl            by one process, and in the end
    answers-1-of-4.jsonl     by the second of four, until all of them are done
    """
    whole = folder / "answers.jsonl"
    process, processes = jax.process_index(), jax.process_count()
    part = whole
    if processes > 1:
        part = folder / f"answers-{process}-of-{processes}.jsonl"
    found = sorted(folder.glob("answers*.jsonl"))
    others = [path for path in found if path != part]
    file = AnswerFile(part, made_by, replace=True, also=others)
    every = list(dict.fromkeys(ask for each in asks.values() for ask in each))
    share = every[process::processes]
    speaker = generate.load_speaker(model, config.features.window_frames, mesh)
    generate.answer_corpus(speaker, config, share, hear, file, mesh)
    if processes > 1:
        multihost_utils.sync_global_devices("answered")
        if process != 0:
            return {}
    parts = sorted(folder.glob("answers-*-of-*.jsonl"))
    merged = AnswerFile(whole, made_by, replace=True, also=parts)
    merged.finish(every)
    for path in parts:
        path.unlink()
    return {
        control: [merged.answer(ask) for ask in each] for control, each in asks.items()
    }


def _mesh(config: ConfigDict) -> jax.sharding.Mesh:
    """The mesh of the config, in this process's own devices.

    Each of several processes holds a whole model, and answers without waiting for the
    others.
    """
    return make_mesh(**config.mesh, devices=jax.local_devices())


def _parts(bertscore: str | None, layer: int | None) -> wording.Parts:
    """What metrics need; says at once what is not there."""
    parts = wording.find_parts(bertscore, layer)
    for name, reason in parts.absent.items():
        if name.startswith("honest.") and (bertscore or "bertscore" not in name):
            print(
                f"{name.removeprefix('honest.')} is not computed: {reason}",
                file=sys.stderr,
            )
    return parts


def main(argv: list[str]) -> None:
    """Reads the flags and evaluates."""
    if argv[1:]:
        raise UsageError(f"unknown argument {argv[1]!r} (try --help)")
    given = flags.FLAGS
    if (given.config is None) == (given.predictions is None):
        raise UsageError(
            "say what to evaluate, either --config=configs/tiny.py or "
            "--predictions=answers.jsonl"
        )
    out = Path(given.out) if given.out else None
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
    if given.json:
        content = json.dumps(report.summary(scored), indent=2, ensure_ascii=False)
        try:
            write_whole(Path(given.json), content + "\n")
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
    flags.DEFINE_integer("bertscore_layer", None, "its layer, where it is not known")
    cli.run(main)

r"""What a model says of recordings, measured against controls.

    make measure
    python -m musilingo_jax.recipes.measure --config=configs/real_songs.py \
        --config.model.pretrained=build/tiny/model --log=build/tiny/log.json

Writes below `<run>/evaluation`: a report of `evaluate` for agreement with the teachers
and one for file facts; `real_songs.md` and `real_songs.json`: the gain test, confidence
against correctness, the answers about ten songs beside what is known of them, and, from
the log of a recipe, how far its student agreed with the teachers, tag by tag; and
`reliability.svg`. Songs and answers that are there already are not made again.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from jaxtyping import Float
from ml_collections import ConfigDict

from musilingo_jax.answering import chat_templates
from musilingo_jax.answering.answerer import load_answerer
from musilingo_jax.answering.config import GenerateConfig
from musilingo_jax.answering.listener import Listener
from musilingo_jax.answering.model import Model
from musilingo_jax.answering.question_format import question_format
from musilingo_jax.answering.usage import Usage
from musilingo_jax.audio.cache import feature_cache, recorded_type
from musilingo_jax.audio.features import FeatureConfig
from musilingo_jax.corpora import fact_questions, mixture
from musilingo_jax.corpora.facts import FACTS
from musilingo_jax.corpora.records import Record
from musilingo_jax.evaluation.evaluate_model import evaluate
from musilingo_jax.evaluation.scoring import Scored
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.pretrained import embedded_models, sources, weights
from musilingo_jax.pretrained.model_config import ModelConfig
from musilingo_jax.recipes import confidence, measured_songs
from musilingo_jax.recipes.excerpts import RecordedSet
from musilingo_jax.recipes.lessons import SOUNDS
from musilingo_jax.recipes.measured_songs import (
    FILE_FACTS,
    TEACHERS,
    VOICES,
    MeasureConfig,
)
from musilingo_jax.recipes.soundfont import SAMPLE_RATE
from musilingo_jax.runtime import cli, platforms
from musilingo_jax.runtime.errors import UsageError, UserError
from musilingo_jax.runtime.json_files import read_json
from musilingo_jax.runtime.printable import printable
from musilingo_jax.runtime.settings import read_section
from musilingo_jax.runtime.sharding import make_mesh
from musilingo_jax.runtime.storage import write_text

# What is asked about the songs that are shown.
_SHOWN = ("family", "vocals", "drums", "beats", "energy")
_CONTROLS = ("shuffled_audio", "constant")


def main(argv: list[str]) -> None:
    """Measures, writes the reports, and prints the last one."""
    if argv[1:]:
        raise UsageError(f"unknown argument {argv[1]!r} (try --help)")
    config = cli.required_config("run", "corpus", "features", "model", "measure")
    platforms.start()
    embedded_models.settle(config)
    chat_templates.settle(config)
    recorded_type.settle(config)
    given = flags.FLAGS
    folder = measure(
        config,
        music=Path(given.music),
        packages=Path(given.teachers),
        log=Path(given.log) if given.log else None,
    )
    print(printable((folder / "real_songs.md").read_text("utf-8")))
    print(f"The reports are in {folder}")


def measure(
    config: ConfigDict, *, music: Path, packages: Path, log: Path | None
) -> Path:
    """Writes the reports, and returns their folder.

    Args:
      config: as of `configs/real_songs.py`, its model settled.
      music: the folder of the recordings' packages.
      packages: the folder of the teachers' packages.
      log: of the recipe that made the model; None for none.

    Raises:
      UserError: a package is missing, or a part of the model cannot be read.
    """
    numbers = read_section(MeasureConfig, config.measure, "config.measure")
    parts = ModelConfig.from_config(config)
    encoder = sources.find(parts.encoder, "encoder")
    recorded, facts = measured_songs.write(
        numbers, music, packages, MertConfig.from_dict(dict(encoder.config))
    )
    folder = Path(config.run) / "evaluation"
    scored = {}
    for name in (TEACHERS, FILE_FACTS, VOICES):
        each = config.copy_and_resolve_references()
        each.corpus.path = f"{numbers.work}/{name}/songs.jsonl"
        lines = Path(each.corpus.path).read_text("utf-8").splitlines()
        if len({json.loads(line)["audio"] for line in lines}) < 2:
            # Without another song there is no control.
            print(f"{each.corpus.path}: the teachers are sure of too few songs")
            continue
        each.features.cache = f"{config.run}/cache/{name}"
        _, scored[name] = evaluate(each, parts.adapter, folder / name)
        config = each if name == TEACHERS else config
    found: dict[str, Any] = {
        name: _scores(each) for name, each in scored.items() if each is not None
    }
    with model_of(config, parts) as model:
        found["gain"] = gain_test(model, recorded, facts, numbers)
        found["confidence"] = _confidence(model, config, numbers, folder)
        shown = _shown(model, recorded, facts, numbers)
    if log is not None:
        found["agreement"] = read_json(log)["encoder"]["agreement"]
    text = json.dumps({**found, "shown": shown}, indent=1, ensure_ascii=False)
    write_text(folder / "real_songs.json", text + "\n")
    write_text(folder / "real_songs.md", _report(found, shown))
    return folder


def model_of(config: ConfigDict, parts: ModelConfig) -> Model:
    """The model that a config describes, asked as its last stage asks.

    Raises:
      UserError: a part cannot be read, or no stage asks questions.
    """
    stage = question_format(config, "a question")
    if stage is None:
        raise UserError("config.stages: none of them learns from questions; add one")
    usage = Usage(
        model=parts,
        prompt=stage.prompt,
        max_windows=stage.max_windows,
        max_tokens=stage.max_tokens,
        features=FeatureConfig.from_config(config),
        generate=GenerateConfig.from_config(config),
        earlier_turns=0,
    )
    mesh = make_mesh(data=1, fsdp=1, tensor=1)
    mert = weights.load_encoder(parts.encoder, dtype=parts.dtype, mesh=mesh)
    return Model(
        Listener(mert, usage.features, usage.max_windows, mesh),
        load_answerer(parts, usage.features, mesh),
        usage,
        rows=16,
    )


def gain_test(
    model: Model,
    recorded: RecordedSet,
    facts: Sequence[dict[str, str]],
    numbers: MeasureConfig,
) -> dict[str, dict[str, float]]:
    """Share of answers that change with a song's level.

    Each song has its peak at 0.9 of full scale before. "cut off" is what a file of 16
    bits keeps of the louder copy; "float" keeps all.
    """
    rng = np.random.default_rng([numbers.seed, 5])
    asked = [fact_questions.short({}, f, rng)[0] for f in fact_questions.OF_RECORDINGS]
    music = [row for row, known in enumerate(facts) if known["sound"] == SOUNDS[0]]
    rows = music[:: max(1, len(music) // numbers.gain_songs)][: numbers.gain_songs]

    def answers(gain: float, *, cut_off: bool) -> list[str]:
        songs: list[Any] = []
        for row in rows:
            song = recorded.heard(row)
            song = song * np.float32(0.9 * gain / np.abs(song).max())
            if cut_off:
                song = np.round(np.clip(song, -1, 1) * 32767).astype(np.int16)
            songs.append((song, SAMPLE_RATE))
        return [text for each in model.ask(songs, asked) for text in each]

    before = answers(1.0, cut_off=True)
    found: dict[str, dict[str, float]] = {}
    for gain in numbers.gains:
        for name, cut_off in (("cut off", True), ("float", False)):
            after = answers(gain, cut_off=cut_off)
            changed = [a != b for a, b in zip(before, after, strict=True)]
            found.setdefault(f"{gain:g}", {})[name] = float(np.mean(changed))
    return found


def _confidence(
    model: Model, config: ConfigDict, numbers: MeasureConfig, folder: Path
) -> dict[str, Any]:
    """Confidence against correctness, where the teachers are sure."""
    records = mixture.split(config.corpus, config.corpus.test_split, answered=True)
    mesh = make_mesh(**config.mesh)
    features = feature_cache.prepare(config, records, mesh)
    asked: list[Record] = [r for r in records if r.attribute in FACTS and r.value]
    heard: list[tuple[Float[np.ndarray, "windows width"], str]] = []
    for record in asked:
        windows = features.features(record.clip)[: model.usage.max_windows]
        heard.append((windows, record.question))
    judged = confidence.judge(
        model.answerer,
        model.usage.prompt,
        heard,
        [(str(r.attribute), str(r.value)) for r in asked],
        model.usage.generate,
        draws=numbers.draws,
    )
    rows = confidence.table(judged)
    confidence.plot(rows, folder / "reliability.svg")
    return {
        "bins": rows,
        "unsure": float(1 - judged.named.mean()),
        "right_when_named": float(judged.right[judged.named].mean())
        if judged.named.any()
        else 0.0,
    }


def _shown(
    model: Model,
    recorded: RecordedSet,
    facts: Sequence[dict[str, str]],
    numbers: MeasureConfig,
) -> list[dict[str, Any]]:
    """Answers about songs that a seed has chosen, beside what is known of them."""
    rng = np.random.default_rng([numbers.seed, 6])
    music = [row for row, known in enumerate(facts) if known["sound"] == SOUNDS[0]]
    chosen = rng.permutation(music)[: numbers.shown]
    questions = [fact_questions.short({}, fact, rng)[0] for fact in _SHOWN]
    found = []
    for row in map(int, chosen):
        song: Any = (recorded.heard(row), SAMPLE_RATE)
        answers = model.ask(song, questions)
        found.append(
            {
                "song": f"{recorded.packages[row]}: {recorded.paths[row].name}",
                "caption": model.caption(song),
                "answers": dict(zip(questions, answers, strict=True)),
                "teachers": facts[row],
                "wrong": [
                    fact
                    for fact, text in zip(_SHOWN, answers, strict=True)
                    if fact in facts[row] and not _names(text, fact, facts[row][fact])
                ],
            }
        )
    return found


def _names(text: str, fact: str, value: str) -> bool:
    return fact_questions.stated_value(text, fact) == value


def _scores(scored: Scored) -> dict[str, dict[str, float]]:
    """Percent of the answers that are right, beside controls, by fact."""
    found = {}
    for line in scored.lines:
        if line.section != "factual" or line.own is None:
            continue
        found[line.name] = {
            "answers": line.rows,
            "own": 100 * line.own.value,
            **{
                name: 100 * estimate.value
                for name in _CONTROLS
                if (estimate := line.controls.get(name)) is not None
            },
            "above": float(line.beats_controls),
        }
    return found


def _report(found: dict[str, Any], shown: Sequence[dict[str, Any]]) -> str:
    """All of it as Markdown."""
    lines = ["# Real songs", ""]
    titles = {
        TEACHERS: "Agreement with the teachers, where these are sure, in percent",
        FILE_FACTS: "Against charts and titles, in percent",
        VOICES: "Songs with and without a voice that was made, in percent",
    }
    for name, title in titles.items():
        lines += [f"## {title}", ""]
        lines += ["| | answers | own | another song's | constant | above controls |"]
        lines += ["| --- | --- | --- | --- | --- | --- |"]
        for fact, row in found.get(name, {}).items():
            numbers = [
                f"{row[n]:.1f}" if n in row else "–" for n in ("own", *_CONTROLS)
            ]
            above = "yes" if row["above"] else "no"
            cells = [fact, f"{row['answers']:.0f}", *numbers, above]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    lines += ["## Answers that change with the level, in percent", ""]
    for gain, row in found["gain"].items():
        parts = ", ".join(f"{name} {100 * share:.1f}" for name, share in row.items())
        lines.append(f"- × {gain}: {parts}")
    sure = found["confidence"]
    lines += [
        "",
        "## Confidence against correctness",
        "",
        f"{100 * sure['unsure']:.1f} % of the answers name no value; of the others "
        f"{100 * sure['right_when_named']:.1f} % agree with the teachers.",
        "",
        "| confidence | answers | mean | share right |",
        "| --- | --- | --- | --- |",
    ]
    for row in sure["bins"]:
        lines.append(
            f"| {row['from']:g} to {row['to']:g} | {row['answers']} | "
            f"{row['confidence']:.2f} | {row['right']:.2f} |"
        )
    for tagger, tags in found.get("agreement", {}).items():
        lines += ["", f"## Correlation with {tagger}, over songs", ""]
        lines.append(f"mean {tags['mean']:.3f}, other songs {tags['shuffled']:.3f}")
        names = sorted(tags.keys() - {"mean", "shuffled"}, key=lambda n: -tags[n])
        lines += ["", ", ".join(f"{name} {tags[name]:.2f}" for name in names)]
    lines += ["", "## Songs that were drawn", ""]
    for each in shown:
        lines += [f"**{each['song']}**: {each['caption']}", ""]
        for question, text in each["answers"].items():
            lines.append(f"- {question} {text}")
        known = ", ".join(value for value in each["teachers"].values())
        wrong = ", ".join(each["wrong"]) or "none that the teachers know of"
        lines += [f"- *teachers:* {known}; *wrong:* {wrong}", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    cli.define_config()
    flags.DEFINE_string("music", "build/music", "folder of the recordings' packages")
    flags.DEFINE_string(
        "teachers", "build/teachers", "folder of the teachers' packages"
    )
    flags.DEFINE_string("log", None, "log.json of the recipe that made the model")
    cli.run(main)

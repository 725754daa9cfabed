"""Lines of scores → report.md to read and report.json with the same numbers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from musilingo_jax.benchmarks.item import Benchmark, Row
from musilingo_jax.benchmarks.scores import CONSTANT, Line
from musilingo_jax.evaluation import controls
from musilingo_jax.evaluation.estimates import Estimate
from musilingo_jax.runtime.printable import escape

LABELS = {
    "shuffled_audio": "another song",
    "noise": "noise",
    **{name: controls.LABELS[name] for name in ("silence", "no_audio", CONSTANT)},
}


@dataclass(frozen=True)
class About:
    """What a report is about, besides the scores.

    Attributes:
      benchmark: which one.
      model: its name, and a fingerprint of its parts.
      asked: how many questions were asked.
      of: how many there are in the published files, or in `--limit` of them.
      shuffles: how often each multiple choice was asked.
      seed: of orders of options, of other songs and of the bootstrap.
      lacking: questions without a sound, id → why.
      failed: songs that could not be read, why.
      notices: what is odd about songs that were heard.
      cut: answers that were cut, perhaps in the middle of a sentence.
      unscored: reasons why options have no likelihood, with how many.
      absent: score of wording → why it is not computed.
      files: what was written for the benchmark's own scorer.
    """

    benchmark: Benchmark
    model: str
    asked: int
    of: int
    shuffles: int
    seed: int
    lacking: Mapping[str, str]
    failed: Sequence[str]
    notices: Sequence[str]
    cut: int
    unscored: Mapping[str, int]
    absent: Mapping[str, str]
    files: Sequence[str]


def as_json(about: About, lines: Sequence[Line]) -> str:
    """All numbers; scores between 0 and 1."""
    content = {
        "benchmark": about.benchmark.name,
        "model": about.model,
        "asked": about.asked,
        "questions": about.of,
        "shuffles": about.shuffles,
        "seed": about.seed,
        "cut": about.cut,
        "unscored": dict(about.unscored),
        "absent": dict(about.absent),
        "lacking": dict(about.lacking),
        "failed": list(about.failed),
        "notices": list(about.notices),
        "files": list(about.files),
        "scores": [_numbers(line) for line in lines],
        "published": [row._asdict() for row in about.benchmark.rows],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def markdown(about: About, lines: Sequence[Line]) -> str:
    """The report as a page."""
    whole = [line for line in lines if not line.group]
    parts = [
        f"# {escape(about.benchmark.title)}",
        f"{escape(about.model)}: {about.asked:,} of {about.of:,} questions"
        + f", each in {about.shuffles} orders of its options" * (about.shuffles > 1)
        + ".",
        _table(whole),
        "Percent, with intervals of 95 %: Wilson's of right and wrong answers, which "
        "are not independent if they are about one song, a bootstrap of songs for "
        "others. ✗: not significantly above every control, so no evidence that the "
        "model listens. Controls have the same questions, asked without the song.",
        "\n".join(
            f"- **{line.score.label}** ({line.score.rule}): {line.score.says}."
            for line in whole
        ),
        "## Published",
        "Scores that others report; they are comparable only by the same rule, on all "
        "questions.",
        _published(about.benchmark.rows, whole),
    ]
    groups = sorted({line.group for line in lines if line.group})
    if groups:
        parts.append("## Groups")
        for group in groups:
            parts.append(f"### {escape(group)}")
            parts.append(_table([line for line in lines if line.group == group]))
    parts += _left_out(about)
    return "\n\n".join(parts) + "\n"


def _table(lines: Sequence[Line]) -> str:
    """A row for each score: own with its interval, and each control."""
    used = [name for name in LABELS if any(name in line.controls for line in lines)]
    head = ["", "questions (songs)", "own", "95 %", *(LABELS[name] for name in used)]
    rows = [_row(head), _row(["---", *["---:"] * (len(head) - 1)])]
    for line in lines:
        is_marked = line.score.is_evidence and line.gains and not line.beats_controls
        mark = " ✗" if is_marked else ""
        cells = [
            line.score.label + mark,
            f"{line.items:,} ({line.clips:,})",
            f"**{100 * line.own.value:.1f}**",
            _interval(line.own),
            *(_percent(line.controls.get(name)) for name in used),
        ]
        rows.append(_row(cells))
    return "\n".join(rows)


def _published(published: Sequence[Row], lines: Sequence[Line]) -> str:
    """Published scores, and this model's beside them."""
    rows = [_row(["", "score", "%", "source"]), _row(["---", "---", "---:", "---"])]
    rows += [
        _row(["**this model**", line.score.label, _percent(line.own), ""])
        for line in lines
        if any(row.score == line.score.label for row in published)
    ]
    rows += [
        _row([escape(row.system), row.score, f"{row.percent:g}", escape(row.source)])
        for row in published
    ]
    return "\n".join(rows)


def _left_out(about: About) -> list[str]:
    """What is missing from the scores, and why."""
    parts = []
    if about.cut:
        parts.append(
            f"{about.cut:,} answers were cut after as many tokens as the model's "
            "settings allow, perhaps before they chose."
        )
    reasons = {**about.absent, **{k: f"{n:,} ×" for k, n in about.unscored.items()}}
    if reasons:
        parts.append("## Not computed")
        parts.append(_bullets([f"{name}: {why}" for name, why in reasons.items()]))
    if about.lacking or about.failed:
        parts.append("## Left out")
        lacking = [f"{id}: {why}" for id, why in about.lacking.items()]
        parts.append(_bullets([*lacking, *about.failed]))
    if about.notices:
        parts += ["## Songs", _bullets(about.notices)]
    if about.files:
        names = ", ".join(f"`{name}`" for name in about.files)
        parts.append(f"For the benchmark's own scorer: {names}.")
    return parts


def _bullets(texts: Sequence[str]) -> str:
    return "\n".join(f"- {escape(text)}" for text in texts)


def _numbers(line: Line) -> dict[str, Any]:
    return {
        "score": line.score.name,
        "label": line.score.label,
        "rule": line.score.rule,
        "group": line.group,
        "questions": line.items,
        "songs": line.clips,
        "own": vars(line.own),
        "controls": {name: vars(each) for name, each in line.controls.items()},
        "gains": {name: vars(each) for name, each in line.gains.items()},
        "beats_controls": line.beats_controls,
    }


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _percent(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{100 * estimate.value:.1f}"


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"– ({estimate.reason})"
    return f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}"

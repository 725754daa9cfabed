"""Scores → a report to read, in Markdown."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from musilingo_jax.evaluation import answered_questions
from musilingo_jax.evaluation.controls import LABELS
from musilingo_jax.evaluation.estimates import Estimate, Gain
from musilingo_jax.evaluation.metrics import facts
from musilingo_jax.evaluation.metrics.intervals import FEWEST_CLIPS
from musilingo_jax.evaluation.published_scores import (
    LEGACY,
    MUCHOMUSIC,
    MUCHOMUSIC_SOURCE,
)
from musilingo_jax.evaluation.reading_guide import READING_RULES
from musilingo_jax.evaluation.score_table import OWN
from musilingo_jax.evaluation.scoring import Line, Scored
from musilingo_jax.runtime.printable import escape

# A summary lists no more names than this.
_MAX_NAMES = 12


@dataclass(frozen=True)
class About:
    """What a report is about.

    Attributes:
      title: what was evaluated, on which corpus.
      left_out: the number of records that could not be asked.
      not_held_out: the number of clips of songs that are also in the training split.
      identity: what the answers depend on; empty for answers from a file.
      config: the config of the experiment; empty for answers from a file.
      notes: what else a reader should know, one sentence each.
    """

    title: str
    left_out: int
    not_held_out: int
    identity: dict[str, Any]
    config: dict[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
      name: "summary", "facts", "kinds", "honest", "legacy" or "guide".
      title: its heading; the summary has the title of the report.
      text: the rest, in Markdown.
    """

    name: str
    title: str
    text: str


def markdown(about: About, scored: Scored) -> str:
    """The report as text, with all scores in percent."""
    summary, *others = sections(about, scored)
    parts = [f"# {escape(summary.title)}", summary.text]
    for section in others:
        parts += [f"## {section.title}", section.text]
    return "\n\n".join(parts) + "\n"


def sections(about: About, scored: Scored) -> list[Section]:
    """The parts of the report in their order; the first is the summary."""
    lines: dict[str, list[Line]] = {}
    for line in scored.lines:
        lines.setdefault(line.section, []).append(line)
    factual = lines.get("factual", [])
    found = [Section("summary", about.title, _summary(about, scored, factual))]
    if factual:
        text = _scores(factual)
        found.append(Section("facts", "Does it hear? Facts, by attribute", text))
    text = _scores(lines["kind"])
    found.append(Section("kinds", "Wording, by kind: ROUGE-L F1", text))
    text = "\n\n".join([_table(lines["honest"]), _diversity(scored)])
    found.append(Section("honest", "Wording of all answers: honest", text))
    text = "\n\n".join([_table(lines["legacy"]), _published(lines["legacy"], factual)])
    found.append(Section("legacy", "Wording of all answers: legacy", text))
    rules = [f"- **{name}**: {rule}" for name, rule in READING_RULES.items()]
    rules += [f"- **computed with** ({n}): {how}" for n, how in scored.notes.items()]
    found.append(Section("guide", "How to read this", "\n".join(rules)))
    return found


def interpretation(line: Line) -> str:
    """One sentence on whether a score shows that the system uses the music."""
    gains = line.known_gains
    above = [control for control, gain in gains.items() if gain.is_above]
    below = [control for control, gain in gains.items() if gain.is_below]
    chance = [control for control in gains if control not in (*above, *below)]
    parts = []
    if not gains:
        parts.append("there is no control to compare with, so it shows nothing")
    elif line.clips < FEWEST_CLIPS:
        parts.append(f"too few clips to tell ({line.clips})")
    elif len(above) == len(gains):
        least = _smallest_gain(gains.values())
        by = f"{100 * least.value:.1f} points or more"
        if least.low is not None:
            by = f"at least {100 * least.low:.1f} points (95 %)"
        parts.append(f"above every control, by {by}: this comes from the music")
    else:
        if above:
            parts.append(f"above {_labels(above)}")
        if below:
            parts.append(f"worse than {_labels(below)}")
        if chance:
            parts.append(
                f"not significantly above {_labels(chance)}: no sign that this comes "
                "from the music"
            )
    if line.contradicted:
        parts.append(
            f"{line.contradicted} references state another value than their own "
            "`value`: one of the two is mistaken"
        )
    if rest := line.unscorable - line.contradicted:
        why = "by this rule" if line.name.endswith(facts.PUBLISHED) else "clearly"
        parts.append(
            f"{rest} references do not state their value {why}, so that an answer in "
            "the same words counts as wrong"
        )
    return f"**{escape(line.name)}**{_mark(line)}: {'; '.join(parts)}."


def _summary(about: About, scored: Scored, factual: Sequence[Line]) -> str:
    clips = len({row.clip for row in scored.rows})
    size = f"{len(scored.rows)} answers about {clips} clips."
    paragraphs = [f"{size} {_verdict(factual)}"]
    if about.not_held_out:
        paragraphs.append(
            f"**Not held out:** {about.not_held_out} of the clips are of songs that "
            "are also in the training split. What is right about them may be "
            "remembered, not heard."
        )
    if about.left_out:
        paragraphs.append(
            f"**Left out:** {about.left_out} records of the split were left out: their "
            "songs cannot be read, or no stage of training uses their kind of question."
        )
    notes = answered_questions.notes(scored.rows)
    paragraphs += [f"**Note:** {escape(note)}" for note in (*about.notes, *notes)]
    return "\n\n".join(paragraphs)


def _verdict(factual: Sequence[Line]) -> str:
    """How many scores of facts are above all controls, and which are not."""
    if not factual:
        return "None of them can be checked for facts: the scores are about wording."
    read = [line for line in factual if line.is_fact]
    failed = [escape(line.name) for line in read if not line.beats_controls]
    passed = len(read) - len(failed)
    verdict = f"**{passed} of {len(read)} scores of facts are above every control.**"
    if failed:
        names = ", ".join(failed[:_MAX_NAMES])
        more = len(failed) - _MAX_NAMES
        verdict += f" Not above every one: {names}"
        verdict += f" and {more} more." if more > 0 else "."
    return verdict


def _scores(lines: Sequence[Line]) -> str:
    """A table of scores, and a sentence on each."""
    sentences = [f"- {interpretation(line)}" for line in lines]
    return "\n\n".join([_table(lines), "\n".join(sentences)])


def _table(lines: Sequence[Line]) -> str:
    """A row per score: own with its interval, each control, the smallest difference.

    Below it, what is not computed.
    """
    controls = list(lines[0].controls)
    has_counts = any(line.unanswered is not None for line in lines)
    head = ["", "answers (clips)", "own", "95 %", *(LABELS[c] for c in controls)]
    head += ["smallest difference (95 %)", *(["unanswered"] if has_counts else [])]
    rows = [_row(head), _row(["---", *["---:"] * (len(head) - 1)])]
    missing = []
    for line in lines:
        if line.own is None:
            missing.append(f"- **{escape(line.name)}** is not computed: {line.reason}")
            continue
        least = _smallest_gain(line.known_gains.values()) if line.known_gains else None
        difference = (
            ""
            if least is None
            else (f"{100 * least.value:+.1f} ({_range(least, sign=True)})")
        )
        cells = [
            escape(line.name) + _mark(line),
            f"{line.rows} ({line.clips})",
            f"**{100 * line.own.value:.1f}**",
            _range(line.own),
            *(_number(line.controls[control]) for control in controls),
            difference,
        ]
        rows.append(_row(cells + ([str(line.unanswered)] if has_counts else [])))
    return "\n".join([*rows, *([""] if missing else []), *missing])


def _diversity(scored: Scored) -> str:
    """A table of how varied and how long answers and references are."""
    rows = [_row(["", "distinct-1", "distinct-2", "words per answer"])]
    rows.append(_row(["---", "---:", "---:", "---:"]))
    labels = {OWN: "own", "reference": "references", **LABELS}
    for system, found in scored.diversity.items():
        shares = (found["distinct1"], found["distinct2"])
        cells = ["" if share is None else f"{100 * share:.1f}" for share in shares]
        words = "" if found["length"] is None else f"{found['length']:.1f}"
        rows.append(_row([labels[system], *cells, words]))
    return "\n".join(rows)


def _published(legacy: Sequence[Line], factual: Sequence[Line]) -> str:
    """A table of published scores, below our own."""
    own = {line.name: line.own for line in legacy}
    names = ("bleu", "meteor", "rouge_l", "bertscore")
    head = ["", "test corpus", "BLEU (B-U)", "METEOR (M-R)", "ROUGE-L (R-L)"]
    rows = [_row([*head, "BERTScore", "protocol", "source"])]
    rows.append(_row(["---", "---", *["---:"] * 4, "---", "---"]))
    rows.append(_row(["**this**", "", *(_number(own[n]) for n in names), "", ""]))
    for published in LEGACY:
        cells = [f"{getattr(published, name):g}" for name in names]
        cells += [escape(published.protocol), published.source]
        rows.append(_row([published.system, published.corpus, *cells]))
    parts = [
        "Published scores, which are comparable only on the same corpus and with the "
        "same protocol (`evaluate --protocol`):"
    ]
    parts.append("\n".join(rows))
    if any(line.name == "multiple_choice" for line in factual):
        scores = ", ".join(f"{name} {value}" for name, value in MUCHOMUSIC.items())
        parts.append(
            f"Multiple choice, {MUCHOMUSIC_SOURCE}: {scores}; random choice 25."
        )
    return "\n\n".join(parts)


def _row(cells: Sequence[str]) -> str:
    """A row of a table. A cell is Markdown; a `|` in it that is not escaped is text."""
    texts = [re.sub(r"(?<!\\)\|", r"\\|", " ".join(cell.split())) for cell in cells]
    return "| " + " | ".join(texts) + " |"


def _mark(line: Line) -> str:
    return "" if line.beats_controls else " ✗"


def _labels(controls: Sequence[str]) -> str:
    return ", ".join(LABELS[control] for control in controls)


def _smallest_gain(gains: Iterable[Gain]) -> Gain:
    """The gain with the smallest lower end, or value if it has no interval."""
    return min(gains, key=lambda gain: gain.value if gain.low is None else gain.low)


def _number(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{100 * estimate.value:.1f}"


def _range(estimate: Estimate, *, sign: bool = False) -> str:
    if estimate.low is None or estimate.high is None:
        return "–"
    plus = "+" if sign else ""
    return f"{100 * estimate.low:{plus}.1f} to {100 * estimate.high:{plus}.1f}"

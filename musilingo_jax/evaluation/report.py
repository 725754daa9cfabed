"""Scores → a report to compute with (JSON) and to read (Markdown).

`evaluation/html_page.py` makes of the same a page to look at and listen to.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from musilingo_jax.evaluation import answered_questions, html_page
from musilingo_jax.evaluation.controls import LABELS
from musilingo_jax.evaluation.estimates import Estimate, Gain
from musilingo_jax.evaluation.metrics import facts, wording
from musilingo_jax.evaluation.metrics.intervals import FEWEST_CLIPS
from musilingo_jax.evaluation.published_scores import (
    LEGACY,
    MUCHOMUSIC,
    MUCHOMUSIC_SOURCE,
)
from musilingo_jax.evaluation.reading_guide import READING_RULES
from musilingo_jax.evaluation.scoring import OWN, Line, Scored
from musilingo_jax.runtime.storage import write_text


@dataclass(frozen=True)
class About:
    """What a report is about.

    Attributes:
      title: what was evaluated on what.
      left_out: records that could not be asked.
      not_held_out: clips that are clips of the training split too.
      identity: what the answers depend on; empty for anyone's answers.
      config: the experiment; empty for anyone's answers.
    """

    title: str
    left_out: int
    not_held_out: int
    identity: dict[str, Any]
    config: dict[str, Any]


def write(folder: Path, about: About, scored: Scored) -> None:
    """Writes report.json, report.md, report.html and examples.jsonl.

    Args:
      folder: where to.
      about: what was evaluated.
      scored: how it went.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        **asdict(about),
        **_about_rows(scored),
        "scores": [_as_dict(line) for line in scored.lines],
        "diversity": scored.diversity,
        "computed_with": scored.notes,
        "rules": READING_RULES,
    }
    write_text(folder / "report.json", _json(content))
    text = markdown(about, scored)
    write_text(folder / "report.md", text)
    write_text(folder / "examples.jsonl", "".join(examples(scored)))
    html_page.write(folder / "report.html", text, scored)


def summary(scored: Scored) -> dict[str, Any]:
    """The scores alone, in percent, for other programs.

    A score that could not be computed is null, with `…_reason` beside it. `n` counts
    the answers, `repeated` those among them that have clip and question of an earlier
    one, and `inferred` those by attribute whose truth was read from the reference.
    """
    controls = [system for system in scored.answers if system != OWN]
    return {
        **_sections(scored, OWN),
        "controls": {control: _sections(scored, control) for control in controls},
        "n": len(scored.rows),
        **_about_rows(scored),
    }


def _about_rows(scored: Scored) -> dict[str, Any]:
    rows = scored.rows
    return {
        "inferred": answered_questions.inferred(rows),
        "repeated": answered_questions.repeated(rows),
    }


def _sections(scored: Scored, system: str) -> dict[str, dict[str, Any]]:
    """The three sections of one system's scores."""
    found = {"legacy": {}, "honest": {}, "factual": {}}
    present = {line.name for line in scored.lines if line.section == "factual"}
    for line in scored.lines:
        if line.section not in found:
            continue
        estimate = line.own if system == OWN else line.controls[system]
        section = found[line.section]
        section[line.name] = None if estimate is None else 100 * estimate.value
        if estimate is None:
            section[f"{line.name}_reason"] = line.reason or _no_control(system)
        elif line.name == "multiple_choice" and system == OWN:
            share = line.unanswered / line.rows
            section["multiple_choice_unanswered"] = 100 * share
    for name in facts.STANDARD:
        if name not in present:
            found["factual"][name] = None
            found["factual"][f"{name}_reason"] = facts.why_absent(name)
    said = scored.diversity[system]
    for name in ("distinct1", "distinct2"):
        found["honest"][name] = None if said[name] is None else 100 * said[name]
        if said[name] is None:
            spoke = said["length"] is not None
            reason = "no answer has as many words" if spoke else _no_control(system)
            found["honest"][f"{name}_reason"] = reason
    found["honest"]["length"] = said["length"]
    if said["length"] is None:
        found["honest"]["length_reason"] = _no_control(system)
    return found


def _no_control(system: str) -> str:
    if system == "shuffled":
        return "too few answers for other clips to shuffle with"
    return "this control has no answers"


def examples(scored: Scored) -> list[str]:
    """A line of JSON per answer: its scores in [0, 1], and the controls' answers."""
    lines = []
    for place, row in enumerate(scored.rows):
        scores = {
            name: round(float(column[place]), 6)
            for name, column in scored.scores[OWN].items()
            if name != wording.COUNTS
            and not name.startswith("kind.")
            and not np.isnan(column[place])
        }
        content = {
            "clip": row.clip,
            "question": row.question,
            "reference": row.reference,
            "answer": row.answer,
            "attribute": row.attribute,
            "value": row.value,
            "scores": scores,
            "controls": {
                system: said[place]
                for system, said in scored.answers.items()
                if system != OWN
            },
        }
        lines.append(json.dumps(content, ensure_ascii=False) + "\n")
    return lines


def markdown(about: About, scored: Scored) -> str:
    """The report as text, all numbers in percent."""
    lines = [f"# {about.title}", ""]
    if about.not_held_out:
        lines += [
            f"**Not held out:** {about.not_held_out} of the clips below are in the "
            "training split too. What is right about them may be remembered, not "
            "heard.",
            "",
        ]
    for note in answered_questions.notes(scored.rows):
        lines += [f"**Note:** {note}", ""]
    by_section: dict[str, list[Line]] = {}
    for line in scored.lines:
        by_section.setdefault(line.section, []).append(line)
    if factual := by_section.get("factual"):
        lines += ["## Does it hear? Facts, by attribute", ""]
        lines += [*_table(factual), ""]
        lines += [*(f"- {interpretation(line)}" for line in factual), ""]
    lines += ["## Wording, by kind: ROUGE-L F1", "", *_table(by_section["kind"]), ""]
    lines += [*(f"- {interpretation(line)}" for line in by_section["kind"]), ""]
    lines += ["## Wording of all answers: honest", "", *_table(by_section["honest"])]
    lines += ["", *_diversity(scored), ""]
    lines += ["## Wording of all answers: legacy", "", *_table(by_section["legacy"])]
    lines += ["", *_published(by_section["legacy"], factual or [])]
    if about.left_out:
        lines += [
            f"{about.left_out} records of the split were left out: their songs cannot "
            "be read, or no stage of training learns from their kind.",
            "",
        ]
    lines += ["## How to read this", ""]
    lines += [f"- **{name}**: {rule}" for name, rule in READING_RULES.items()]
    lines += [f"- **computed with** ({n}): {how}" for n, how in scored.notes.items()]
    return "\n".join(lines) + "\n"


def interpretation(line: Line) -> str:
    """One sentence on what a score says about listening."""
    mark = "" if line.beats_controls else " ✗"
    sure = [control for control, beaten in line.beaten.items() if beaten]
    unsure = [control for control, beaten in line.beaten.items() if not beaten]
    said = []
    if not line.beaten:
        said.append("there is no control to compare with, so it proves nothing")
    elif line.clips < FEWEST_CLIPS:
        said.append(f"too few clips to tell ({line.clips})")
    elif not unsure:
        least = _least_gain(line)
        by = f"{100 * least.value:.1f} points or more"
        if least.low is not None:
            by = f"at least {100 * least.low:.1f} points (95 %)"
        said.append(f"above every control, by {by}: this comes from the music")
    else:
        if sure:
            said.append(f"above {_names(sure)}")
        worse = [c for c in unsure if line.gains[c].is_below]
        if worse:
            said.append(f"worse than {_names(worse)}")
        if chance := [c for c in unsure if c not in worse]:
            said.append(
                f"not above {_names(chance)}, beyond chance: no sign that this comes "
                "from the music"
            )
    if line.unscorable:
        said.append(
            f"{line.unscorable} references do not name their own value as written, so "
            "no answer like them can count as right: mend `value` or `answer`"
        )
    return f"**{line.name}**{mark}: {'; '.join(said)}."


def _names(controls: Sequence[str]) -> str:
    return ", ".join(LABELS[control] for control in controls)


def _table(lines: Sequence[Line]) -> list[str]:
    """A line per score: ours with its interval, each control, the least difference."""
    controls = list(lines[0].controls)
    counted = any(line.unanswered is not None for line in lines)
    head = ["", "answers (clips)", "own", "95 %", *(LABELS[c] for c in controls)]
    head += ["least difference (95 %)", *(["unanswered"] if counted else [])]
    rows = [_row(head), _row(["---", *["---:"] * (len(head) - 1)])]
    for line in lines:
        if line.own is None:
            empty = [""] * (len(head) - 2)
            rows.append(_row([line.name, f"not computed: {line.reason}", *empty]))
            continue
        cells = [
            line.name + ("" if line.beats_controls else " ✗"),
            f"{line.rows} ({line.clips})",
            f"**{100 * line.own.value:.1f}**",
            _range(line.own),
            *(_number(line.controls[control]) for control in controls),
            _least(line),
        ]
        rows.append(_row(cells + ([str(line.unanswered)] if counted else [])))
    return rows


def _least(line: Line) -> str:
    least = _least_gain(line)
    if least is None:
        return ""
    return f"{100 * least.value:+.1f} ({_range(least, sign=True)})"


def _least_gain(line: Line) -> Gain | None:
    """The gain whose lower end, or value where it has none, is the least."""
    gains = [gain for gain in line.gains.values() if gain is not None]
    ends = [gain.value if gain.low is None else gain.low for gain in gains]
    return gains[ends.index(min(ends))] if gains else None


def _diversity(scored: Scored) -> list[str]:
    """How varied and how long answers and references are."""
    lines = [_row(["", "distinct-1", "distinct-2", "words per answer"])]
    lines.append(_row(["---", "---:", "---:", "---:"]))
    for system, said in scored.diversity.items():
        shares = (said["distinct1"], said["distinct2"])
        cells = ["" if share is None else f"{100 * share:.1f}" for share in shares]
        words = "" if said["length"] is None else f"{said['length']:.1f}"
        names = {OWN: "own", "reference": "references", **LABELS}
        lines.append(_row([names[system], *cells, words]))
    return lines


def _published(legacy: Sequence[Line], factual: Sequence[Line]) -> list[str]:
    """Rows of papers, with ours above them."""
    ours = {line.name: line.own for line in legacy}
    names = ("bleu", "meteor", "rouge_l", "bertscore")
    head = ["", "test corpus", "BLEU (B-U)", "METEOR (M-R)", "ROUGE-L (R-L)"]
    lines = ["Beside published rows. They are comparable on the same corpus only:", ""]
    lines += [_row([*head, "BERTScore", "source"]), _row(["---"] * 2 + ["---:"] * 5)]
    lines.append(_row(["**this**", "", *(_number(ours[n]) for n in names), ""]))
    for row in LEGACY:
        cells = [f"{getattr(row, name):g}" for name in names]
        lines.append(_row([row.system, row.corpus, *cells, row.source]))
    if any(line.name == "multiple_choice" for line in factual):
        said = ", ".join(f"{name} {value}" for name, value in MUCHOMUSIC.items())
        lines += ["", f"Multiple choice, {MUCHOMUSIC_SOURCE}: {said}; guessing 25."]
    return [*lines, ""]


def _row(cells: Sequence[str]) -> str:
    # An attribute's name is anyone's text.
    cells = [" ".join(cell.replace("|", "\\|").split()) for cell in cells]
    return "| " + " | ".join(cells) + " |"


def _number(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{100 * estimate.value:.1f}"


def _range(estimate: Estimate, *, sign: bool = False) -> str:
    if estimate.low is None:
        return "–"
    plus = "+" if sign else ""
    return f"{100 * estimate.low:{plus}.1f} to {100 * estimate.high:{plus}.1f}"


def _as_dict(line: Line) -> dict[str, Any]:
    return {**asdict(line), "beats_controls": line.beats_controls}


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False)

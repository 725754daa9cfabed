"""Scores → a report to compute with (JSON) and to read (Markdown).

`page.py` makes of the same a page to look at and listen to.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from musilingo_jax import page
from musilingo_jax.controls import LABELS
from musilingo_jax.files import write_whole
from musilingo_jax.metrics import facts, wording
from musilingo_jax.metrics.intervals import FEWEST_CLIPS
from musilingo_jax.published import DEAF, LEGACY, MUCHOMUSIC, MUCHOMUSIC_SOURCE
from musilingo_jax.scoring import OWN, Estimate, Line, Scored

RULES = {
    "facts": "An answer is right if it names the true value and no other value of the "
    "attribute (all values in the corpus; at word boundaries, longer values first; "
    "values with a capital letter as written). One that names none or several is "
    "wrong, and counted as unanswered. Some attributes have a protocol of their own: "
    + "; ".join(f"{name}: {rule}" for name, rule in facts.STANDARD.items())
    + ".",
    "answers shuffled": "The same answers, each given for another clip, among rows of "
    "one attribute or of the very same question.",
    "shuffled audio": "The same questions, asked anew with the music of another clip "
    "(a random circle of all clips).",
    "silence": "The same questions, with zeros where the clip's features were.",
    "no audio": "The same questions, with nothing in the place of the music.",
    "constant answer": "One answer per attribute or question: of the training answers "
    "with the most frequent value, the one most like the others. Where there is no "
    "training split, one of the references to other clips, which flatters it.",
    "intervals": "95 %. Right-or-wrong scores: Wilson, over questions. All others, and "
    "all differences: paired bootstrap over clips. ✗ marks a row that is not above "
    "every one of its controls (an interval of a difference includes 0, or there are "
    f"fewer than {FEWEST_CLIPS} clips).",
    "legacy": "The arithmetic with which MU-LLaMA, MusiLingo and CMI-Bench report: "
    "BLEU of characters (bleu: 1 to 4 of them; bleu4: 4 alone), METEOR, ROUGE-L "
    "recall, BERTScore recall of roberta-large. Only to compare with their tables.",
    "honest": "BLEU of words over the whole corpus (sacrebleu), ROUGE-L F1 on stems in "
    "any script, METEOR (the same as legacy), BERTScore F1. They mostly see wording "
    "and barely the music: read the facts first.",
}


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
        "scores": [_as_dict(line) for line in scored.lines],
        "diversity": scored.diversity,
        "computed_with": scored.notes,
        "rules": RULES,
    }
    write_whole(folder / "report.json", _json(content))
    text = markdown(about, scored)
    write_whole(folder / "report.md", text)
    write_whole(folder / "examples.jsonl", "".join(examples(scored)))
    page.write(folder / "report.html", text, scored)


def summary(scored: Scored) -> dict[str, Any]:
    """The scores alone, in percent, for other programs.

    A score that could not be computed is null, with `…_reason` beside it. `n` counts
    the answers.
    """
    controls = [system for system in scored.answers if system != OWN]
    return {
        **_sections(scored, OWN),
        "controls": {control: _sections(scored, control) for control in controls},
        "n": len(scored.rows),
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
            found["honest"][f"{name}_reason"] = "no answer has as many words"
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
    lines += [f"- **{name}**: {rule}" for name, rule in RULES.items()]
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
        least = min((line.gains[c] for c in sure), key=lambda gain: gain.low)
        said.append(
            f"above every control, by at least {100 * least.low:.1f} points (95 %): "
            "this comes from the music"
        )
    else:
        if sure:
            said.append(f"above {_names(sure)}")
        worse = [c for c in unsure if line.gains[c].high < 0]
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
    gains = [gain for gain in line.gains.values() if gain is not None]
    if not gains:
        return ""
    least = min(gains, key=lambda gain: gain.low)
    return f"{100 * least.value:+.1f} ({_range(least, sign=True)})"


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
    for row in (*LEGACY, *DEAF):
        cells = [getattr(row, name) for name in names]
        cells = ["" if cell is None else f"{cell:g}" for cell in cells]
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
    plus = "+" if sign else ""
    return f"{100 * estimate.low:{plus}.1f} to {100 * estimate.high:{plus}.1f}"


def _as_dict(line: Line) -> dict[str, Any]:
    return {**asdict(line), "beats_controls": line.beats_controls}


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False)

"""Scores → JSON, for other programs."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from musilingo_jax.evaluation import answered_questions
from musilingo_jax.evaluation.metrics import facts, wording
from musilingo_jax.evaluation.reading_guide import READING_RULES
from musilingo_jax.evaluation.report import About
from musilingo_jax.evaluation.score_table import OWN
from musilingo_jax.evaluation.scoring import Line, Scored


def summary(scored: Scored) -> dict[str, Any]:
    """The scores alone, in percent.

    A score that could not be computed is null, with `…_reason` beside it. `n` counts
    the answers, `repeated` those with the clip and question of an earlier one, and
    `inferred`, by attribute, those whose true value was inferred from the reference.
    """
    controls = [system for system in scored.answers if system != OWN]
    return {
        **_sections(scored, OWN),
        "controls": {control: _sections(scored, control) for control in controls},
        "n": len(scored.rows),
        **_row_counts(scored),
    }


def everything(about: About, scored: Scored) -> dict[str, Any]:
    """All that is known: scores with intervals and p-values, config and rules."""
    return {
        **asdict(about),
        **_row_counts(scored),
        "scores": [
            {**asdict(line), "beats_controls": line.beats_controls}
            for line in scored.lines
        ],
        "diversity": scored.diversity,
        "computed_with": scored.notes,
        "rules": READING_RULES,
    }


def examples(scored: Scored) -> list[str]:
    """A line of JSON per answer: its scores in [0, 1], and the controls' answers."""
    lines = []
    for place, row in enumerate(scored.rows):
        scores = {
            name: round(float(values[place]), 6)
            for name, values in scored.scores[OWN].items()
            if name != wording.COUNTS
            and not name.startswith("kind.")
            and not np.isnan(values[place])
        }
        content = {
            "clip": row.clip,
            "question": row.question,
            "reference": row.reference,
            "answer": row.answer,
            "attribute": row.attribute,
            "value": row.value,
            **({"cut": True} if row.is_cut else {}),
            "scores": scores,
            "controls": {
                system: answers[place]
                for system, answers in scored.answers.items()
                if system != OWN
            },
        }
        lines.append(json.dumps(content, ensure_ascii=False) + "\n")
    return lines


def _row_counts(scored: Scored) -> dict[str, Any]:
    return {
        "inferred": answered_questions.inferred(scored.rows),
        "repeated": answered_questions.repeated(scored.rows),
    }


def _sections(scored: Scored, system: str) -> dict[str, dict[str, Any]]:
    """The scores of one system, in three sections."""
    found: dict[str, dict[str, Any]] = {"legacy": {}, "honest": {}, "factual": {}}
    for line in scored.lines:
        if line.section in found:
            found[line.section] |= _percent(line, system)
    factual, honest = found["factual"], found["honest"]
    present = {line.name for line in scored.lines if line.section == "factual"}
    for name in facts.STANDARD:
        if name not in present:
            factual |= {name: None, f"{name}_reason": facts.why_absent(name)}
    diversity = scored.diversity[system]
    has_answers = diversity["length"] is not None
    for name in ("distinct1", "distinct2"):
        share = diversity[name]
        honest[name] = None if share is None else 100 * share
        if share is None:
            reason = "no answer has as many words"
            honest[f"{name}_reason"] = reason if has_answers else _no_control(system)
    honest["length"] = diversity["length"]
    if not has_answers:
        honest["length_reason"] = _no_control(system)
    return found


def _percent(line: Line, system: str) -> dict[str, Any]:
    """One score of one system; null with a reason if it could not be computed."""
    estimate = line.own if system == OWN else line.controls[system]
    if estimate is None:
        reason = line.reason or _no_control(system)
        return {line.name: None, f"{line.name}_reason": reason}
    found = {line.name: 100 * estimate.value}
    if line.name == "multiple_choice" and system == OWN:
        share = (line.unanswered or 0) / line.rows
        found["multiple_choice_unanswered"] = 100 * share
    return found


def _no_control(system: str) -> str:
    if system == "shuffled":
        return "too few answers for other clips to shuffle with"
    return "this control has no answers"

"""Scores → a report to read (Markdown), to compute with (JSON), and to see (PNG)."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from ml_collections import ConfigDict

from musilingo_jax.files import write_whole
from musilingo_jax.metrics import FEWEST_CLIPS

RULES = {
    "accuracy": "An answer is right if it names the true value and no other value of "
    "the attribute (all values in the corpus; at word boundaries, longer values first; "
    "values with a capital letter as written). One that names none or several is "
    "wrong, and counted as unanswered.",
    "shuffled audio": "The same questions, asked anew with the music of another clip "
    "of the test split (a random circle of all clips).",
    "constant answer": "Accuracy: always the attribute's most frequent value in the "
    "training split. ROUGE-L: always the training answer that is most like others of "
    "its kind.",
    "intervals": "95 %. Accuracy: Wilson, over questions. ROUGE-L and all differences: "
    "paired bootstrap over clips. What does not stand above shuffled audio (interval "
    f"includes 0, or fewer than {FEWEST_CLIPS} clips) is marked with ✗.",
    "ROUGE-L": "F1, lower-cased and stemmed, mean over answers. It mostly sees wording "
    "and barely the music: read the accuracies first.",
}


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Score:
    """One row of the report.

    Attributes:
      name: the attribute, or the kind of question.
      metric: "accuracy" or "rouge_l".
      rows, clips: how many questions about how many clips.
      own: with the clips' own music.
      shuffled: with other clips' music.
      above_shuffled: `own` − `shuffled`, paired.
      constant: of one answer to all; None if the training split offers none.
      above_constant: `own` − `constant`, paired.
      constant_answer: that answer.
      unanswered: answers that name no value or several; None for ROUGE-L.
      unscorable: references that do not name their own value, so that no answer in the
        same words can be right; 0 for ROUGE-L.
    """

    name: str
    metric: str
    rows: int
    clips: int
    own: Estimate
    shuffled: Estimate
    above_shuffled: Estimate
    constant: Estimate | None
    above_constant: Estimate | None
    constant_answer: str | None
    unanswered: int | None
    unscorable: int

    @property
    def beats_shuffled(self) -> bool:
        """Whether the difference is more than chance, as far as one can tell."""
        return self.clips >= FEWEST_CLIPS and self.above_shuffled.low > 0


def write(
    folder: Path,
    *,
    title: str,
    accuracies: Sequence[Score],
    rouges: Sequence[Score],
    left_out: int,
    not_held_out: int,
    identity: dict[str, Any],
    config: ConfigDict,
) -> None:
    """Writes report.json, report.md and, if there are attributes, accuracy.png.

    Args:
      folder: where to.
      title: what was evaluated on what.
      accuracies: a score per attribute.
      rouges: a score per kind of question.
      left_out: test records that could not be asked.
      not_held_out: test clips that are clips of the training split too.
      identity: what the answers depend on.
      config: the experiment.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "title": title,
        "accuracy": [_as_dict(score) for score in accuracies],
        "rouge_l": [_as_dict(score) for score in rouges],
        "left_out": left_out,
        "not_held_out": not_held_out,
        "rules": RULES,
        "identity": identity,
        "config": json.loads(config.to_json_best_effort()),
    }
    write_whole(
        folder / "report.json", json.dumps(content, indent=2, ensure_ascii=False)
    )
    text = markdown(title, accuracies, rouges, left_out, not_held_out)
    write_whole(folder / "report.md", text)
    plot = folder / "accuracy.png"
    plot.unlink(missing_ok=True)
    if accuracies:
        draw(plot, title, accuracies)


def markdown(
    title: str,
    accuracies: Sequence[Score],
    rouges: Sequence[Score],
    left_out: int,
    not_held_out: int,
) -> str:
    """The report as text, all numbers in percent."""
    lines = [f"# {title}", ""]
    if not_held_out:
        lines += [
            f"**Not held out:** {not_held_out} of the clips below are in the training "
            "split too. What is right about them may be remembered, not heard.",
            "",
        ]
    if accuracies:
        lines += ["## Does it hear? Accuracy by attribute", ""]
        lines += [*_table(accuracies), ""]
        lines += [*(f"- {interpretation(score)}" for score in accuracies), ""]
    lines += ["## Wording: ROUGE-L", "", *_table(rouges), ""]
    lines += [*(f"- {interpretation(score)}" for score in rouges), ""]
    if left_out:
        lines += [
            f"{left_out} records of the split were left out: their songs cannot be "
            "read, or no stage of training learns from their kind.",
            "",
        ]
    lines += ["## How to read this", ""]
    lines += [f"- **{name}**: {rule}" for name, rule in RULES.items()]
    return "\n".join(lines) + "\n"


def interpretation(score: Score) -> str:
    """One sentence on what a score says about listening."""
    gain = score.above_shuffled
    points = f"{100 * gain.value:+.1f} points ({_range(gain, sign=True)})"
    if score.clips < FEWEST_CLIPS:
        verdict = (
            f"{points} to shuffled audio, but {score.clips} clips are too few to tell"
        )
    elif score.beats_shuffled:
        verdict = f"{points} above shuffled audio: this comes from the music"
    elif gain.high < 0:
        verdict = f"{points} to shuffled audio: the own music makes it worse"
    else:
        verdict = (
            f"{points} to shuffled audio, which may be chance: no sign that this comes "
            "from the music"
        )
    if score.constant is not None:
        better = score.above_constant.low > 0 and score.clips >= FEWEST_CLIPS
        verdict += (
            f"; {'better' if better else 'not better'} than always saying "
            f"“{score.constant_answer}” ({100 * score.constant.value:.1f} %)"
        )
    if score.unscorable:
        verdict += (
            f"; {score.unscorable} references do not name their own value as written, "
            "so no answer like them can count as right: mend `value` or `answer`"
        )
    mark = "" if score.beats_shuffled else " ✗"
    return f"**{score.name}**{mark}: {verdict}."


def draw(path: Path, title: str, accuracies: Sequence[Score]) -> None:
    """Bars with intervals: own music, and the two controls beside it."""
    series = (
        ("own music", "#1b6ca8", [score.own for score in accuracies]),
        ("shuffled audio", "#b0b7bd", [score.shuffled for score in accuracies]),
        ("constant answer", "#dfe3e6", [score.constant for score in accuracies]),
    )
    width = 0.8 / len(series)
    figure = Figure(
        figsize=(2.5 + 1.1 * len(accuracies), 4), dpi=150, layout="constrained"
    )
    axes = figure.subplots()
    for offset, (label, colour, estimates) in enumerate(series):
        places = [
            place + (offset - 1) * width
            for place, estimate in enumerate(estimates)
            if estimate is not None
        ]
        shown = [estimate for estimate in estimates if estimate is not None]
        values = [100 * e.value for e in shown]
        reach = [
            [max(0.0, 100 * (e.value - e.low)) for e in shown],
            [max(0.0, 100 * (e.high - e.value)) for e in shown],
        ]
        axes.bar(
            places,
            values,
            width,
            yerr=reach,
            label=label,
            color=colour,
            error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "#444444"},
        )
    axes.set_xticks(
        range(len(accuracies)),
        [s.name + ("" if s.beats_shuffled else " ✗") for s in accuracies],
    )
    axes.set_ylim(0, 100)
    axes.set_ylabel("accuracy (%), 95 % interval")
    axes.set_title(title, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, facecolor="white")


def _table(scores: Sequence[Score]) -> list[str]:
    counted = any(score.unanswered is not None for score in scores)
    head = ["", "questions (clips)", "own music", "95 %", "shuffled audio"]
    head += ["constant answer", "own − shuffled", *(["unanswered"] if counted else [])]
    lines = [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
    for score in scores:
        mark = "" if score.beats_shuffled else " ✗"
        constant = score.constant
        cells = [
            score.name + mark,
            f"{score.rows} ({score.clips})",
            f"**{100 * score.own.value:.1f}**",
            _range(score.own),
            f"{100 * score.shuffled.value:.1f}",
            "–" if constant is None else f"{100 * constant.value:.1f}",
            f"{100 * score.above_shuffled.value:+.1f} "
            f"({_range(score.above_shuffled, sign=True)})",
        ]
        lines.append(_line(cells + ([str(score.unanswered)] if counted else [])))
    return lines


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _range(estimate: Estimate, *, sign: bool = False) -> str:
    plus = "+" if sign else ""
    return f"{100 * estimate.low:{plus}.1f} to {100 * estimate.high:{plus}.1f}"


def _as_dict(score: Score) -> dict[str, Any]:
    return {**asdict(score), "beats_shuffled": score.beats_shuffled}

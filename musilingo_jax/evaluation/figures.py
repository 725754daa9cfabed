"""Pictures of an evaluation: bars with controls, distributions, keys and tempi."""

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from musilingo_jax.corpora.statements.keys import MODES, NOTES, named_key
from musilingo_jax.corpora.statements.tempos import single_tempo
from musilingo_jax.corpora.statements.tempos import tempo as stated_tempo
from musilingo_jax.evaluation.controls import LABELS
from musilingo_jax.evaluation.estimates import Estimate
from musilingo_jax.evaluation.metrics import facts
from musilingo_jax.evaluation.score_table import OWN
from musilingo_jax.evaluation.scoring import Line, Scored
from musilingo_jax.runtime.palette import BLUE, GREYS, INK, MUTED, RULE
from musilingo_jax.runtime.printable import printable

_COLOURS = {OWN: BLUE, **dict(zip(LABELS, GREYS, strict=True))}
_NAMES = {OWN: "own answers", **LABELS}
# A picture of more would be too large to look at.
_MAX_BARS, _MAX_PANELS = 24, 16
_MAX_LETTERS = 40
# Longer names of bars would overlap if they were level.
_MAX_LEVEL_LETTERS = 16
_TEMPO_TICKS = (10, 15, 20, 30, 45, 60, 90, 120, 180, 240, 360, 480, 720, 1000)
_DPI = 150


@dataclass(frozen=True)
class Picture:
    """A picture for one section of a report.

    Attributes:
      section: the `report.Section` that it belongs to.
      caption: what it shows.
      png: the contents of the PNG file.
      width: how wide it is meant to be shown, in inches.
    """

    section: str
    caption: str
    png: bytes
    width: float

    @classmethod
    def of(cls, section: str, caption: str, figure: Figure) -> "Picture":
        """Draws a figure."""
        png = io.BytesIO()
        with warnings.catch_warnings():
            # Letters that no font here has are drawn as boxes; the text has them too.
            warnings.filterwarnings("ignore", r"Glyph .* missing from font")
            figure.savefig(png, format="png", facecolor="white")
        return cls(section, caption, png.getvalue(), figure.get_figwidth())


def draw(scored: Scored) -> Iterator[Picture]:
    """All pictures that have anything to show."""
    factual = [line for line in scored.lines if line.is_fact]
    if factual:
        shown, note = _with_most_answers(factual, _MAX_BARS)
        caption = f"Facts and their controls, with 95 % intervals{note}"
        yield Picture.of("facts", caption, _bars(shown))
    if (figure := _confusion(scored)) is not None:
        caption = "Keys: the true one (down) and the one that is answered (across)"
        yield Picture.of("facts", caption, figure)
    if (figure := _tempi(scored)) is not None:
        caption = "Tempi: true and answered; lines: the same, twice, half"
        yield Picture.of("facts", caption, figure)
    kinds = [line for line in scored.lines if line.section == "kind"]
    shown, note = _with_most_answers(kinds, _MAX_PANELS)
    caption = f"Honest ROUGE-L F1 of single answers, by kind{note}"
    figure = _distributions(scored, [line.name for line in shown])
    yield Picture.of("kinds", caption, figure)


def _with_most_answers(lines: Sequence[Line], most: int) -> tuple[list[Line], str]:
    """The lines with the most answers, in their order, and a note on the others."""
    left_out = len(lines) - most
    if left_out <= 0:
        return list(lines), ""
    ranked = sorted(range(len(lines)), key=lambda place: -lines[place].rows)
    shown = [lines[place] for place in sorted(ranked[:most])]
    return shown, (
        f" (the {most} with the most answers; {left_out} more are in the tables)"
    )


def _bars(lines: Sequence[Line]) -> Figure:
    """A group of bars per score: own answers, then every control."""
    systems = [OWN, *lines[0].controls]
    width = 0.85 / len(systems)
    figure = Figure(figsize=(3 + 1.1 * len(lines), 3.6), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    for offset, system in enumerate(systems):
        estimates = [
            line.own if system == OWN else line.controls[system] for line in lines
        ]
        shown = [(p, e) for p, e in enumerate(estimates) if e is not None]
        axes.bar(
            [place + (offset - (len(systems) - 1) / 2) * width for place, _ in shown],
            [100 * estimate.value for _, estimate in shown],
            width,
            yerr=np.reshape([_reach(e) for _, e in shown], (-1, 2)).T,
            label=_NAMES[system],
            color=_COLOURS[system],
            error_kw={"elinewidth": 0.8, "capsize": 1.5, "ecolor": MUTED},
        )
    marks = ["" if line.beats_controls else " ✗" for line in lines]
    names = [
        printable(line.name)[:_MAX_LETTERS] + mark
        for line, mark in zip(lines, marks, strict=True)
    ]
    # Names may hold characters that matplotlib reads as formulas.
    is_long = max(map(len, names)) > _MAX_LEVEL_LETTERS
    turn = {"rotation": 20, "ha": "right"} if is_long else {}
    axes.set_xticks(range(len(lines)), names, parse_math=False, **turn)
    axes.set_ylim(0, 100)
    axes.set_ylabel("%", color=INK)
    axes.grid(axis="y", color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, labelcolor=INK, loc="upper left", bbox_to_anchor=(1, 1))
    return _plain(figure)


def _reach(estimate: Estimate) -> tuple[float, float]:
    """How far an interval reaches down and up, in percent; NaN without an interval."""
    if estimate.low is None or estimate.high is None:
        return np.nan, np.nan
    # Rounding errors must not make a reach negative.
    down, up = estimate.value - estimate.low, estimate.high - estimate.value
    return 100 * max(0.0, down), 100 * max(0.0, up)


def _distributions(scored: Scored, kinds: Sequence[str]) -> Figure:
    """Histograms of ROUGE-L of the answers of each kind, and of shuffled answers."""
    columns = min(4, len(kinds))
    rows = math.ceil(len(kinds) / 4)
    figure = Figure(figsize=(2.6 * columns, 2.2 * rows), dpi=_DPI, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat[len(kinds) :]:
        axes.set_axis_off()
    edges = np.linspace(0, 100, 21)
    for axes, kind in zip(panels.flat, kinds, strict=False):
        for system in (OWN, "shuffled"):
            values = scored.scores.get(system, {}).get(f"kind.{kind}")
            if values is not None:
                axes.hist(
                    100 * values[~np.isnan(values)],
                    edges,
                    histtype="stepfilled" if system == OWN else "step",
                    color=_COLOURS[system],
                    label=_NAMES[system],
                )
        axes.set_title(
            printable(kind)[:_MAX_LETTERS],
            color=INK,
            fontsize="small",
            parse_math=False,
        )
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        frameon=False,
        labelcolor=INK,
        fontsize="small",
        loc="outside upper right",
        ncols=2,
    )
    return _plain(figure)


def _confusion(scored: Scored) -> Figure | None:
    """True against answered keys; the last column is for answers without a key."""
    rows = [row for row in scored.rows if facts.protocol(row) == "key"]
    if not rows:
        return None
    names = [f"{note} {mode}" for mode in MODES for note in NOTES]
    places = {name: place for place, name in enumerate(names)} | {None: len(names)}
    table = np.zeros((len(names), len(names) + 1))
    for row in rows:
        true = places[named_key(row.true_value)]
        table[true, places[named_key(row.answer)]] += 1
    figure = Figure(figsize=(5, 4.7), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    axes.imshow(table, cmap="Blues")
    axes.set_xticks(range(len(names) + 1), [*names, "none"], rotation=90)
    axes.set_yticks(range(len(names)), names)
    return _plain(figure, labelsize=6)


def _tempi(scored: Scored) -> Figure | None:
    """True against answered beats per minute, on logarithmic axes."""
    pairs = [
        (single_tempo(row.true_value), stated_tempo(row.answer))
        for row in scored.rows
        if facts.protocol(row) == "tempo"
    ]
    # Numbers that are not tempi would only flatten the rest.
    pairs = [
        (true, (answered.low * answered.high) ** 0.5)
        for true, answered in pairs
        if true is not None
        and answered is not None
        and 10 <= answered.low <= answered.high <= 1000
    ]
    if not pairs:
        return None
    true, answered = (list(side) for side in zip(*pairs, strict=True))
    figure = Figure(figsize=(4.7, 4.7), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    ends = np.array([min(true), max(true)])
    for octave in (1, 2, 0.5):
        axes.plot(ends, octave * ends, color=RULE, linewidth=1)
    axes.scatter(true, answered, s=14, color=BLUE)
    axes.set(xscale="log", yscale="log")
    axes.set_xlabel("true BPM", color=INK)
    axes.set_ylabel("answered BPM", color=INK)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator(_TEMPO_TICKS))
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_locator(NullLocator())
    return _plain(figure)


def _plain(figure: Figure, *, labelsize: float = 8) -> Figure:
    """The figure with quiet axes."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["bottom", "left"]].set_color(RULE)
        axes.tick_params(which="both", colors=MUTED, labelsize=labelsize)
    return figure

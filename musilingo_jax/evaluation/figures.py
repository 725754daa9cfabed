"""Pictures of an evaluation: bars with controls, distributions, keys and tempi."""

import io
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from musilingo_jax.evaluation.controls import LABELS
from musilingo_jax.evaluation.estimates import Estimate
from musilingo_jax.evaluation.metrics import facts, keys, tempo
from musilingo_jax.evaluation.scoring import OWN, Line, Scored

COLOURS = {
    OWN: "#1b6ca8",
    "shuffled": "#7c8a97",
    "shuffled_audio": "#9aa6b1",
    "silence": "#b9c2ca",
    "no_audio": "#d3d9de",
    "constant": "#e6eaed",
}
# A picture holds no more than one can look at.
_MOST_BARS, _MOST_PANELS = 24, 16
_LONGEST_NAME = 40
_NAMES = {OWN: "own music", **LABELS}


def draw(scored: Scored) -> Iterator[tuple[str, bytes]]:
    """Each picture that there is something to show in: its caption, and a PNG."""
    factual = [line for line in scored.lines if line.section == "factual"]
    if factual:
        shown, note = _most(factual, _MOST_BARS)
        yield f"Facts and their controls, with 95 % intervals{note}", _bars(shown)
    kinds = [line for line in scored.lines if line.section == "kind"]
    shown, note = _most(kinds, _MOST_PANELS)
    caption = f"Honest ROUGE-L F1 of single answers, by kind{note}"
    yield caption, _distributions(scored, [line.name for line in shown])
    if (picture := _confusion(scored)) is not None:
        yield "Keys: what is true (down) and what is said (across)", picture
    if (picture := _tempi(scored)) is not None:
        yield "Tempi: what is true and what is said; lines: true, double, half", picture


def _most(lines: Sequence[Line], most: int) -> tuple[list[Line], str]:
    """Those of most answers, in their order, and what to say of the others."""
    left_out = len(lines) - most
    if left_out <= 0:
        return list(lines), ""
    ranked = sorted(range(len(lines)), key=lambda place: -lines[place].rows)
    shown = [lines[place] for place in sorted(ranked[:most])]
    return shown, f" (the {most} of most answers; {left_out} more are in the tables)"


def _bars(lines: Sequence[Line]) -> bytes:
    """A group of bars per score: own music, then every control."""
    systems = [OWN, *lines[0].controls]
    width = 0.85 / len(systems)
    figure = Figure(figsize=(3 + 1.1 * len(lines), 4), dpi=130, layout="constrained")
    axes = figure.subplots()
    for offset, system in enumerate(systems):
        shown = [
            (place, line.own if system == OWN else line.controls[system])
            for place, line in enumerate(lines)
        ]
        shown = [(place, e) for place, e in shown if e is not None]
        axes.bar(
            [place + (offset - (len(systems) - 1) / 2) * width for place, _ in shown],
            [100 * e.value for _, e in shown],
            width,
            yerr=np.reshape([_reach(e) for _, e in shown], (-1, 2)).T,
            label=_NAMES[system],
            color=COLOURS[system],
            error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "#444444"},
        )
    marks = ["" if line.beats_controls else " ✗" for line in lines]
    names = [
        line.name[:_LONGEST_NAME] + mark
        for line, mark in zip(lines, marks, strict=True)
    ]
    # Anyone's names, which are no formulas whatever signs they hold.
    axes.set_xticks(range(len(lines)), names, parse_math=False)
    axes.set_ylim(0, 100)
    axes.set_ylabel("%")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return _png(figure, axes)


def _reach(estimate: Estimate) -> tuple[float, float]:
    """How far an interval reaches down and up, in percent; NaN where there is none."""
    if estimate.low is None:
        return np.nan, np.nan
    # A rounding error must not make a reach negative.
    down, up = estimate.value - estimate.low, estimate.high - estimate.value
    return 100 * max(0.0, down), 100 * max(0.0, up)


def _distributions(scored: Scored, kinds: Sequence[str]) -> bytes:
    """How ROUGE-L spreads over the answers of each kind, and over their shuffle."""
    figure = Figure(
        figsize=(2.6 * min(4, len(kinds)), 2.4 * -(-len(kinds) // 4)),
        dpi=130,
        layout="constrained",
    )
    panels = figure.subplots(-(-len(kinds) // 4), min(4, len(kinds)), squeeze=False)
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
                    color=COLOURS[system],
                    label=_NAMES[system],
                )
        axes.set_title(kind[:_LONGEST_NAME], fontsize="small", parse_math=False)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0, 0].legend(frameon=False, fontsize="x-small")
    return _png(figure, panels[0, 0])


def _confusion(scored: Scored) -> bytes | None:
    """True against named keys; the last column is for answers without a key."""
    rows = [row for row in scored.rows if facts.protocol(row) == "key"]
    if not rows:
        return None
    names = [f"{note} {mode}" for mode in ("major", "minor") for note in keys.NOTES]
    places = {name: place for place, name in enumerate(names)} | {None: len(names)}
    table = np.zeros((len(names), len(names) + 1))
    for row in rows:
        true = places[keys.named_key(row.value)]
        table[true, places[keys.named_key(row.answer)]] += 1
    figure = Figure(figsize=(6, 5.6), dpi=130, layout="constrained")
    axes = figure.subplots()
    axes.imshow(table, cmap="Blues")
    axes.set_xticks(range(len(names) + 1), [*names, "none"], rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(labelsize=7)
    return _png(figure, axes)


def _tempi(scored: Scored) -> bytes | None:
    """True against said beats per minute, on logarithmic axes."""
    pairs = [
        (tempo.number(row.value), tempo.number(row.answer))
        for row in scored.rows
        if facts.protocol(row) == "tempo"
    ]
    # What is no tempo at all would only flatten the rest.
    pairs = [(true, said) for true, said in pairs if said and 10 <= said <= 1000]
    if not pairs:
        return None
    true, said = zip(*pairs, strict=True)
    figure = Figure(figsize=(4.5, 4.5), dpi=130, layout="constrained")
    axes = figure.subplots()
    ends = np.array([min(true), max(true)])
    for octave in (1, 2, 0.5):
        axes.plot(ends, octave * ends, color="#c9d0d6", linewidth=1)
    axes.scatter(true, said, s=14, color=COLOURS[OWN])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("true BPM")
    axes.set_ylabel("said BPM")
    return _png(figure, axes)


def _png(figure: Figure, axes: Axes) -> bytes:
    axes.spines[["top", "right"]].set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", facecolor="white")
    return picture.getvalue()

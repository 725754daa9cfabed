"""The picture of a report: tempi, keys, genres, and what became of captions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from musilingo_jax.corpora.statements.keys import MODES, NOTES, named_key
from musilingo_jax.runtime.palette import BLUE, GREYS, INK, RULE
from musilingo_jax.runtime.printable import printable

# Bars of the genres, and letters of their names.
_MOST, _LETTERS = 15, 24


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Draws the distributions of a report.

    Args:
      found: as `report.summary` returns it.
      path: of the PNG file.

    Raises:
      OSError: it cannot be written.
    """
    # Here and not above, because it takes a second to import.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), dpi=120, layout="constrained")
    tempi, keys, genres, captions = figure.subplots(2, 2).ravel()
    _tempi(tempi, found["bpm"])
    _keys(keys, found["key"])
    top = dict(list(found["genre"].items())[:_MOST])
    _across(genres, top, "genre")
    changed = {f"fault: {n}": c for n, c in found["reasons"].items() if c}
    _across(captions, {**found["captions"], **changed}, "captions")
    for axes in (tempi, keys, genres, captions):
        axes.tick_params(colors=INK)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="png", facecolor="white")


def _tempi(axes: Any, counts: Mapping[str, int]) -> None:
    starts = [int(name.split()[0]) for name in counts]
    width = min((b - a for a, b in zip(starts, starts[1:], strict=False)), default=10)
    style = {"align": "edge", "color": BLUE, "edgecolor": "white"}
    axes.bar(starts, list(counts.values()), width, **style)
    axes.set_title("tempo", color=INK)
    axes.set_xlabel("beats per minute", color=INK)
    axes.set_ylabel("songs", color=INK)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y", color=RULE, linewidth=0.7)


def _keys(axes: Any, counts: Mapping[str, int]) -> None:
    """A bar for each note, of major and of minor keys."""
    songs: dict[str, int] = {}
    for name, count in counts.items():
        if key := named_key(name):
            songs[key] = songs.get(key, 0) + count
    for number, (mode, colour) in enumerate(zip(MODES, (BLUE, GREYS[1]), strict=True)):
        places = [place + 0.4 * (number - 0.5) for place in range(len(NOTES))]
        heights = [songs.get(f"{note} {mode}", 0) for note in NOTES]
        axes.bar(places, heights, 0.4, color=colour, label=mode)
    axes.set_xticks(range(len(NOTES)), NOTES)
    axes.set_title("key", color=INK)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y", color=RULE, linewidth=0.7)
    axes.legend(frameon=False, labelcolor=INK)


def _across(axes: Any, counts: Mapping[str, int], title: str) -> None:
    """Bars that lie, so that there is room for names."""
    names = [printable(name)[:_LETTERS] for name in counts]
    axes.barh(range(len(names)), list(counts.values()), color=BLUE)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_title(title, color=INK)
    axes.set_xlabel("songs", color=INK)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="x", color=RULE, linewidth=0.7)

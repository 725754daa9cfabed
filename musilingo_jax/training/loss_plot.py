"""The picture of a run."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from musilingo_jax.runtime.palette import BLUE, INK, ORANGE, RULE


def loss_curves(stages: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draws the loss of each stage beside the others, on one scale.

    Args:
      stages: name → rows in order, with `step` and either the `loss` of an update or
        the `validation_loss` after it.
      path: of the PNG.

    Raises:
      OSError: it cannot be written.
    """
    figure = Figure(figsize=(5 * len(stages), 4), dpi=120, layout="constrained")
    all_axes = figure.subplots(1, len(stages), sharey=True, squeeze=False)[0]
    for axes, (name, rows) in zip(all_axes, stages.items(), strict=True):
        steps, losses = _curve(rows, "loss")
        faint = len(steps) > 20
        axes.plot(
            steps,
            losses,
            color=INK,
            alpha=0.35 if faint else 1.0,
            linewidth=1 if faint else 2,
            marker=None if faint else "o",
            label="single updates",
        )
        if faint:
            axes.plot(steps, _smooth(losses), color=ORANGE, linewidth=2, label="mean")
        looks = _curve(rows, "validation_loss")
        if looks[0]:
            axes.plot(*looks, color=BLUE, linewidth=2, marker="o", label="validation")
        if faint or looks[0]:
            axes.legend(frameon=False, labelcolor=INK)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_title(name, color=INK, fontsize=13)
        axes.set_xlabel("updates", color=INK, fontsize=11)
        axes.grid(color=RULE, linewidth=0.7)
        axes.tick_params(colors=INK, labelleft=True)
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0].set_ylabel("loss (nats per token)", color=INK, fontsize=11)
    figure.savefig(path, facecolor="white")


def _curve(rows: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of the rows that tell of it."""
    points = [(row["step"], row[name]) for row in rows if name in row]
    return [step for step, _ in points], [value for _, value in points]


def _smooth(values: list[float]) -> list[float]:
    """The mean of each value and its neighbours, a tenth of the curve in all."""
    reach = max(1, len(values) // 20)
    return [
        sum(part) / len(part)
        for i in range(len(values))
        for part in [values[max(0, i - reach) : i + reach + 1]]
    ]

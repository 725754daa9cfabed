"""The picture of a run."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

INK, SMOOTH = "#1f2933", "#c2410c"


def loss_curves(stages: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draws the loss of each stage beside the others, on one scale.

    Args:
      stages: name → rows with `step` and `loss`, in order.
      path: of the PNG.
    """
    figure = Figure(figsize=(5 * len(stages), 4), dpi=120, layout="constrained")
    all_axes = figure.subplots(1, len(stages), sharey=True, squeeze=False)[0]
    for axes, (name, rows) in zip(all_axes, stages.items(), strict=True):
        steps, losses = [r["step"] for r in rows], [r["loss"] for r in rows]
        faint = len(rows) > 20
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
            axes.plot(steps, _smooth(losses), color=SMOOTH, linewidth=2, label="mean")
            axes.legend(frameon=False, labelcolor=INK)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_title(name, color=INK, fontsize=13)
        axes.set_xlabel("updates", color=INK, fontsize=11)
        axes.grid(color="#d9dee3", linewidth=0.7)
        axes.tick_params(colors=INK, labelleft=True)
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0].set_ylabel("loss (nats per token)", color=INK, fontsize=11)
    figure.savefig(path, facecolor="white")


def _smooth(values: list[float]) -> list[float]:
    """The mean of each value and its neighbours, a tenth of the curve in all."""
    reach = max(1, len(values) // 20)
    return [
        sum(part) / len(part)
        for i in range(len(values))
        for part in [values[max(0, i - reach) : i + reach + 1]]
    ]

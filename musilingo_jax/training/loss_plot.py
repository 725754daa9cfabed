"""The plot of a run: the loss of each stage."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from musilingo_jax.runtime.palette import BLUE, INK, ORANGE, RULE
from musilingo_jax.training.metrics_rows import MetricsRow


def loss_curves(stages: Mapping[str, Sequence[MetricsRow]], path: Path) -> None:
    """Draws the losses of the stages side by side, on one scale.

    Args:
      stages: name → rows in order.
      path: of the PNG file.

    Raises:
      OSError: it cannot be written.
    """
    # Here and not above, because it takes a second, and only the end of a run needs it.
    from matplotlib.figure import Figure

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
        validations = _curve(rows, "validation_loss")
        if validations[0]:
            axes.plot(
                *validations, color=BLUE, linewidth=2, marker="o", label="validation"
            )
        if faint or validations[0]:
            axes.legend(frameon=False, labelcolor=INK)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_title(name, color=INK, fontsize=13)
        axes.set_xlabel("updates", color=INK, fontsize=11)
        axes.grid(color=RULE, linewidth=0.7)
        axes.tick_params(colors=INK, labelleft=True)
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0].set_ylabel("loss (nats per token)", color=INK, fontsize=11)
    figure.savefig(path, facecolor="white")


def _curve(
    rows: Sequence[Mapping[str, Any]], name: str
) -> tuple[list[int], list[float]]:
    """Steps and values of the rows that have the key `name`."""
    points = [(row["step"], row[name]) for row in rows if name in row]
    return [step for step, _ in points], [value for _, value in points]


def _smooth(values: list[float]) -> list[float]:
    """The running mean over a tenth of the curve."""
    reach = max(1, len(values) // 20)
    return [
        sum(part) / len(part)
        for i in range(len(values))
        for part in [values[max(0, i - reach) : i + reach + 1]]
    ]

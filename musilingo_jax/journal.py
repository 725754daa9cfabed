"""What is seen of a stage while it runs: progress, metrics, and a watch on the loss."""

import math
import time
from collections.abc import Callable
from typing import Any

import jax

from musilingo_jax import cli
from musilingo_jax.batches import Batches
from musilingo_jax.errors import UserError
from musilingo_jax.runs import RunFolder
from musilingo_jax.stages import StageConfig
from musilingo_jax.tracking import Tracker
from musilingo_jax.update import Report


class Journal:
    """Reads the reports of updates, each one update late.

    An update is only *started* when it returns. Reading its report waits for it, so the
    report is read once the next update is started, and the device never idles.

    A row of metrics.jsonl tells of an update (`loss`, `learning_rate`, `gradient_norm`)
    and of all updates since the row before: `tokens_per_second`, `padding_share` of the
    places for tokens, and `model_tflops_per_second`, the work that the mathematics asks
    for, of all devices together. Where the devices' peak is known, that is also told as
    a share of it, `model_flop_utilisation` (the MFU of Chowdhery et al. 2022, PaLM).
    Looks at the validation split have rows of their own and are not part of the time.
    """

    def __init__(
        self,
        name: str,
        stage: StageConfig,
        batches: Batches,
        run: RunFolder,
        tracker: Tracker,
        start: int,
        *,
        flops: Callable[[int], float],
        peak: float | None,
    ):
        """Shows a bar for the stage `name`.

        Args:
          name: of the stage.
          stage: its numbers.
          batches: what it learns from.
          run: whose metrics.jsonl is written.
          tracker: what else the rows are shown by.
          start: updates that are done.
          flops: operations of update s, counted from 0, as in `costs.step_flops`.
          peak: operations per second of all devices; None where unknown.
        """
        self._name, self._stage, self._batches, self._run = name, stage, batches, run
        self._tracker, self._flops, self._peak = tracker, flops, peak
        self._learning_rate = stage.schedule()
        self._waiting: tuple[int, Report] | None = None
        self._first = start + 1
        self._begin_row()
        self._bar = cli.progress(
            total=stage.steps,
            initial=start,
            unit="steps",
            label=name,
            disable=jax.process_index() != 0,
        )

    def add(self, done: int, report: Report) -> None:
        """Takes the report of update number `done`, counted from 1."""
        self.catch_up()
        self._waiting = done, report

    def catch_up(self) -> None:
        """Reads the report that waits.

        Raises:
          UserError: the loss or its gradient is no number.
        """
        if self._waiting is None:
            return
        (done, report), self._waiting = self._waiting, None
        loss, norm = float(report.loss), float(report.gradient_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            clips = ", ".join(sorted(set(self._batches.clips(done - 1))))
            raise UserError(
                f"{self._name}, update {done}: the loss is {loss} and the norm of its "
                f"gradient {norm}, so the adapter would be spoilt. The clips of this "
                f"batch are {clips}: look at them, or lower {self._name}.learning_rate."
                " Checkpoints from before are kept"
            )
        tokens = self._batches.tokens(done - 1)
        self._tokens += tokens
        self._places += tokens / (1 - self._batches.padding(done - 1))
        self._operations += self._flops(done - 1)
        # The schedule counts the updates before this one.
        rate, speed = float(self._learning_rate(done - 1)), self._speed()
        self._bar.set_postfix_str(
            f"loss {loss:.3f}, lr {rate:.1e}, {_for_people(speed)}", refresh=False
        )
        self._bar.update()
        if done == 1 or done == self._stage.steps or done % self._stage.log_every == 0:
            row = {"loss": loss, "learning_rate": rate, "gradient_norm": norm}
            self._log(done, row | speed)
            self._begin_row()
        elif done == self._first:
            self._begin_row()  # It was compiled, which is no measure of its speed.

    def look(self, done: int, mean_loss: Callable[[], float]) -> float:
        """Looks at the validation split after update `done`; the mean loss there.

        Raises:
          UserError: that loss is no number.
        """
        self.catch_up()
        started = time.monotonic()
        loss = mean_loss()
        self._since += time.monotonic() - started
        if not math.isfinite(loss):
            raise UserError(
                f"{self._name}, after update {done}: the loss on the validation split "
                f"is {loss}; lower {self._name}.learning_rate. Checkpoints from before "
                "are kept"
            )
        self._log(done, {"validation_loss": loss})
        return loss

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()

    def _begin_row(self) -> None:
        self._tokens, self._places, self._operations = 0, 0.0, 0.0
        self._since = time.monotonic()

    def _speed(self) -> dict[str, float]:
        """How fast it goes since the last row."""
        seconds = max(time.monotonic() - self._since, 1e-9)
        speed = {
            "tokens_per_second": round(self._tokens / seconds, 1),
            "padding_share": round(1 - self._tokens / self._places, 4),
            "model_tflops_per_second": round(self._operations / seconds / 1e12, 6),
        }
        if self._peak is not None:
            share = self._operations / seconds / self._peak
            speed["model_flop_utilisation"] = round(share, 4)
        return speed

    def _log(self, done: int, values: dict[str, float]) -> None:
        row: dict[str, Any] = {"stage": self._name, "step": done}
        row |= {"time": round(time.time(), 3), **values}
        self._run.log(row)
        self._tracker.log(row)


def _for_people(speed: dict[str, float]) -> str:
    """The speed in a few words; without a known peak, how much is done at all."""
    if "model_flop_utilisation" in speed:
        work = f"{100 * speed['model_flop_utilisation']:.1f} % of peak"
    else:
        work = f"{speed['model_tflops_per_second']:.3g} TFLOP/s"
    return (
        f"{speed['tokens_per_second']:,.0f} tokens/s, "
        f"{100 * speed['padding_share']:.0f} % padding, {work}"
    )

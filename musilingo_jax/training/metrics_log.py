"""What is seen of a stage while it runs: progress, metrics, and a watch on the loss."""

import math
import time
from collections.abc import Callable
from typing import Any

import jax

from musilingo_jax.runtime import cli
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.training.batches import Batches
from musilingo_jax.training.packing import RowShape
from musilingo_jax.training.run_folder import RunFolder
from musilingo_jax.training.stage_config import StageConfig
from musilingo_jax.training.trackers import Trackers
from musilingo_jax.training.train_step import StepReport


class MetricsLog:
    """Reads the reports of updates, each one update late.

    An update is only *started* when it returns. Reading its report waits for it, so the
    report is read once the next update is started, and the device never idles.

    A row of metrics.jsonl tells of an update (`loss`, `learning_rate`, `gradient_norm`)
    and of all updates since the row before: `padding_share` of the places for tokens,
    `tokens_per_second`, and `model_tflops_per_second`, the work that the mathematics
    asks for, of all devices together. Where the devices' peak is known, that is also
    told as a share of it, `model_flop_utilisation` (the MFU of Chowdhery et al. 2022,
    PaLM).

    Speeds leave out the first update of each shape of batch in this process, with its
    time, because it is compiled then; a row of none but these tells no speed. Looks at
    the validation split have rows of their own and are left out, too. Reading batches
    and starting to save checkpoints is part of the time.
    """

    def __init__(
        self,
        name: str,
        stage: StageConfig,
        batches: Batches,
        run: RunFolder,
        tracker: Trackers,
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
        self._waiting: tuple[int, StepReport] | None = None
        self._compiled: set[RowShape] = set()
        self._compiling_since: float | None = None
        self._begin_row(time.monotonic())
        self._bar = cli.progress(
            total=stage.steps,
            initial=start,
            unit="steps",
            label=name,
            disable=jax.process_index() != 0,
        )

    def before(self, done: int) -> None:
        """To be called before update number `done`, counted from 1, is started."""
        shape = self._batches.shape(done - 1)
        if shape not in self._compiled:
            self._compiled.add(shape)
            # So that nothing of the updates before is taken for its time.
            self.catch_up()
            self._compiling_since = time.monotonic()

    def add(self, done: int, report: StepReport) -> None:
        """Takes the report of update number `done`, counted from 1."""
        self.catch_up()
        self._waiting = done, report
        if self._compiling_since is not None:
            self.catch_up()

    def catch_up(self) -> None:
        """Reads the report that waits.

        Raises:
          UserError: the loss, its gradient or the new adapter is no number.
        """
        if self._waiting is None:
            return
        (done, report), self._waiting = self._waiting, None
        loss, norm = float(report.loss), float(report.gradient_norm)
        # Before anything is written, while the device is busy with the next update.
        now = time.monotonic()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            clips = ", ".join(sorted(set(self._batches.clips(done - 1))))
            raise UserError(
                f"{self._name}, update {done}: the loss is {loss} and the norm of its "
                f"gradient {norm}, so the adapter would be spoilt. The clips of this "
                f"batch are {clips}: look at them, or lower {self._name}.learning_rate."
                " Checkpoints from before are kept"
            )
        # The schedule counts the updates before this one.
        rate = float(self._learning_rate(done - 1))
        if not report.finite:
            raise UserError(
                f"{self._name}, update {done}: its loss is {loss}, but the adapter "
                f"that it made at a learning rate of {rate:.1e} is no number any more: "
                f"lower {self._name}.learning_rate. Checkpoints from before are kept"
            )
        tokens = self._batches.tokens(done - 1)
        self._tokens += tokens
        self._places += tokens / (1 - self._batches.padding(done - 1))
        if self._compiling_since is None:
            self._timed_tokens += tokens
            self._operations += self._flops(done - 1)
        else:
            self._since += now - self._compiling_since
            self._compiling_since = None
        speed = self._speed(now)
        self._bar.set_postfix_str(
            f"loss {loss:.3f}, lr {rate:.1e}, {_for_people(speed)}", refresh=False
        )
        self._bar.update()
        if done == 1 or done == self._stage.steps or done % self._stage.log_every == 0:
            row = {"loss": loss, "learning_rate": rate, "gradient_norm": norm}
            self._log(done, row | speed)
            self._begin_row(now)

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

    def _begin_row(self, now: float) -> None:
        self._tokens, self._places = 0, 0.0
        self._timed_tokens, self._operations = 0, 0.0
        self._since = now

    def _speed(self, now: float) -> dict[str, float]:
        """How fast it goes since the last row."""
        speed = {"padding_share": round(1 - self._tokens / self._places, 4)}
        if not self._timed_tokens:
            return speed
        seconds = max(now - self._since, 1e-9)
        speed["tokens_per_second"] = round(self._timed_tokens / seconds, 1)
        speed["model_tflops_per_second"] = round(self._operations / seconds / 1e12, 6)
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
    padding = f"{100 * speed['padding_share']:.0f} % padding"
    if "tokens_per_second" not in speed:
        return padding
    if "model_flop_utilisation" in speed:
        work = f"{100 * speed['model_flop_utilisation']:.1f} % of peak"
    else:
        work = f"{speed['model_tflops_per_second']:.3g} TFLOP/s"
    return f"{speed['tokens_per_second']:,.0f} tokens/s, {padding}, {work}"

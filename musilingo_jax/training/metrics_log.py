"""Watches a stage while it runs: a progress bar, rows of metrics, and a NaN check."""

import math
import time
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.runtime import cli
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.training import flops
from musilingo_jax.training.metrics_rows import MetricsRow, Speed
from musilingo_jax.training.packing import RowShape
from musilingo_jax.training.run_folder import RunFolder
from musilingo_jax.training.stage_data import StageData
from musilingo_jax.training.trackers import Trackers
from musilingo_jax.training.train_step import StepReport


class MetricsLog:
    """Reads the report of each update while the device computes the next one.

    An update is only *started* when its call returns. Reading its report waits for it,
    so the report is read after the next update is started, and the device never idles:

        host      start 1   start 2   read 1   start 3   read 2   …
        device       └─ 1 ───────┴─ 2 ──────────────┴─ 3 ──────   …

    Speeds do not count the first update of each batch shape in this process, nor its
    time, because the program is compiled then. Validations are not counted either.
    Waiting for batches and starting to save checkpoints are part of the time.
    """

    def __init__(
        self,
        data: StageData,
        start: int,
        run: RunFolder,
        trackers: Trackers,
        model: LlamaConfig,
        multiplied: flops.Multiplied,
        mesh: Mesh,
    ):
        """Shows a progress bar, unless no update is left.

        Args:
          data: the stage and its batches.
          start: updates of the stage that are already done.
          run: whose metrics.jsonl is written.
          trackers: that show the same rows.
          model: shapes of the language model, to count operations.
          multiplied: by what else, the same.
          mesh: the devices, whose peak is given if it is known.
        """
        self._name, self._stage, self._batches = data.name, data.stage, data.batches
        self._run, self._trackers = run, trackers
        self._model, self._multiplied = model, multiplied
        self._peak = flops.peak_of(mesh)
        self._learning_rate = data.stage.schedule()
        self._pending: tuple[int, StepReport] | None = None
        self._compiled: set[RowShape] = set()
        self._compiling_since: float | None = None
        self._since_row = _Totals(since=time.monotonic())
        self._checked = self._since_row.since
        self._bar = cli.progress(
            total=data.stage.steps,
            initial=start,
            unit="steps",
            label=data.name,
            disable=jax.process_index() != 0 or start == data.stage.steps,
        )

    def begin(self, step: int) -> None:
        """Must be called before update number `step`, from 1, is started.

        Raises:
          UserError: as in `check`.
        """
        shape = self._batches.shape(step - 1)
        if shape not in self._compiled:
            self._compiled.add(shape)
            # So that the time of earlier updates is not taken for compilation.
            self.check()
            self._compiling_since = time.monotonic()

    def end(self, step: int, report: StepReport) -> None:
        """Takes the report of update `step`, and reads that of the update before.

        Raises:
          UserError: as in `check`.
        """
        self.check()
        self._pending = step, report
        if self._compiling_since is not None:
            self.check()

    def check(self) -> None:
        """Waits for the newest update, logs it, and checks that it is finite.

        After this call the state may be saved.

        Raises:
          UserError: the loss, its gradient or the new adapter contains NaN or infinity.
        """
        if self._pending is not None:
            (step, report), self._pending = self._pending, None
            self._read(step, report)
        self._checked = time.monotonic()

    def add_validation(self, step: int, loss: float) -> None:
        """Logs a validation after update `step`.

        `check` must have been called before the validation: the time since then does
        not count as training.

        Raises:
          UserError: the loss is NaN or infinite.
        """
        self._since_row.since += time.monotonic() - self._checked
        if not math.isfinite(loss):
            raise UserError(
                f"{self._name}, after update {step}: the validation loss is {loss}; "
                f"lower {self._name}.learning_rate. Earlier checkpoints are kept"
            )
        self._write(
            {
                "stage": self._name,
                "step": step,
                "time": round(time.time(), 3),
                "validation_loss": loss,
            }
        )

    def close(self) -> None:
        """Closes the progress bar, which stays on the screen."""
        self._bar.close()

    def _read(self, step: int, report: StepReport) -> None:
        loss, norm = float(report.loss), float(report.gradient_norm)
        # Taken before anything is written, while the device computes the next update.
        now = time.monotonic()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            clips = ", ".join(sorted(set(self._batches.clips(step - 1))))
            raise UserError(
                f"{self._name}, update {step}: the loss is {loss} and the norm of its "
                f"gradient is {norm}. The clips of this batch are {clips}: check them, "
                f"or lower {self._name}.learning_rate. Earlier checkpoints are kept"
            )
        # The schedule counts the updates before this one.
        rate = float(np.asarray(self._learning_rate(step - 1)))
        if not report.finite:
            raise UserError(
                f"{self._name}, update {step}: the loss is {loss}, but at a learning "
                f"rate of {rate:.1e} the new adapter contains NaN or infinity: lower "
                f"{self._name}.learning_rate. Earlier checkpoints are kept"
            )
        self._add_to_totals(step, now)
        speed = self._since_row.speed(now, self._peak)
        self._bar.set_postfix_str(
            f"loss {loss:.3f}, lr {rate:.1e}, {_in_words(speed)}", refresh=False
        )
        self._bar.update()
        first, last = step == 1, step == self._stage.steps
        if first or last or step % self._stage.log_every == 0:
            self._write(
                {
                    "stage": self._name,
                    "step": step,
                    "time": round(time.time(), 3),
                    "loss": loss,
                    "learning_rate": rate,
                    "gradient_norm": norm,
                    **speed,
                }
            )
            self._since_row = _Totals(since=now)

    def _add_to_totals(self, step: int, now: float) -> None:
        totals, tokens = self._since_row, self._batches.tokens(step - 1)
        totals.tokens += tokens
        totals.places += tokens / (1 - self._batches.padding(step - 1))
        if self._compiling_since is None:
            totals.timed_tokens += tokens
            totals.timed_flops += flops.batch_flops(
                self._model, self._multiplied, self._batches, step - 1
            )
        else:
            totals.since += now - self._compiling_since
            self._compiling_since = None

    def _write(self, row: MetricsRow) -> None:
        self._run.log(row)
        self._trackers.log(row)


@dataclass
class _Totals:
    """Sums over the updates since the last row.

    Attributes:
      since: when the first of them was started, moved later by all time that does not
        count.
      tokens: without padding.
      places: for tokens, padding included.
      timed_tokens: tokens of the updates whose time counts.
      timed_flops: operations of these updates.
    """

    since: float
    tokens: int = 0
    places: float = 0.0
    timed_tokens: int = 0
    timed_flops: float = 0.0

    def speed(self, now: float, peak: float | None) -> Speed:
        """Until `now`; `peak` is that of all devices, None if it is unknown."""
        speed: Speed = {"padding_share": round(1 - self.tokens / self.places, 4)}
        if not self.timed_tokens:
            return speed
        seconds = max(now - self.since, 1e-9)
        flops_per_second = self.timed_flops / seconds
        speed["tokens_per_second"] = round(self.timed_tokens / seconds, 1)
        speed["model_tflops_per_second"] = round(flops_per_second / 1e12, 6)
        if peak is not None:
            speed["model_flop_utilisation"] = round(flops_per_second / peak, 4)
        return speed


def _in_words(speed: Speed) -> str:
    """For the progress bar: the share of the peak, or TFLOP/s if that is unknown."""
    padding = f"{100 * speed['padding_share']:.0f} % padding"
    if "tokens_per_second" not in speed or "model_tflops_per_second" not in speed:
        return padding
    if "model_flop_utilisation" in speed:
        work = f"{100 * speed['model_flop_utilisation']:.1f} % of peak"
    else:
        work = f"{speed['model_tflops_per_second']:.3g} TFLOP/s"
    return f"{speed['tokens_per_second']:,.0f} tokens/s, {padding}, {work}"

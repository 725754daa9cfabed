"""What is seen of a stage while it runs: progress, metrics, and a watch on the loss."""

import math
import time

import jax

from musilingo_jax import cli
from musilingo_jax.batches import Batches
from musilingo_jax.errors import UserError
from musilingo_jax.runs import RunFolder
from musilingo_jax.stages import StageConfig
from musilingo_jax.update import Report


class Journal:
    """Reads the reports of updates, each one update late.

    An update is only *started* when it returns. Reading its report waits for it, so the
    report is read once the next update is started, and the device never idles.
    """

    def __init__(
        self,
        name: str,
        stage: StageConfig,
        batches: Batches,
        run: RunFolder,
        start: int,
    ):
        """Shows a bar for the stage `name`, of which `start` updates are done."""
        self._name, self._stage, self._batches, self._run = name, stage, batches, run
        self._learning_rate = stage.schedule()
        self._waiting: tuple[int, Report] | None = None
        self._tokens, self._since = 0, time.monotonic()
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
        self._tokens += self._batches.tokens(done - 1)
        seconds = max(time.monotonic() - self._since, 1e-9)
        speed = self._tokens / seconds
        # The schedule counts the updates before this one.
        rate = float(self._learning_rate(done - 1))
        self._bar.set_postfix_str(
            f"loss {loss:.3f}, lr {rate:.1e}, {speed:,.0f} tokens/s", refresh=False
        )
        self._bar.update()
        if done == 1 or done == self._stage.steps or done % self._stage.log_every == 0:
            self._run.log(
                {
                    "stage": self._name,
                    "step": done,
                    "loss": loss,
                    "learning_rate": rate,
                    "gradient_norm": norm,
                    "tokens_per_second": round(speed, 1),
                }
            )
            self._tokens, self._since = 0, time.monotonic()

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()

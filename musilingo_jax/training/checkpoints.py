"""Everything needed to resume: what learns, the optimiser, the step and the config.

Orbax writes a checkpoint into a temporary folder and renames it when it is complete, so
a kill at any moment leaves either the whole checkpoint or none. Saving continues in the
background, and the saved arrays may be donated meanwhile. Frozen models are not saved.

A checkpoint can hold its validation loss, which is written and renamed with it. So the
best checkpoint is known after a restart as well.
"""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import (
    AnyPreservationPolicy,
    BestN,
    LatestN,
)

from musilingo_jax.runtime import distributed
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.training import orbax_errors
from musilingo_jax.training.run_folder import writing

Tree = TypeVar("Tree")


class Checkpoints:
    """The checkpoints of one stage, named by the number of updates done.

    Since saving continues in the background, a full disk is reported by whatever method
    is called next. Must be used as a context, or closed.
    """

    def __init__(self, folder: Path, *, keep: int):
        """Opens or makes the folder.

        Args:
          folder: of the checkpoints of this stage.
          keep: number of newest checkpoints to keep; the best one is kept as well.

        Raises:
          UserError: a file has the name of the folder, the loss of a checkpoint cannot
            be read, or as in `writing`.
        """
        self._folder, self._failed = folder.absolute(), False
        if self._folder.is_file():
            raise UserError(
                f"{self._folder}: is a file, but should be the folder of checkpoints: "
                "delete it, or choose another folder with --config.run=…"
            )
        for path in sorted(self._folder.glob("[0-9]*/metrics/metrics")):
            _check_metrics(path)
        orbax_errors.report_once()
        with writing(self._folder):
            self._manager = ocp.CheckpointManager(
                self._folder,
                options=ocp.CheckpointManagerOptions(
                    best_fn=_rank,
                    best_mode="min",
                    preservation_policy=AnyPreservationPolicy(
                        [LatestN(keep), BestN(get_metric_fn=_rank, reverse=True, n=1)]
                    ),
                    cleanup_tmp_directories=True,
                ),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes, but does not wait if the program was interrupted or saving failed.

        To wait then could be to wait for another process that has already ended.
        """
        refused = isinstance(error, UserError) and not self._failed
        if error is None or refused:
            self.close()

    def latest(self) -> int | None:
        """Updates done at the newest complete checkpoint; None if there is none."""
        return self._manager.latest_step()

    def best(self) -> tuple[int, float] | None:
        """Updates done at the checkpoint with the lowest validation loss, and the loss.

        Of equal losses the later one; None if no checkpoint has a loss. Waits for what
        is being saved.

        Raises:
          UserError: as in `writing`.
        """
        with self._saving():
            self._manager.wait_until_finished()
        step = self._manager.best_step()
        loss = math.inf if step is None else _rank(self._manager.metrics(step))
        return None if step is None or math.isinf(loss) else (step, loss)

    def save(
        self,
        step: int,
        state: Any,
        config: dict[str, Any],
        validation: float | None,
    ) -> None:
        """Starts to save; returns as soon as `state` may be donated.

        Args:
          step: updates done.
          state: after these updates, any pytree of arrays.
          config: of the run, resolved.
          validation: validation loss after these updates, if it was computed.

        Raises:
          UserError: as in `writing`, about this checkpoint or the one before.
        """
        with self._saving():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), config=ocp.args.JsonSave(config)
                ),
                metrics={} if validation is None else {_LOSS: validation},
                force=True,
            )

    def restore(self, step: int, like: Tree) -> Tree:
        """Reads a checkpoint onto the mesh of `like`, whatever mesh wrote it.

        Args:
          step: which checkpoint.
          like: shapes, types and shardings (`jax.ShapeDtypeStruct` leaves).

        Raises:
          UserError: it cannot be read.
        """
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardRestore(like)),
            )
            return restored["state"]
        # Each file of a checkpoint has errors of its own when it is damaged.
        except Exception as error:
            distributed.end_with_others()
            # TensorStore appends the whole request, some hundred characters.
            reason, _, _ = str(error).partition(" [tensorstore_spec")
            reason = reason.splitlines()[0] if reason else type(error).__name__
            raise _unreadable(self._folder / str(step), reason) from error

    def close(self) -> None:
        """Waits for what is being saved.

        Raises:
          UserError: as in `writing`.
        """
        with self._saving():
            self._manager.close()

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        """Reports a failure to save in one sentence, and remembers that it failed."""
        self._failed = True
        with writing(self._folder):
            yield
        self._failed = False


_LOSS = "validation_loss"


def _rank(metrics: dict[str, float] | None) -> float:
    """What checkpoints are compared by: lower is better, an unknown loss is worst."""
    return (metrics or {}).get(_LOSS, math.inf)


def _check_metrics(path: Path) -> None:
    """Checks the file with the loss of a checkpoint; Orbax's error names no path.

    Raises:
      UserError: it is damaged.
    """
    try:
        metrics = json.loads(path.read_bytes())
        intact = all(isinstance(value, float) for value in metrics.values())
    except (OSError, ValueError, AttributeError):
        intact = False
    if not intact:
        raise _unreadable(path.parents[1], f"{path} is damaged")


def _unreadable(checkpoint: Path, reason: str) -> UserError:
    return UserError(
        f"the checkpoint {checkpoint} cannot be read: {reason.rstrip('.')}. Delete "
        "that folder to resume from an earlier one"
    )

"""What is needed to go on: adapter, optimiser, step and the resolved config.

Orbax writes a checkpoint into a temporary folder and renames it when it is whole, so a
kill at any moment leaves either the new checkpoint or none of it. Saving goes on in the
background; it is safe with donated buffers. The frozen models are never in here.

A checkpoint may know its validation loss, which is written and renamed with it. So
which one is the best is known after any restart, and as if there had been none.
"""

import math
from pathlib import Path

import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import (
    AnyPreservationPolicy,
    BestN,
    LatestN,
)

from musilingo_jax.errors import UserError
from musilingo_jax.update import TrainState


class Checkpoints:
    """The checkpoints of one stage, named by how many steps were done."""

    def __init__(self, folder: Path, *, keep: int):
        """Opens or makes the folder.

        Args:
          folder: where the checkpoints of this stage are.
          keep: how many of the newest stay; the best one stays besides.
        """
        self._folder = folder.absolute()
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

    def latest(self) -> int | None:
        """Steps done at the newest whole checkpoint, None if there is none."""
        return self._manager.latest_step()

    def best(self) -> tuple[int, float] | None:
        """Steps done at the checkpoint with the lowest validation loss, and that loss.

        The later one of equals; None if no checkpoint knows its loss. Waits for what is
        being saved.
        """
        self._manager.wait_until_finished()
        step = self._manager.best_step()
        loss = math.inf if step is None else _rank(self._manager.metrics(step))
        return None if math.isinf(loss) else (step, loss)

    def save(
        self, step: int, state: TrainState, config: dict, validation: float | None
    ) -> None:
        """Starts to save; returns as soon as `state` may be donated.

        Args:
          step: updates done.
          state: after them.
          config: the run's, resolved.
          validation: the loss on the validation split, if it has been looked at now.
        """
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), config=ocp.args.JsonSave(config)
            ),
            metrics={} if validation is None else {_LOSS: validation},
            force=True,
        )

    def restore(self, step: int, like: TrainState) -> TrainState:
        """Reads a checkpoint onto the mesh of `like`, whatever mesh wrote it.

        Args:
          step: which checkpoint.
          like: shapes, types and shardings (`jax.ShapeDtypeStruct` leaves).

        Raises:
          UserError: it cannot be read.
        """
        try:
            return self._manager.restore(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardRestore(like)),
            ).state
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"the checkpoint {self._folder / str(step)} cannot be read: "
                f"{str(error).splitlines()[0]} Delete that folder to go on from an "
                "earlier one."
            ) from error

    def close(self) -> None:
        """Waits for what is being saved."""
        self._manager.wait_until_finished()
        self._manager.close()


_LOSS = "validation_loss"


def _rank(metrics: dict[str, float] | None) -> float:
    """What checkpoints are compared by: lower is better, unknown is worst."""
    return (metrics or {}).get(_LOSS, math.inf)

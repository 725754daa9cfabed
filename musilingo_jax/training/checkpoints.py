"""What is needed to go on: adapter, optimiser, step and the resolved config.

Orbax writes a checkpoint into a temporary folder and renames it when it is whole, so a
kill at any moment leaves either the new checkpoint or none of it. Saving goes on in the
background; it is safe with donated buffers. The frozen models are never in here.

A checkpoint may know its validation loss, which is written and renamed with it. So
which one is the best is known after any restart, and as if there had been none.
"""

import contextlib
import functools
import json
import math
import sys
from collections.abc import Callable, Iterator
from logging import ERROR, LogRecord, getLogger
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint.checkpoint_managers import (
    AnyPreservationPolicy,
    BestN,
    LatestN,
)

from musilingo_jax.runtime import distributed
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.training.run_folder import writing
from musilingo_jax.training.train_step import TrainState


class Checkpoints:
    """The checkpoints of one stage, named by how many steps were done.

    Saving goes on in the background, so that a disk that is full may be told of by
    whatever is called next. To be used as a context, or closed.
    """

    def __init__(self, folder: Path, *, keep: int):
        """Opens or makes the folder.

        Args:
          folder: where the checkpoints of this stage are.
          keep: how many of the newest stay; the best one stays besides.

        Raises:
          UserError: there is a file in its place, a checkpoint's loss cannot be read,
            or as in `writing`.
        """
        self._folder, self._failed = folder.absolute(), False
        if self._folder.is_file():
            raise UserError(
                f"{self._folder}: is a file, where the folder of checkpoints should be:"
                " delete it, or choose another folder with --config.run=…"
            )
        for path in sorted(self._folder.glob("[0-9]*/metrics/metrics")):
            _check_metrics(path)
        _tell_once()
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
        """Closes, but waits for nothing if it was told to end, or saving has failed.

        Another process may be waited for that is no longer there.
        """
        saved = isinstance(error, UserError) and not self._failed
        if kind is None or saved:
            self.close()

    def latest(self) -> int | None:
        """Steps done at the newest whole checkpoint, None if there is none."""
        return self._manager.latest_step()

    def best(self) -> tuple[int, float] | None:
        """Steps done at the checkpoint with the lowest validation loss, and that loss.

        The later one of equals; None if no checkpoint knows its loss. Waits for what is
        being saved.

        Raises:
          UserError: as in `writing`.
        """
        with self._saving():
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

        Raises:
          UserError: as in `writing`, of this checkpoint or the one before.
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
        # Each file of a checkpoint has errors of its own when it is damaged.
        except Exception as error:
            distributed.end_with_others()
            # TensorStore adds all that it was asked, in a few hundred letters.
            said, _, _ = str(error).partition(" [tensorstore_spec")
            said = said.splitlines()[0] if said else type(error).__name__
            raise _unreadable(self._folder / str(step), said) from error

    def close(self) -> None:
        """Waits for what is being saved.

        Raises:
          UserError: as in `writing`.
        """
        with self._saving():
            self._manager.close()

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        """Tells in one sentence what saving fails with, and remembers it."""
        self._failed = True
        with writing(self._folder):
            yield
        self._failed = False


_LOSS = "validation_loss"


def _rank(metrics: dict[str, float] | None) -> float:
    """What checkpoints are compared by: lower is better, unknown is worst."""
    return (metrics or {}).get(_LOSS, math.inf)


def _check_metrics(path: Path) -> None:
    """Checks the file with the loss of a checkpoint, of which Orbax names no path.

    Raises:
      UserError: it is damaged.
    """
    try:
        metrics = json.loads(path.read_bytes())
        numbers = all(isinstance(value, float) for value in metrics.values())
    except (OSError, ValueError, AttributeError):
        numbers = False
    if not numbers:
        raise _unreadable(path.parents[1], f"{path} is damaged")


def _unreadable(checkpoint: Path, said: str) -> UserError:
    return UserError(
        f"the checkpoint {checkpoint} cannot be read: {said.rstrip('.')}. Delete that "
        "folder to go on from an earlier one"
    )


def _tell_once() -> None:
    """Lets what Orbax's threads fail with be told by whoever waits for them, alone.

    They log it with a traceback of each thread that it goes through, which
    `--verbosity=0` still shows; and arrays that are read or written after one has
    failed come back to nobody.
    """
    getLogger("absl").addFilter(_is_told)
    getLogger("asyncio").addFilter(_is_told)
    before = sys.unraisablehook
    if getattr(before, "func", None) is not _tell_unraisable:
        sys.unraisablehook = functools.partial(_tell_unraisable, before)


def _is_told(record: LogRecord) -> bool:
    theirs = "orbax" in record.pathname or "asyncio" in record.pathname
    return (
        record.levelno < ERROR
        or not theirs
        or logging.get_verbosity() > logging.WARNING
    )


def _tell_unraisable(usual: Callable[[Any], None], found: Any) -> None:
    if str(found.exc_value) != "Event loop is closed":
        usual(found)

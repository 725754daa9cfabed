"""Everything needed to resume: what learns, the optimiser, the step and the config.

Orbax writes a checkpoint into a temporary folder and renames it when it is complete, so
a kill at any moment leaves either the whole checkpoint or none. Saving continues in the
background, and the saved arrays may be donated meanwhile. Frozen models are not saved.

A checkpoint can hold its validation loss, which is written and renamed with it. So the
best checkpoint is known after a restart as well.

    8/state      what learns, and the optimiser
    8/config     the resolved config
    8/metrics    the validation loss, if there is one
    8/digest     of each array of the state, and the loss once more

Disks and networks change bits. Orbax stores the numbers without checksums, so a digest
of them is saved beside them, and compared when they are read. Checkpoints of older
versions have none and are read as they are.
"""

import codecs
import contextlib
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
from musilingo_jax.runtime.json_files import read_json
from musilingo_jax.runtime.printable import printable
from musilingo_jax.training import orbax_errors
from musilingo_jax.training.run_folder import writing
from musilingo_jax.training.state_digest import state_digest

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
        for step in _steps(self._folder):
            _check_loss(self._folder / str(step))
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
        metrics = {} if validation is None else {_LOSS: validation}
        with self._saving():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    config=ocp.args.JsonSave(config),
                    digest=ocp.args.JsonSave(
                        {"state": state_digest(state), "metrics": metrics}
                    ),
                ),
                metrics=metrics,
                force=True,
            )

    def restore(self, step: int, like: Tree) -> Tree:
        """Reads a checkpoint onto the mesh of `like`, whatever mesh wrote it.

        Args:
          step: which checkpoint.
          like: shapes, types and shardings (`jax.ShapeDtypeStruct` leaves).

        Raises:
          UserError: it cannot be read, or is not what was saved.
        """
        checkpoint = self._folder / str(step)
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardRestore(like)),
            )["state"]
        # Each file of a checkpoint has errors of its own when it is damaged.
        except Exception as error:
            distributed.end_with_others()
            raise _unreadable(checkpoint, orbax_errors.reason(error)) from error
        expected = _digest(checkpoint).get("state")
        if expected is not None:
            found = state_digest(restored)
            changed = [name for name in found if found[name] != expected.get(name)]
            if changed:
                raise _unreadable(
                    checkpoint,
                    f"the numbers of {changed[0]} are not those that were saved",
                )
        return restored

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


def _check_loss(checkpoint: Path) -> None:
    """Checks the file with the loss of a checkpoint; Orbax's error names no path.

    Raises:
      UserError: it is damaged.
    """
    path = checkpoint / "metrics" / "metrics"
    if not path.exists():
        return
    try:
        metrics = read_json(path)
    except UserError as error:
        raise _unreadable(checkpoint, str(error)) from error
    expected = _digest(checkpoint).get("metrics", metrics)
    # Orbax, which reads it too, does not skip a byte order mark.
    marked = path.read_bytes().startswith(codecs.BOM_UTF8)
    known = metrics == expected and not marked
    if not known or not all(isinstance(v, float) for v in metrics.values()):
        raise _unreadable(checkpoint, f"{path} is damaged")


def _digest(checkpoint: Path) -> dict[str, Any]:
    """What was saved to compare with; nothing in checkpoints of older versions.

    Raises:
      UserError: it is damaged.
    """
    path = checkpoint / "digest" / "metadata"  # As Orbax calls the only file of JSON.
    if not path.parent.exists():
        return {}
    try:
        content = read_json(path)
    except UserError as error:
        raise _unreadable(checkpoint, str(error)) from error
    if content.keys() != {"state", "metrics"} or not all(
        isinstance(value, dict) for value in content.values()
    ):
        raise _unreadable(checkpoint, f"{path} is damaged")
    return content


def _steps(folder: Path) -> list[int]:
    """The checkpoints in a folder, by the number of updates done."""
    names = [path.name for path in folder.glob("[0-9]*")]
    return sorted(int(name) for name in names if name.isdecimal())


def _unreadable(checkpoint: Path, reason: str) -> UserError:
    """The message for a damaged checkpoint, with what happens if it is deleted."""
    others = [s for s in _steps(checkpoint.parent) if str(s) != checkpoint.name]
    after = (
        f"resumes after update {max(others)}, from the newest of the others"
        if others
        else "begins again at its first update, because there is no other checkpoint"
    )
    return UserError(
        f"the checkpoint {checkpoint} cannot be read: {printable(reason.rstrip('.'))}. "
        f"Delete that folder; the same command then {after}"
    )

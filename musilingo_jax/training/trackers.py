"""Where a run can be watched: TensorBoard always, Weights & Biases if it is named.

    tensorboard --logdir=runs/tiny/tensorboard
    python -m musilingo_jax.train --config=… --config.wandb=my-project

Both show what `metrics.jsonl` holds, which stays the only truth. TensorBoard's files
are written anew from it whenever a stage goes on, so that what was forgotten with a
kill is not shown twice. Weights & Biases cannot forget; it is given each update once,
and an update that is done again has the same loss.
"""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.training.run_folder import RunFolder, writing

# Seconds after which TensorBoard sees what was written.
_FLUSH = 10
# Of a row of metrics.jsonl: what is no curve.
_NO_CURVES = ("stage", "step", "time")


class Trackers:
    """Shows rows of metrics; only the first process does anything."""

    def __init__(self, run: RunFolder, project: str):
        """Begins, or goes on, to show a run.

        Args:
          run: its folder.
          project: of Weights & Biases; "" for none.

        Raises:
          UserError: a project is named, but `wandb` is not installed or refuses.
        """
        self._run, self._first = run, jax.process_index() == 0
        # Without the thread of tensorboardX's own writer, which dies unheard and is
        # then waited for without end, when the disk is full.
        self._board: EventsWriter | None = None
        self._wandb = _begin_wandb(run, project) if project and self._first else None
        self._before = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self._close_board()
        finally:
            if self._wandb is not None:
                self._wandb.finish(exit_code=int(error[0] is not None))

    def begin(
        self, stage: str, rows: Sequence[Mapping[str, Any]], *, before: int
    ) -> None:
        """Begins, or goes on, to show a stage.

        Args:
          stage: its name.
          rows: of it, those of before.
          before: updates of the stages before it, to count through.

        Raises:
          UserError: as in `writing`.
        """
        self._before = before
        if not self._first:
            return
        self._close_board()
        folder = self._run.path / "tensorboard" / stage
        with writing(self._run.path):
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
            folder.mkdir(parents=True, exist_ok=True)
            self._board = EventsWriter(str(folder / "events"))
            # Tells a TensorBoard that is looking to forget what the old files told.
            again = SessionLog(status=SessionLog.START)
            self._board.write_event(Event(step=0, session_log=again))
            for row in rows:
                self._draw(row)
            self._flush()
        if self._wandb is not None:
            for row in rows:
                if self._count(row) >= self._wandb.step:
                    self._report(row)

    def log(self, row: Mapping[str, Any]) -> None:
        """Shows a row of metrics.jsonl; errors as in `writing`."""
        if self._first:
            with writing(self._run.path):
                self._draw(row)
                if time.monotonic() > self._flushed + _FLUSH:
                    self._flush()
            if self._wandb is not None:
                self._report(row)

    def _draw(self, row: Mapping[str, Any]) -> None:
        for name, value in _curves(row).items():
            self._board.write_event(
                Event(
                    summary=scalar(name, value),
                    step=row["step"],
                    wall_time=row["time"],
                )
            )

    def _report(self, row: Mapping[str, Any]) -> None:
        values = {f"{row['stage']}/{key}": v for key, v in _curves(row).items()}
        # An update that it knows already, it leaves out.
        self._wandb.log(values, step=self._count(row))

    def _count(self, row: Mapping[str, Any]) -> int:
        return self._before + row["step"]

    def _flush(self) -> None:
        self._board.flush()
        self._flushed = time.monotonic()

    def _close_board(self) -> None:
        if self._board is not None:
            board, self._board = self._board, None
            with writing(self._run.path):
                board.close()


def _curves(row: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in row.items() if key not in _NO_CURVES}


def _begin_wandb(run: RunFolder, project: str) -> Any:
    """The run of Weights & Biases that belongs to the folder.

    Raises:
      UserError: as in `Trackers`.
    """
    try:
        import wandb
    except ImportError as error:
        raise UserError(
            f"config.wandb names the project {project!r}, but wandb is not installed: "
            "pip install -e '.[wandb]', or leave it out with --config.wandb="
        ) from error
    if not (run.path / "wandb.json").exists():
        run.write("wandb.json", json.dumps({"id": secrets.token_hex(4)}) + "\n")
    try:
        return wandb.init(
            project=project,
            id=run.read("wandb.json")["id"],
            name=run.path.name,
            dir=str(run.path),
            config=run.config,
            resume="allow",
        )
    # Of its many errors most are about accounts and networks.
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"config.wandb: Weights & Biases cannot be reached ({said}): log in with "
            "`wandb login`, or set WANDB_MODE=offline, or leave it out with "
            "--config.wandb="
        ) from error

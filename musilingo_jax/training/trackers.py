"""Shows a run in TensorBoard and, if the config names a project, in Weights & Biases.

    tensorboard --logdir=runs/tiny/tensorboard
    python -m musilingo_jax.train --config=… --config.wandb=my-project

Both show what `metrics.jsonl` holds; that file is the only record. TensorBoard's files
are written again from it whenever a stage starts or resumes, so updates that a kill has
undone are not shown twice. Weights & Biases cannot delete a step: it is sent each
update once, and an update that is done again has the same loss.
"""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.training.metrics_rows import MetricsRow
from musilingo_jax.training.run_folder import RunFolder, writing

# Seconds after which TensorBoard sees what was written.
_FLUSH_SECONDS = 10
# Keys of a row of metrics.jsonl that are not curves.
_NOT_CURVES = ("stage", "step", "time")


class Trackers:
    """Shows rows of metrics. Only the first process does anything."""

    def __init__(self, run: RunFolder, project: str):
        """Connects to Weights & Biases, if a project is named.

        Args:
          run: folder of the run.
          project: of Weights & Biases; "" for none.

        Raises:
          UserError: a project is named, but `wandb` is not installed or fails.
        """
        self._run, self._first = run, jax.process_index() == 0
        # tensorboardX's own writer has a thread that dies silently on a full disk, and
        # closing the writer then waits for it forever.
        self._board: Any = None  # An EventsWriter.
        self._flushed = time.monotonic()
        self._wandb = _start_wandb(run, project) if project and self._first else None
        self._earlier_steps = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self._close_board()
        finally:
            if self._wandb is not None:
                self._wandb.finish(exit_code=int(error[0] is not None))

    def begin(
        self, stage: str, rows: Sequence[MetricsRow], *, earlier_steps: int
    ) -> None:
        """Starts to show a stage.

        Args:
          stage: its name.
          rows: its rows so far, if it is resumed.
          earlier_steps: updates of all stages before it.

        Raises:
          UserError: as in `writing`.
        """
        self._earlier_steps = earlier_steps
        if not self._first:
            return
        # Here and not above, because tensorboardX imports PyTorch if it is installed.
        from tensorboardX.event_file_writer import EventsWriter

        self._close_board()
        folder = self._run.path / "tensorboard" / stage
        with writing(self._run.path):
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
            folder.mkdir(parents=True, exist_ok=True)
            self._board = board = EventsWriter(str(folder / "events"))
            # Makes a running TensorBoard discard what it read from the old files.
            messages = _messages()
            restart = messages.SessionLog(status=messages.SessionLog.START)
            board.write_event(messages.Event(step=0, session_log=restart))
            for row in rows:
                _draw(board, row)
            self._flush(board)
        if self._wandb is not None:
            for row in rows:
                if self._total_steps(row) >= self._wandb.step:
                    self._send(row)

    def log(self, row: MetricsRow) -> None:
        """Shows a row of metrics.jsonl.

        Raises:
          UserError: as in `writing`.
        """
        if self._board is not None:
            with writing(self._run.path):
                _draw(self._board, row)
                if time.monotonic() > self._flushed + _FLUSH_SECONDS:
                    self._flush(self._board)
        self._send(row)

    def _send(self, row: MetricsRow) -> None:
        """Sends a row to Weights & Biases, which ignores a step that it knows."""
        if self._wandb is not None:
            values = {f"{row['stage']}/{key}": v for key, v in _curves(row).items()}
            self._wandb.log(values, step=self._total_steps(row))

    def _total_steps(self, row: MetricsRow) -> int:
        return self._earlier_steps + row["step"]

    def _flush(self, board: Any) -> None:
        board.flush()
        self._flushed = time.monotonic()

    def _close_board(self) -> None:
        if self._board is not None:
            board, self._board = self._board, None
            with writing(self._run.path):
                board.close()


def _messages() -> Any:
    """The messages of TensorBoard's files, which protobuf makes when it is imported."""
    from tensorboardX.proto import event_pb2

    return event_pb2


def _draw(board: Any, row: MetricsRow) -> None:
    from tensorboardX.summary import scalar

    for name, value in _curves(row).items():
        message = _messages().Event(
            summary=scalar(name, value), step=row["step"], wall_time=row["time"]
        )
        board.write_event(message)


def _curves(row: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in row.items() if key not in _NOT_CURVES}


def _start_wandb(run: RunFolder, project: str) -> Any:
    """The run of Weights & Biases that belongs to the folder.

    Raises:
      UserError: as in `Trackers`.
    """
    try:
        import wandb  # pyright: ignore[reportMissingImports]  # An extra.
    except ImportError as error:
        raise UserError(
            f"config.wandb names the project {project!r}, but wandb is not installed: "
            "pip install -e '.[wandb]', or turn it off with --config.wandb="
        ) from error
    if not (run.path / "wandb.json").exists():
        run.write("wandb.json", json.dumps({"id": secrets.token_hex(4)}) + "\n")
    identity = run.read("wandb.json").get("id")
    if not isinstance(identity, str):
        raise UserError(
            f"{run.path / 'wandb.json'}: has no id that is text: delete the file, and "
            "Weights & Biases shows this run as a new one"
        )
    try:
        return wandb.init(
            project=project,
            id=identity,
            name=run.path.name,
            dir=str(run.path),
            config=run.config,
            resume="allow",
        )
    # It has many errors, most of them about accounts and networks.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"config.wandb: Weights & Biases cannot be reached ({reason}): log in with "
            "`wandb login`, or set WANDB_MODE=offline, or turn it off with "
            "--config.wandb="
        ) from error

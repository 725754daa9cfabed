"""The run folder: everything that one run makes lies below it.

    config.json    the resolved config         stage1/checkpoints    to go on from
    inputs.json    fingerprints of inputs      stage1/examples.json  what is learnt from
    metrics.jsonl  loss, learning rate, speed  adapter/              the result
    loss.png       the same, drawn             adapter-best/         by validation loss
    tensorboard/   the same, to browse         summary.txt           what happened

Only the first process writes, always a whole file at once; all of them read, so that
the folder must be on a disk that they share.
"""

import contextlib
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from musilingo_jax.runtime import distributed
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.storage import lock_folder, write_failure, write_text

# What may change when a run goes on, because the adapter it learns stays the same.
FREE = (
    "run",
    "wandb",
    "mesh",
    "generate",
    "corpus.test_split",
    "features.batch_size",
    "features.cache",
    "features.shard_clips",
)
FREE_IN_STAGES = ("checkpoint_every", "keep", "log_every", "remat")


class RunFolder:
    """The folder of one run, with one config."""

    def __init__(self, config: ConfigDict):
        """Makes the folder `config.run`, if there is none.

        Raises:
          UserError: nothing can be written there, or another process sees another
            folder there.
        """
        self.path = Path(config.run).absolute()
        # By way of JSON, so that what is compared is what was written.
        self.config = json.loads(json.dumps(config.to_dict()))
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".probe-{jax.process_index()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            # As in /proc, where it would only name the folder that is to be made.
            none = isinstance(error, FileNotFoundError)
            reason = "no folder can be made there" if none else error.strerror
            raise UserError(
                f"config.run: nothing can be written to {self.path} ({reason}): "
                "choose another folder with --config.run=…"
            ) from error
        if jax.process_count() > 1:
            self._check_shared()

    def checkpoints(self, stage: str) -> Path:
        """Where the checkpoints of a stage are."""
        return self.path / stage / "checkpoints"

    def claim(self, inputs: dict[str, str]) -> None:
        """Writes down what this run is; if it is begun, checks that it is the same.

        Args:
          inputs: name → fingerprint of what the config only names (files, records).

        Raises:
          UserError: the folder holds checkpoints that were learnt from something else.
        """
        if jax.process_index() == 0:
            lock_folder(self.path, doing="training")
        claims = {"config.json": self.config, "inputs.json": inputs}
        if any(self.path.glob("*/checkpoints/[0-9]*")):
            changed = []
            for name, value in claims.items():
                old, new = _flat(self.read(name)), _flat(value)
                changed += sorted(
                    key
                    for key in old.keys() | new.keys()
                    if old.get(key) != new.get(key) and not self._free(key)
                )
            if changed:
                raise UserError(
                    f"{self.path} holds a run that differs in {', '.join(changed)}: "
                    "choose another folder with --config.run=…, or change that back, "
                    "or delete the folder to begin again"
                )
        for name, value in claims.items():
            self.write(name, json.dumps(value, indent=2) + "\n")

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder.

        Raises:
          UserError: it is not there or is damaged.
        """
        try:
            found = json.loads((self.path / name).read_text(encoding="utf-8"))
            if not isinstance(found, dict):
                raise ValueError("it is damaged: no JSON object")
            return found
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.path / name} cannot be read ({error}), so this run cannot go "
                "on: put it back, or choose another folder with --config.run=…"
            ) from error

    def write(self, name: str, text: str) -> None:
        """Writes a text file, whole or not at all.

        Raises:
          UserError: as in `writing`.
        """
        if jax.process_index() == 0:
            with writing(self.path):
                write_text(self.path / name, text)

    def log(self, row: dict[str, Any]) -> None:
        """Adds a row to metrics.jsonl; errors as in `writing`."""
        if jax.process_index() == 0:
            with (
                writing(self.path),
                open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file,
            ):
                file.write(json.dumps(row) + "\n")

    def metrics(self, stage: str) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl about one stage.

        Those of updates have a `loss`, those of looks at the validation split a
        `validation_loss`.

        Raises:
          UserError: a line is damaged, other than by a kill while it was written.
        """
        return [row for row in self._rows() if row["stage"] == stage]

    def rewind(self, stage: str, step: int) -> None:
        """Forgets the metrics of what comes after `step` and will be done again."""
        kept = [r for r in self._rows() if r["stage"] != stage or r["step"] <= step]
        self.write("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in kept))

    def _rows(self) -> list[dict[str, Any]]:
        path = self.path / "metrics.jsonl"
        *lines, torn = path.read_bytes().split(b"\n") if path.exists() else [b""]
        rows = []
        for number, line in enumerate(lines, start=1):
            row = _row(line)
            if row is None:
                raise UserError(
                    f"{path}:{number}: is damaged, so this run cannot go on: mend or "
                    "delete that line, or choose another folder with --config.run=…"
                )
            rows.append(row)
        # Of a last line without its end, the program was killed while it wrote it.
        last = _row(torn)
        return rows if last is None else [*rows, last]

    def _check_shared(self) -> None:
        """Checks that all processes see the folder of the first one.

        That one writes a file with a name that nobody can guess, the others say whether
        they see it, and all hear of each other. Without it, the first checkpoint would
        be waited for without end.

        Raises:
          UserError: one does not see it.
        """
        first = jax.process_index() == 0
        others = range(1, jax.process_count())
        if first:
            probe = self.path / f".probe-{secrets.token_hex(8)}"
            with writing(self.path):
                probe.touch()
            distributed.propose("run/probe", probe.name)
            seen = {other: distributed.hear(f"run/seen/{other}") for other in others}
            probe.unlink(missing_ok=True)
            blind = [str(other) for other in others if seen[other] != "yes"]
            distributed.propose("run/blind", ", ".join(blind))
        else:
            name = distributed.hear("run/probe")
            seen = "yes" if (self.path / name).exists() else "no"
            distributed.propose(f"run/seen/{jax.process_index()}", seen)
        if blind := distributed.hear("run/blind"):
            raise UserError(
                f"config.run: process {blind} does not see the folder {self.path} of "
                "process 0: --config.run must be on a disk that all processes share"
            )

    def _free(self, key: str) -> bool:
        stages = self.config["stages"]
        free = (*FREE, *(f"{s}.{name}" for s in stages for name in FREE_IN_STAGES))
        return any(key == name or key.startswith(f"{name}.") for name in free)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Says in one sentence why something cannot be written below the folder of a run.

    Raises:
      UserError: the disk is full, the folder is gone, or it must not be written.
    """
    try:
        yield
    except Exception as error:
        again = "run the same command again, which resumes from the newest checkpoint"
        failure = write_failure(folder, error, again=again)
        if failure is None:
            raise
        raise failure from error


def _row(line: bytes) -> dict[str, Any] | None:
    """A line of metrics.jsonl; None if it is no row of metrics."""
    try:
        row = json.loads(line)
    except ValueError:  # No JSON, or no UTF-8.
        return None
    if not isinstance(row, dict):
        return None
    kinds = {"stage": str, "step": int, "time": int | float}
    kinds["validation_loss" if "validation_loss" in row else "loss"] = int | float
    whole = all(isinstance(row.get(key), kind) for key, kind in kinds.items())
    return row if whole else None


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
    """Nested keys → values: {"a": {"b": 1}} → {"a.b": 1}."""
    if not isinstance(tree, dict):
        return {path: tree}
    return {
        key: value
        for name, branch in tree.items()
        for key, value in _flat(branch, f"{path}.{name}" if path else name).items()
    }

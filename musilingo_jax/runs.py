"""The run folder: everything that one run makes lies below it.

    config.json    the resolved config         stage1/checkpoints    to go on from
    inputs.json    fingerprints of inputs      stage1/examples.json  what is learnt from
    metrics.jsonl  loss, learning rate, speed  adapter/              the result
    loss.png       the same, drawn             adapter-best/         by validation loss
    tensorboard/   the same, to browse         summary.txt           what happened

Only the first process writes, always a whole file at once; all of them read.
"""

import json
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from musilingo_jax.errors import UserError
from musilingo_jax.files import claim, write_whole

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
          UserError: nothing can be written there.
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
            raise UserError(
                f"config.run: nothing can be written to {self.path} ({error.strerror}):"
                " choose another folder with --config.run=…"
            ) from error

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
            claim(self.path, doing="training")
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

    def read(self, name: str) -> Any:
        """A JSON file of the folder.

        Raises:
          UserError: it is not there or is no JSON.
        """
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.path / name} cannot be read ({error}), so this run cannot go "
                "on: put it back, or choose another folder with --config.run=…"
            ) from error

    def write(self, name: str, text: str) -> None:
        """Writes a text file, whole or not at all."""
        if jax.process_index() == 0:
            write_whole(self.path / name, text)

    def log(self, row: dict[str, Any]) -> None:
        """Adds a row to metrics.jsonl."""
        if jax.process_index() == 0:
            with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def metrics(self, stage: str) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl about one stage; a row half written is none.

        Those of updates have a `loss`, those of looks at the validation split a
        `validation_loss`.
        """
        return [row for row in self._rows() if row["stage"] == stage]

    def rewind(self, stage: str, step: int) -> None:
        """Forgets the metrics of what comes after `step` and will be done again."""
        kept = [r for r in self._rows() if r["stage"] != stage or r["step"] <= step]
        self.write("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in kept))

    def _rows(self) -> list[dict[str, Any]]:
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        rows = []
        for line in lines:
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue  # The program was killed while it wrote this row.
        return rows

    def _free(self, key: str) -> bool:
        stages = self.config["stages"]
        free = (*FREE, *(f"{s}.{name}" for s in stages for name in FREE_IN_STAGES))
        return any(key == name or key.startswith(f"{name}.") for name in free)


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
    """Nested keys → values: {"a": {"b": 1}} → {"a.b": 1}."""
    if not isinstance(tree, dict):
        return {path: tree}
    return {
        key: value
        for name, branch in tree.items()
        for key, value in _flat(branch, f"{path}.{name}" if path else name).items()
    }

"""The run folder: everything that one run of training writes.

    config.json    the resolved config         stage1/checkpoints    to resume from
    inputs.json    fingerprints of inputs      stage1/examples.json  counts of examples
    metrics.jsonl  loss, learning rate, speed  adapter/              the result
    loss.png       the same as a plot          adapter-best/         by validation loss
    tensorboard/   the same for TensorBoard    summary.txt           what happened

Only process 0 writes, and every file appears whole or not at all. All processes read,
so the folder must be on a disk that they share.
"""

import contextlib
import json
import secrets
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from musilingo_jax.answering.config import GenerateConfig
from musilingo_jax.audio.features import FeatureConfig
from musilingo_jax.pretrained import embedded_models
from musilingo_jax.pretrained.model_config import ModelConfig
from musilingo_jax.pretrained.trained_with import INPUTS, TrainedWith
from musilingo_jax.runtime import distributed, storage
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import is_texts, read_json
from musilingo_jax.runtime.paths import open_regular_file
from musilingo_jax.runtime.settings import with_before
from musilingo_jax.runtime.storage import lock_folder, write_text
from musilingo_jax.training import metrics_rows
from musilingo_jax.training.metrics_rows import MetricsRow
from musilingo_jax.training.stage_config import StageConfig

# Settings that may differ on resume: they do not affect the trained adapter.
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
FREE_IN_STAGES = (
    *("checkpoint_every", "keep", "log_every"),
    *("remat", "query_block", "key_block"),
)


class RunFolder:
    """The folder of one run, with one config."""

    def __init__(self, config: ConfigDict):
        """Makes the folder `config.run`, if it does not exist.

        Raises:
          UserError: nothing can be written there, or the processes do not all see the
            same folder.
        """
        self.path = Path(config.run).absolute()
        # By way of JSON, as it is compared with what was read from JSON.
        self.config: dict[str, Any] = json.loads(json.dumps(config.to_dict()))
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".probe-{jax.process_index()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            # In /proc, for one, the error would only repeat the folder's name.
            missing = isinstance(error, FileNotFoundError)
            reason = "no folder can be made there" if missing else error.strerror
            raise UserError(
                f"config.run: nothing can be written to {self.path} ({reason}): "
                "choose another folder with --config.run=…"
            ) from error
        if jax.process_count() > 1:
            self._check_shared()

    def checkpoints(self, stage: str) -> Path:
        """The folder of a stage's checkpoints."""
        return self.path / stage / "checkpoints"

    def claim(self, inputs: dict[str, Any]) -> None:
        """Locks the folder and writes what this run is.

        If the folder holds checkpoints, they must be of the same run.

        Args:
          inputs: name → fingerprint of what the config only names, such as files.

        Raises:
          UserError: another program is training in the folder, or it holds checkpoints
            that were trained with other settings or on something else.
        """
        if jax.process_index() == 0:
            lock_folder(self.path, doing="training")
        if any(self.path.glob("*/checkpoints/[0-9]*")):
            self._check_parts(inputs)
            old, new = _settings(self.read("config.json")), _settings(self.config)
            before, now = _flat(old), _flat(new)
            changed = {
                **self._changed(before, now),
                **self._changed(_flat(self.read(INPUTS)), _flat(inputs)),
            }
            if changed:
                raise UserError(self._difference(changed))
        self.write("config.json", json.dumps(self.config, indent=2) + "\n")
        self.write(INPUTS, json.dumps(inputs, indent=2) + "\n")

    def read(self, name: str) -> dict[str, Any]:
        """Reads a JSON file of the folder.

        Raises:
          UserError: it is missing or damaged.
        """
        try:
            return read_json(self.path / name)
        except UserError as error:
            raise UserError(
                f"{error}. So this run cannot be resumed: restore the file, or choose "
                "another folder with --config.run=…"
            ) from error

    def write(self, name: str, text: str) -> None:
        """Writes a text file of the folder.

        Raises:
          UserError: as in `writing`.
        """
        if jax.process_index() == 0:
            with writing(self.path):
                write_text(self.path / name, text)

    def log(self, row: MetricsRow) -> None:
        """Appends a row to metrics.jsonl.

        Raises:
          UserError: as in `writing`.
        """
        if jax.process_index() == 0:
            with (
                writing(self.path),
                open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file,
            ):
                file.write(json.dumps(row) + "\n")

    def metrics(self, stage: str) -> list[MetricsRow]:
        """The rows of metrics.jsonl about one stage, in order.

        Raises:
          UserError: a line is damaged, unless a kill cut off the last one.
        """
        return [row for row in self._rows() if row["stage"] == stage]

    def rewind(self, stage: str, step: int) -> None:
        """Removes the rows about updates after `step`, which will be done again.

        Raises:
          UserError: as in `metrics` and `writing`.
        """
        kept = [r for r in self._rows() if r["stage"] != stage or r["step"] <= step]
        self.write("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in kept))

    def _rows(self) -> list[MetricsRow]:
        path = self.path / "metrics.jsonl"
        try:
            with open_regular_file(path) as file:
                *lines, unfinished = file.read().split(b"\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(
                f"{path}: cannot be read ({error.strerror}), so this run cannot be "
                "resumed: choose another folder with --config.run=…"
            ) from error
        rows = []
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue  # An editor's.
            row = metrics_rows.parse(line)
            if row is None:
                raise UserError(
                    f"{path}:{number}: is damaged, so this run cannot be resumed: "
                    "repair or delete that line, or choose another folder with "
                    "--config.run=…"
                )
            rows.append(row)
        # A program that was killed while writing leaves a last line without its end.
        last = metrics_rows.parse(unfinished)
        return rows if last is None else [*rows, last]

    def _check_parts(self, inputs: Mapping[str, Any]) -> None:
        """Checks that the run is resumed with its own encoder and language model.

        Raises:
          UserError: one of them is another, or a file is missing or damaged.
        """
        before = TrainedWith.of_run(self.read("config.json"), self.read(INPUTS))
        now = TrainedWith.of_run(self.config, inputs)
        if before and now:
            other = "choose another folder with --config.run=…"
            before.refuse_other(now, f"the run {self.path}", otherwise=other)

    def _changed(
        self, before: Mapping[str, Any], now: Mapping[str, Any]
    ) -> dict[str, tuple[Any, Any]]:
        """Key, dotted → both values, of those that differ and must not."""
        return {
            key: (before.get(key), now.get(key))
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key) and not self._free(key)
        }

    def _difference(self, changed: Mapping[str, tuple[Any, Any]]) -> str:
        """Why the run in this folder cannot go on, and how to train all the same.

        Args:
          changed: as of `_changed`, not empty.
        """
        words = [
            f"{key} ({before}, now {now})"
            if all(type(value) in (int, float, bool) for value in (before, now))
            else key
            for key, (before, now) in changed.items()
        ]
        start = why = ""
        if (self.path / "adapter" / "config.json").is_file():
            folder = shlex.quote(str(self.path))
            start = (
                " (to start from the adapter of this one, add "
                f"--config.model.adapter={folder})"
            )
        if any(key.endswith(".steps") for key in changed):
            why = ". The steps of a stage set the learning rate of all its updates"
        return (
            f"{self.path} holds a run that differs in {', '.join(words)}: choose "
            f"another folder with --config.run=…{start}, or change that back, or "
            f"delete the folder to start again{why}"
        )

    def _free(self, key: str) -> bool:
        stages = self.config["stages"]
        free = (*FREE, *(f"{s}.{name}" for s in stages for name in FREE_IN_STAGES))
        return any(key == name or key.startswith(f"{name}.") for name in free)

    def _check_shared(self) -> None:
        """Checks that all processes see the folder of process 0.

        Process 0 makes a file with a random name, the others report whether they see
        it, and all learn the result. Otherwise the first checkpoint would be waited for
        forever.

        Raises:
          UserError: one of them does not see it.
        """
        others = range(1, jax.process_count())
        if jax.process_index() == 0:
            probe = self.path / f".probe-{secrets.token_hex(8)}"
            with writing(self.path):
                probe.touch()
            distributed.set_once("run/probe", probe.name)
            seen = {
                other: distributed.wait_for(f"run/seen/{other}") for other in others
            }
            probe.unlink(missing_ok=True)
            blind = [str(other) for other in others if seen[other] != "yes"]
            distributed.set_once("run/blind", ", ".join(blind))
        else:
            name = distributed.wait_for("run/probe")
            found = "yes" if (self.path / name).exists() else "no"
            distributed.set_once(f"run/seen/{jax.process_index()}", found)
        if blind := distributed.wait_for("run/blind"):
            raise UserError(
                f"config.run: process {blind} does not see the folder {self.path} of "
                "process 0: --config.run must be on a disk that all processes share"
            )


def writing(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Turns a failure to write below the folder of a run into one sentence.

    Raises:
      UserError: the disk is full, or the folder is gone or not writable.
    """
    again = "run the same command again, which resumes from the newest checkpoint"
    return storage.writing(folder, again=again)


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config with the keys that did not exist yet when it was written.

    A field that was added after a release says in `before` what older configs meant.
    With that filled in, a run of an older version equals one of today. So it does with
    the versions of embedded models, whose names had none.
    """
    stages = config.get("stages")
    kinds: dict[str, type] = {
        "model": ModelConfig,
        "features": FeatureConfig,
        "generate": GenerateConfig,
        # Of a file that was edited, the stages may be anything.
        **dict.fromkeys(stages if is_texts(stages) else (), StageConfig),
    }
    sections = {
        name: with_before(kind, config[name])
        for name, kind in kinds.items()
        if isinstance(config.get(name), Mapping)
    }
    if "model" in sections:
        sections["model"] = embedded_models.as_recorded(sections["model"])
    return {**config, **sections}


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
    """Nested keys → values, tuples as lists: {"a": {"b": 1}} → {"a.b": 1}."""
    if not isinstance(tree, Mapping):
        return {path: list(tree) if isinstance(tree, tuple) else tree}
    return {
        key: value
        for name, branch in tree.items()
        for key, value in _flat(branch, f"{path}.{name}" if path else name).items()
    }

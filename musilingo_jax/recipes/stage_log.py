"""A JSON file with the time that each stage of a recipe took, and what it found."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from musilingo_jax.runtime.json_files import read_json
from musilingo_jax.runtime.storage import write_text


class StageLog:
    """The log of a recipe: {stage: {"seconds": …, …}}. Interrupted stages add up."""

    def __init__(self, path: Path):
        self.path = path

    def read(self) -> dict[str, Any]:
        """What is logged so far; empty if nothing is."""
        return read_json(self.path) if self.path.exists() else {}

    def note(self, stage: str, found: dict[str, Any]) -> None:
        """Adds what a stage found."""
        known = self.read()
        known[stage] = known.get(stage, {"seconds": 0.0}) | found
        write_text(self.path, json.dumps(known, indent=2) + "\n")

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time that the block takes to the stage's, however the block ends."""
        print(f"== {name}")
        began = time.monotonic()
        try:
            yield
        finally:
            before = self.read().get(name, {}).get("seconds", 0.0)
            self.note(name, {"seconds": before + time.monotonic() - began})
            print(f"== {name}: {self.read()[name]['seconds']:.0f} s")

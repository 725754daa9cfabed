"""What a program computed, as text that can be compared.

Each function takes the folder that the programs ran in and what they left.
"""

import difflib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from helpers.programs import Done

from musilingo_jax.corpora import dataset
from musilingo_jax.runtime.errors import UserError

_UNREADABLE = (OSError, ValueError, KeyError, UserError, soundfile.LibsndfileError)
Result = Callable[[Path, Done], str]


def equal(result: Result, place: Path, done: Done, expected: str) -> bool:
    """Whether a program has left what was expected, and can be read."""
    try:
        return result(place, done) == expected
    except _UNREADABLE:
        return False


def difference(result: Result, place: Path, done: Done, expected: str) -> str:
    """The lines in which a result is not what was expected."""
    try:
        found = result(place, done)
    except _UNREADABLE as error:
        return repr(error)
    lines = difflib.unified_diff(expected.splitlines(), found.splitlines(), n=0)
    return "\n".join([*lines][2:])[:600]


def corpus(name: str) -> Result:
    """The records of a corpus that was built, and the report about it.

    Not the bytes of its files: the order of fields in protocol buffers is not defined.
    """

    def read(place: Path, done: Done) -> str:
        records = dataset.load(place / name / "1.0.0")
        text = "\n".join(map(str, records)).replace(str(place), ".")
        return f"{text}\n{files(f'{name}/*.json*')(place, done)}"

    return read


def text(place: Path, done: Done) -> str:
    """What it printed, wherever the folder is that it ran in."""
    return done.stdout.replace(str(place), ".")


def nothing(place: Path, done: Done) -> str:
    """Nothing: for inputs that may lead to anything."""
    del place, done
    return ""


def files(*patterns: str) -> Result:
    """The contents of files, wherever the folder is that the programs ran in.

    Of an Ogg file the sound, since its encoder numbers each stream at random.
    """

    def read(place: Path, done: Done) -> str:
        del done
        paths = sorted(path for pattern in patterns for path in place.glob(pattern))
        here = str(place).encode()

        def content(path: Path) -> bytes:
            if path.suffix == ".ogg":
                return soundfile.read(path)[0].tobytes()
            return path.read_bytes().replace(here, b".")

        return "\n".join(
            f"{path.relative_to(place)} {digest(content(path))}"
            for path in paths
            if path.is_file()
        )

    return read


def arrays(name: str) -> Result:
    """The arrays of an export of features, without the names of the clips."""

    def read(place: Path, done: Done) -> str:
        del done
        with np.load(place / name) as file:
            keys = ("seconds", "start", "embedding")
            return " ".join(digest(file[key].tobytes()) for key in keys)

    return read


def training(run: str, *, history: bool = True) -> Result:
    """The adapter of a run, and its losses: all of them, or those of the last update.

    Without `history` the rows of metrics.jsonl that were there before do not count.
    """

    def read(place: Path, done: Done) -> str:
        weights = files(f"{run}/adapter/*.safetensors")(place, done)
        rows = losses(place / run)
        return f"{weights}\n{rows if history else rows[-1:]}"

    return read


def losses(run: Path) -> list[tuple[str, int, float]]:
    """(stage, update, loss) of each row of metrics.jsonl."""
    rows = map(json.loads, (run / "metrics.jsonl").read_text("utf-8").splitlines())
    return [(row["stage"], row["step"], row["loss"]) for row in rows if "loss" in row]


def parsed(line: str) -> dict[str, Any]:
    """A line of JSON lines."""
    return json.loads(line)


def digest(content: bytes) -> str:
    """A short digest."""
    return hashlib.sha256(content).hexdigest()[:16]

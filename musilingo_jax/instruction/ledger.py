"""What an endpoint has said: each reply is on the disk before it is used.

    answers/HOST-PROCESS.jsonl
    {"key": "9b1f0c2e…", "text": "…", "cut": false, "read": 412, "written": 230}

A shard is written when all of it is made, and a job may be killed before. So that
nothing is asked twice, and paid twice, a reply is written here as soon as it comes,
under a digest of its whole request. Every process of the job finds it there, and so
does another job, into whose folder the files are copied.
"""

import hashlib
import json
import os
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from musilingo_jax.instruction.making import Said
from musilingo_jax.runtime import storage
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import parse_json
from musilingo_jax.runtime.printable import print_note

FOLDER = "answers"
_AGAIN = "run the same command again, which asks for nothing that is answered"


class Ledger:
    """The replies in a folder; any number of threads may add some."""

    def __init__(self, folder: Path):
        """Reads the replies of all processes.

        A line that a kill cut short is left out, with a note: it is asked for again.

        Args:
          folder: of the job; it need not exist.

        Raises:
          UserError: a file cannot be read.
        """
        name = f"{socket.gethostname()}-{os.getpid()}.jsonl"
        self._path = folder / FOLDER / name
        self._lock = threading.Lock()
        self._known: dict[str, Said] = {}
        for path in sorted((folder / FOLDER).glob("*.jsonl")):
            self._read(path)

    def get(self, key: str) -> Said | None:
        """The reply to a request; None if there is none yet."""
        return self._known.get(key)

    def add(self, key: str, said: Said) -> None:
        """Writes a reply to the disk.

        Raises:
          UserError: it cannot be written.
        """
        line = json.dumps({"key": key, **said._asdict()}, ensure_ascii=False) + "\n"
        with self._lock, storage.writing(self._path, again=_AGAIN):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a+b") as file:
                # Another process of the same number may have been killed at a line.
                if file.tell() and not _ends_a_line(file):
                    line = "\n" + line
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
            self._known[key] = said

    def _read(self, path: Path) -> None:
        try:
            lines = path.read_bytes().decode(errors="replace").split("\n")
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        broken = 0
        for line in filter(None, lines):
            try:
                row = parse_json(line, str(path))
                self._known[row["key"]] = _said(row)
            except (UserError, KeyError, TypeError):
                broken += 1
        if broken:
            print_note(f"note: {path}: {broken} lines are broken, and are asked again")


def key_of(url: str, body: Mapping[str, Any]) -> str:
    """A digest of a request."""
    text = json.dumps([url, body], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _said(row: Mapping[str, Any]) -> Said:
    """The reply of a line.

    Raises:
      KeyError: something is missing.
      TypeError: it is of another kind.
    """
    said = Said(*(row[name] for name in Said._fields))
    if [type(part) for part in said] != [str, bool, int, int]:
        raise TypeError(said)
    return said


def _ends_a_line(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"

"""The folder that features lie in, made to survive being killed.

`index.jsonl` says in its first line what the features depend on, and then, a line per
shard, which songs lie there. A shard is an ArrayRecord file with one record per song,
the bytes of its float32 [windows, width]:

    index.jsonl            {"identity": {"encoder": "9f86d0…", "window_frames": 325, …}}
                           {"shard": "00000.array_record", "clips": [["a.ogg:…", 7, …
    00000.array_record     has this name only once it is complete,
    00001.array_record     and counts only once its line stands in the index

Appending a line costs the same however many there are, and a line that was cut off in
the middle is known by its missing end.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from musilingo_jax.errors import UserError

INDEX = "index.jsonl"
_PARTIAL = ".partial"

Identity = dict[str, str | int]


class Index:
    """The index of a claimed folder, to which shards can be added.

    Attributes:
      lines: what it says of each shard.
    """

    def __init__(self, folder: Path, lines: list[dict[str, Any]], file: TextIO):
        self.folder, self.lines = folder, list(lines)
        self._file = file

    def append(self, records: list[bytes], note: dict[str, Any]) -> None:
        """Writes a shard, if there are records, and then its line.

        Raises:
          OSError: the folder cannot be written; nothing was added.
        """
        number = 1 + max((int(line["shard"][:8]) for line in self.lines), default=-1)
        path = self.folder / f"{number:08}.array_record"
        path.unlink(
            missing_ok=True
        )  # Complete, but killed before its line was written.
        if records:
            _write_records(path, records)
        size = path.stat().st_size if records else 0
        line = {"shard": path.name, "bytes": size, **note}
        _write_line(self._file, line)
        self.lines.append(line)


@contextlib.contextmanager
def claim(folder: Path, identity: Identity) -> Iterator[Index]:
    """Makes the folder or continues it; one process at a time may.

    Raises:
      UserError: another process is at it, or the folder has another identity.
      OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # The system takes the lock back from a process that dies, however it dies.
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{folder}: another program is filling this cache; wait for it"
            ) from error
        for leftover in folder.glob(f"*{_PARTIAL}"):
            leftover.unlink()
        lines: list[dict[str, Any]] = []
        if (folder / INDEX).is_file():
            lines, _ = read_index(folder, identity)
        # Written anew, the index loses a torn last line and shards that are gone.
        partial = folder / f"{INDEX}{_PARTIAL}"
        with partial.open("w") as file:
            for line in ({"identity": identity}, *lines):
                _write_line(file, line)
        partial.replace(folder / INDEX)
        with (folder / INDEX).open("a") as file:
            yield Index(folder, lines, file)


def read_index(
    folder: Path, identity: Identity
) -> tuple[list[dict[str, Any]], list[str]]:
    """The lines of the shards that are whole, and the names of those that are not.

    Raises:
      UserError: the index cannot be read, or has another identity.
    """
    path = folder / INDEX
    try:
        lines = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
        found, lines = lines[0]["identity"], lines[1:]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); delete {folder} and make it again"
        ) from error
    if differing := [key for key in identity if identity[key] != found.get(key)]:
        both = "; ".join(
            f"{key} {found.get(key)}, not {identity[key]}" for key in differing
        )
        raise UserError(
            f"{folder}: these features were made with {both}. Choose another folder "
            "with --config.features.cache=…, or delete this one"
        )
    whole, damaged = [], []
    for line in lines:
        file = folder / line["shard"]
        size = file.stat().st_size if file.is_file() else 0
        if size == line["bytes"]:
            whole.append(line)
        else:
            damaged.append(line["shard"])
    return whole, damaged


def open_records(path: Path) -> ArrayRecordReader:
    """A shard for reading in any order, hence without read-ahead."""
    return ArrayRecordReader(str(path), "readahead_buffer_size:0,max_parallelism:0")


def _write_records(path: Path, records: list[bytes]) -> None:
    partial = path.with_suffix(_PARTIAL)
    try:
        # Groups of one record: each is read alone, and float noise does not compress.
        writer = ArrayRecordWriter(str(partial), "group_size:1,uncompressed")
        for record in records:
            writer.write(record)
        writer.close()
    except RuntimeError as error:
        partial.unlink(missing_ok=True)
        raise OSError(str(error)) from error
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def _write_line(file: TextIO, line: dict[str, Any]) -> None:
    file.write(json.dumps(line) + "\n")
    file.flush()
    os.fsync(file.fileno())

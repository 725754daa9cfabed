"""What happened in a folder: who made which shard, how fast, and who was lost.

    journal/HOST-PROCESS.jsonl
    {"time": "2026-11-30T03:12:07Z", "event": "began", "task": "0 of 4", "shards": 25,
     "engine": "local"}
    {"time": "2026-11-30T03:12:19Z", "event": "made", "shard": 4, "items": 64,
     "seconds_of_sound": 1920.0, "seconds": 11.8}
    {"time": "2026-11-30T03:13:02Z", "event": "lost", "shards": [8, 9], "reason": "…"}
    {"time": "2026-11-30T03:15:40Z", "event": "ended", "made": 25, "seconds": 213.4}

For people. Nothing reads it to decide something: what is finished is told by the shards
themselves. So it may be deleted, and two folders with equal results differ in it alone.
A process that was killed has no line "ended".
"""

import datetime
import json
import os
import socket
import time
from typing import Any

from etils import epath

from musilingo_jax.jobs.making import Event, Item, Lost, Made
from musilingo_jax.jobs.share import Share
from musilingo_jax.runtime import paths

FOLDER = "journal"


class Journal:
    """Writes the lines of this process; makes its file with the first of them."""

    def __init__(self, folder: epath.Path, share: Share, shards: int, engine: str):
        """Notes that this process has begun to make `shards` shards.

        Raises:
          OSError: the folder cannot be written.
        """
        self._path = folder / FOLDER / f"{socket.gethostname()}-{os.getpid()}.jsonl"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._lines: list[str] = []  # Of a bucket, where a file is written whole.
        self._began = self._last = time.monotonic()
        self._made, self._seconds = 0, 0.0
        task = f"{share.task} of {share.tasks}"
        self._write("began", task=task, shards=shards, engine=engine)

    def note(self, event: Event) -> None:
        """Notes a shard that was made, or a process that was lost.

        Raises:
          OSError: as in `__init__`.
        """
        match event:
            case Item():
                self._seconds += event.seconds
            case Made():
                now = time.monotonic()
                took, sound = round(now - self._last, 3), round(self._seconds, 3)
                about = {"shard": event.number, "items": event.items, "seconds": took}
                self._write("made", **about, seconds_of_sound=sound)
                self._made, self._seconds, self._last = self._made + 1, 0.0, now
            case Lost():
                self._write("lost", shards=event.numbers, reason=event.reason)

    def end(self) -> None:
        """Notes that all shards of this process are made.

        Raises:
          OSError: as in `__init__`.
        """
        took = round(time.monotonic() - self._began, 3)
        self._write("ended", made=self._made, seconds=took)

    def _write(self, event: str, **about: Any) -> None:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        line = json.dumps({"time": now, "event": event, **about}) + "\n"
        if paths.is_local(self._path):
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(line)
            return
        self._lines.append(line)
        self._path.write_text("".join(self._lines))

"""A song with its row, as the writers of files take it."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from musilingo_jax.captioning import fields


class Song(NamedTuple):
    """A song with its row.

    Attributes:
      row: of the job.
      path: its file.
      rate: samples per second of an `.npy`; None for files that state it.
    """

    row: Mapping[str, Any]
    path: Path
    rate: int | None

    @property
    def caption(self) -> str | None:
        """The caption; None if it was dropped."""
        return self.value(fields.CAPTION)

    @property
    def audio(self) -> str:
        """The file relative to the corpus."""
        return self.row["audio"]

    @property
    def absolute(self) -> str:
        """The file, from the root of the file system."""
        return os.path.abspath(self.path)

    @property
    def is_part(self) -> bool:
        """Whether only a stretch of the file is meant."""
        return "start" in self.row or "end" in self.row

    @property
    def mirrored(self) -> str | None:
        """The file within a folder of the same shape, without its suffix.

        A stretch has its seconds in the name: "a/b@30.000-40.000". None for a file
        outside of the corpus.
        """
        path = PurePosixPath(self.audio)
        if path.is_absolute() or ".." in path.parts:
            return None
        name = str(path.with_suffix(""))
        if not self.is_part:
            return name
        start, end = self.row.get("start") or 0.0, self.row.get("end")
        return f"{name}@{start:.3f}-" + ("" if end is None else f"{end:.3f}")

    def value(self, name: str) -> Any:
        """The value of a field."""
        return self.row[name]["value"]


class LeftOut(NamedTuple):
    """A song that a file lacks, and why.

    Attributes:
      format: of `files.NAMES`.
      audio: the song.
      reason: a clause whose subject is the song.
    """

    format: str
    audio: str
    reason: str


Problem = Callable[[Song], str | None]
"""Why a song cannot be in a file; None if it can."""


def without_caption(song: Song) -> str | None:
    """Why a song cannot be trained on at all."""
    return None if song.caption else "has no caption"


def without_whole_file(song: Song) -> str | None:
    """Why a song cannot be in a file that names whole files."""
    if song.is_part:
        return "is a stretch of a file, and this format names whole files"
    if song.rate is not None:
        return "is an .npy, which this format's readers cannot read"
    return without_caption(song)


def parted(
    songs: Sequence[Song], format: str, problem: Problem
) -> tuple[list[Song], list[LeftOut]]:
    """The songs without a problem, and the others."""
    kept, left_out = [], []
    for song in songs:
        if (reason := problem(song)) is None:
            kept.append(song)
        else:
            left_out.append(LeftOut(format, song.audio, reason))
    return kept, left_out


def as_json(content: Any) -> str:
    """JSON for people and programs."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

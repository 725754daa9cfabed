"""Which stretches of which songs are annotated, each on its own."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from musilingo_jax.audio.cache.clips import Clip
from musilingo_jax.corpora import clips as sounds
from musilingo_jax.corpora.records import Record, clip_id


class Stretch(NamedTuple):
    """A song, or a stretch of it.

    Attributes:
      clip: where it is.
      audio: its file, relative to the corpus.
    """

    clip: Clip
    audio: str


def of_songs(
    records: Iterable[Record], folder: Path, window: float | None
) -> tuple[dict[str, Stretch], list[Path]]:
    """The stretches of songs, by id.

    A song is cut from its beginning; what is left belongs to the last window:

        0        30        60        90   100
        |   w    |    w    |      w        |

    Args:
      records: of a corpus; several of one clip count once.
      folder: of the corpus.
      window: seconds of a stretch; None for whole songs.

    Returns:
      The stretches, and the songs that are not cut because their files do not say how
      long they are.
    """
    stretches: dict[str, Stretch] = {}
    uncut = []
    for record in {record.clip: record for record in records}.values():
        audio = Path(os.path.relpath(record.audio, folder)).as_posix()
        whole = Clip(record.clip, record.audio, record.start, record.end, record.rate)
        seconds = None
        if window and (seconds := sounds.duration(record.audio, record.rate)) is None:
            uncut.append(record.audio)
        if not window or seconds is None:
            stretches[whole.id] = Stretch(whole, audio)
            continue
        for start, end in _cut(record.start or 0.0, record.end or seconds, window):
            id = clip_id(record.audio, folder, start=start, end=end, rate=record.rate)
            stretches[id] = Stretch(whole._replace(id=id, start=start, end=end), audio)
    return stretches, uncut


def _cut(start: float, end: float, window: float) -> Iterator[tuple[float, float]]:
    """The windows of a stretch, in milliseconds; the last one is the longest."""
    count = max(1, int((end - start) / window))
    for number in range(count):
        last = number + 1 == count
        stop = end if last else start + (number + 1) * window
        yield round(start + number * window, 3), round(stop, 3)

"""Songs → annotations, as the rows of a job (`jobs.row_job`)."""

import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from musilingo_jax.annotation import madmom, song, tags
from musilingo_jax.annotation.spectra import RATE
from musilingo_jax.annotation.windows import Stretch
from musilingo_jax.audio.cache import clips
from musilingo_jax.jobs.identity import StoredIdentity
from musilingo_jax.jobs.row_job import Result, RowMaker
from musilingo_jax.models.taggers import musicnn
from musilingo_jax.runtime.errors import UserError

FORMAT = 1
LIBROSA, MADMOM = "librosa", "madmom"
ESTIMATORS = (LIBROSA, MADMOM)
_Other = Callable[[Float[np.ndarray, " samples"]], dict[str, Any]]


def identity(fields: Collection[str], estimators: str) -> StoredIdentity:
    """What annotations depend on besides the sound.

    Args:
      fields: of `song.FIELDS`, and `tags.FIELD`.
      estimators: one of `ESTIMATORS`.

    Raises:
      UserError: as in `madmom.version`.
    """
    known = {field: stamp["version"] for field, stamp in song.sources().items()}
    known[tags.FIELD] = tags.VERSION
    if estimators == MADMOM:
        known |= dict.fromkeys(madmom.FIELDS, madmom.version())
    return {"format": FORMAT} | {f: known[f] for f in sorted(fields)}


def load(fields: Collection[str], taggers: str | None, estimators: str) -> RowMaker:
    """What annotates the songs of a shard, one after the other.

    Args:
      fields: as in `identity`.
      taggers: the file that `tags.load` reads; needed for tags only.
      estimators: as in `identity`.

    Raises:
      UserError: as in `tags.load` and `madmom.load`.
    """
    loaded = tags.load(Path(taggers)) if taggers and tags.FIELD in fields else None
    others = set(fields).intersection(madmom.FIELDS if estimators == MADMOM else ())
    other = madmom.load(others) if others else None
    return functools.partial(_annotate, set(fields) - others, other, loaded)


def _annotate(
    fields: Collection[str],
    other: _Other | None,
    taggers: Any,
    stretches: Sequence[Stretch],
) -> Iterator[Result]:
    for stretch in stretches:
        notices: list[str] = []
        try:
            waveform = _read(stretch, RATE, notices)
            row = _row(stretch, waveform, notices)
            row |= _named(stretch, song.annotate, waveform, fields)
            if other is not None:
                row |= _named(stretch, other, _read(stretch, madmom.RATE, []))
            if taggers is not None:
                waveform = _read(stretch, musicnn.RATE, [])
                row[tags.FIELD] = _named(stretch, tags.annotate, taggers, waveform)
            yield Result(row, row["seconds"])
        except UserError as error:
            yield Result(error, 0.0)


def _row(
    stretch: Stretch, waveform: Float[np.ndarray, " samples"], notices: list[str]
) -> dict[str, Any]:
    """What a row says beside its fields."""
    clip = stretch.clip
    row: dict[str, Any] = {"audio": stretch.audio}
    row |= {
        key: value
        for key, value in (("start", clip.start), ("end", clip.end))
        if value is not None
    }
    row["seconds"] = round(len(waveform) / RATE, 3)
    return row | ({"notices": notices} if notices else {})


def _read(
    stretch: Stretch, rate: int, notices: list[str]
) -> Float[np.ndarray, " samples"]:
    blocks = list(clips.read(stretch.clip, rate, notices.append))
    return np.concatenate(blocks)


def _named(stretch: Stretch, function: Any, *arguments: Any) -> Any:
    """The result of a function, whose errors then begin with the song's file.

    Raises:
      UserError: of the function.
    """
    try:
        return function(*arguments)
    except UserError as error:
        raise UserError(f"{stretch.clip.path}: {error}") from error

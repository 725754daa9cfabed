"""The clips of MusicCaps, which other corpora and benchmarks are about, too."""

from pathlib import Path

from musilingo_jax.corpora import annotations
from musilingo_jax.corpora.clips import Wanted
from musilingo_jax.runtime.errors import UserError

TABLE = "musiccaps-public.csv"


def sound(
    row: dict,
    *,
    where: str,
    times: dict[str, tuple[float, float]] | None = None,
    columns: tuple[str, str, str] = ("ytid", "start_s", "end_s"),
) -> Wanted:
    """The clip of a video that a row of MusicCaps, or of a corpus like it, is about.

    Args:
      row: with the video and, where they are known, its start and end.
      where: the row is, for messages.
      times: start and end by video, for rows that do not have them.
      columns: what the row calls the video, the start and the end.

    Raises:
      UserError: the row does not name a video, or its times are not a stretch of one.
    """
    named, starts, ends = columns
    video = annotations.text(row, named, where=where)
    if not video:
        raise UserError(f"{where}: {named!r} is empty")
    known = (times or {}).get(video, (None, None))
    start = annotations.number(row, starts, where=where)
    end = annotations.number(row, ends, where=where)
    start, end = (start, end) if end is not None else known
    if end is not None and end <= (start or 0):
        raise UserError(f"{where}: {ends!r} must be later than {starts!r}, not {end:g}")
    spelt = () if end is None else (f"{start or 0:g}", f"{end:g}")
    return Wanted(
        names=(video, f"[{video}]-[{'-'.join(spelt)}]", "_".join((video, *spelt))),
        start=start,
        end=end,
        longest=annotations.CLIP_SECONDS,
        rate=annotations.rate(row, where=where),
    )


def times(source: Path) -> dict[str, tuple[float, float]]:
    """Start and end in seconds by video; empty if the folder has no table."""
    path = annotations.find(source if source.is_dir() else source.parent, TABLE)
    if path is None:
        return {}
    found = {}
    for where, row in annotations.csv_rows(path, ("ytid", "start_s", "end_s")):
        wanted = sound(row, where=str(path.parent / where))
        if wanted.end is not None:
            found[wanted.names[0]] = (wanted.start or 0.0, wanted.end)
    return found

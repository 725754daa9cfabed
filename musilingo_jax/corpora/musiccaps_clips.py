"""The clips of MusicCaps, which other corpora and benchmarks are about, too."""

from pathlib import Path

from musilingo_jax.corpora import annotations
from musilingo_jax.corpora.clips import Wanted
from musilingo_jax.runtime.errors import UserError

TABLE = "musiccaps-public.csv"


def sound(
    row: dict, *, where: str, times: dict[str, tuple[float, float]] | None = None
) -> Wanted:
    """The clip that a row of MusicCaps, or of a corpus made from it, is about.

    Args:
      row: with `ytid` and, where they are known, `start_s` and `end_s`.
      where: the row is, for messages.
      times: start and end by `ytid`, for rows that do not have them.

    Raises:
      UserError: the row does not name a video, or its times are not a stretch of one.
    """
    video = annotations.text(row, "ytid", where=where)
    if not video:
        raise UserError(f"{where}: 'ytid' is empty")
    known = (times or {}).get(video, (None, None))
    start = annotations.number(row, "start_s", where=where)
    end = annotations.number(row, "end_s", where=where)
    start, end = (start, end) if end is not None else known
    if end is not None and end <= (start or 0):
        raise UserError(f"{where}: 'end_s' must be later than 'start_s', not {end:g}")
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

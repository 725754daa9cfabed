"""MusicCaps: 5,521 stretches of YouTube videos, described by musicians.

Agostinelli et al. 2023, "MusicLM". `musiccaps-public.csv` comes from Kaggle
(googleai/musiccaps) or the Hugging Face hub (google/MusicCaps), under CC BY-SA 4.0. The
sound is not included, and some of the videos no longer exist.
"""

from collections.abc import Iterator
from pathlib import Path

from musilingo_jax.corpora import annotations
from musilingo_jax.corpora.builder import Corpus
from musilingo_jax.corpora.clips import Wanted
from musilingo_jax.corpora.survey import SurveyRow
from musilingo_jax.runtime.errors import UserError

TABLE, AUTHORS = "musiccaps-public.csv", "all.json"


class MusicCaps(Corpus):
    """Captions of ten-second clips: 2,663 to train on, 2,858 to test.

    Needed in the source folder or one level below it:

        musiccaps-public.csv      with ytid, start_s, end_s, caption, is_audioset_eval
        all.json                  or this, the authors' form of it: {"ann": […]} with
                                  sampling_rate in place of start_s and end_s

    and in the audio folder, for the video `-0Gj8-vB1q4` from 30 to 40 s, any of these,
    in any format and at any depth:

        -0Gj8-vB1q4.wav                 cut to the clip, or the whole video: the length
        [-0Gj8-vB1q4]-[30-40].wav       of the file tells which
        -0Gj8-vB1q4_30_40.wav
        -0Gj8-vB1q4.npy                 with all.json only, which has its sampling rate

    Clips from AudioSet's evaluation set are the split "test", the others "train".
    There are no questions.
    """

    name = "musiccaps"

    def rows(self) -> Iterator[SurveyRow]:
        """The annotations, as in `Corpus.rows`."""
        path = self.source
        if not path.is_file():
            path = annotations.need(path, TABLE, AUTHORS)
        if path.suffix == ".csv":
            read = annotations.csv_rows(
                path, ("ytid", "start_s", "end_s", "caption", "is_audioset_eval")
            )
        else:
            read = annotations.json_rows(path, "ann")
        for where, row in read:
            full = str(path.parent / where)
            is_test = annotations.is_true(row, "is_audioset_eval", where=full)
            yield SurveyRow(
                where=where,
                sound=sound(row, where=full),
                question="",
                answer=annotations.text(row, "caption", where=full),
                split="test" if is_test else "train",
            )


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

"""Rows → files that other programs read.

    jsonl         captions.jsonl           all rows with all that is known
    csv           captions.csv             values; ACE-Step looks for the columns file,
                                           caption, bpm and key
    parquet       captions.parquet         values, and the row as JSON
    sidecar       sidecars/…               song.txt and song.json, or beside the songs
    ace-step      ace-step.json            the dataset of ACE-Step 1.5
    audiocraft    audiocraft/…             a JSON for each track, and a manifest
    webdataset    webdataset/000000.tar    sound, caption and row of each song

The first three hold all rows. The others are for training, so a song without a caption
is left out of them, which is told.
"""

from collections.abc import Callable, Sequence

from etils import epath

from musilingo_jax.captioning import (
    ace_step,
    audiocraft,
    sidecars,
    tables,
    webdataset,
)
from musilingo_jax.captioning.captioned import LeftOut, Song

NAMES = ("jsonl", "csv", "parquet", "sidecar", "ace-step", "audiocraft", "webdataset")


def write(
    songs: Sequence[Song],
    folder: epath.Path,
    formats: Sequence[str],
    *,
    beside: bool,
) -> tuple[dict[str, str], list[LeftOut]]:
    """Writes the files of these formats.

    Args:
      songs: in order.
      folder: of the job.
      formats: of `NAMES`.
      beside: whether sidecars are written beside the songs.

    Returns:
      Format → what was written, in words; and the songs that were left out.

    Raises:
      UserError: a file cannot be written.
    """
    writers: dict[str, Callable[[], tuple[str, list[LeftOut]]]] = {
        "jsonl": lambda: tables.write_jsonl(songs, folder / tables.ROWS),
        "csv": lambda: tables.write_csv(songs, folder / "captions.csv"),
        "parquet": lambda: tables.write_parquet(songs, folder / "captions.parquet"),
        "sidecar": lambda: sidecars.write(songs, None if beside else folder),
        "ace-step": lambda: ace_step.write(songs, folder / "ace-step.json"),
        "audiocraft": lambda: audiocraft.write(songs, folder / "audiocraft"),
        "webdataset": lambda: webdataset.write(songs, folder / "webdataset"),
    }
    written: dict[str, str] = {}
    left_out: list[LeftOut] = []
    for name in formats:
        written[name], others = writers[name]()
        left_out += others
    return written, left_out

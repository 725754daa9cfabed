"""Loads any corpus: a name or path → records."""

from pathlib import Path

from musilingo_jax.corpora import songs
from musilingo_jax.corpora.records import Record


def load(source: str | Path) -> list[Record]:
    """The records of a corpus, in its own order.

    Args:
      source: the name of the embedded corpus; a songs.jsonl or songs.csv, or a folder
        with one; a folder of songs; or a folder that `musilingo_jax.corpora.build`
        made.

    Raises:
      UserError: it is none of these, or cannot be read.
    """
    folder = Path(source)
    if str(source) not in songs.EMBEDDED and folder.is_dir():
        # Imported here, because TFDS takes a second to import, and a songs.jsonl or a
        # chat does not need it.
        from musilingo_jax.corpora import dataset

        if built := dataset.find(folder):
            return dataset.load(built)
    return songs.load(source)

"""The one door to all corpora: a name or path → records."""

from pathlib import Path

from musilingo_jax.corpora import songs
from musilingo_jax.corpora.records import Record


def load(source: str | Path) -> list[Record]:
    """The records of a corpus, in its own order.

    Args:
      source: an embedded corpus; a songs.jsonl or songs.csv, or a folder with one; a
        folder of songs; or a folder that `musilingo_jax.corpora.build` made.

    Raises:
      UserError: there is nothing of the kind, or it cannot be read.
    """
    folder = Path(source)
    if str(source) not in songs.EMBEDDED and folder.is_dir():
        # Here, because chatting or learning from a songs.jsonl does not need TFDS.
        from musilingo_jax.corpora import builder

        if built := builder.find(folder):
            return builder.load(built)
    return songs.load(source)

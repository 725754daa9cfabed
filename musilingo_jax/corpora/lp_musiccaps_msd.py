"""LP-MusicCaps-MSD: captions that GPT-3.5 made of the tags of half a million songs.

Doh et al. 2023, "LP-MusicCaps"; on the Hugging Face hub as
seungheondoh/LP-MusicCaps-MSD, where one has to request access. The songs are those of
the ECALS subset of the Million Song Dataset, as the thirty-second previews that
7digital used to offer; some laboratories have copies.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import tensorflow_datasets as tfds

from musilingo_jax.corpora import findings
from musilingo_jax.corpora.builder import Corpus
from musilingo_jax.corpora.clips import Wanted
from musilingo_jax.corpora.survey import SurveyRow
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import open_regular_file

SPLITS = ("train", "valid", "test")
_COUNT = re.compile(r"-\d+-of-(\d+)\b", re.ASCII)
CAPTIONS = ("writing", "summary", "paraphrase", "attribute_prediction")


class LpMusicCapsMsd(Corpus):
    """Captions of 444,865 songs to train on, 34,481 to validate and 34,631 to test.

    Needed in the source folder or one level below it, as on the hub:

        data/train-*.parquet, valid-*.parquet, test-*.parquet

    with the columns track_id, path and the four captions caption_writing (MusiLingo's,
    the default configuration, `writing`), caption_summary, caption_paraphrase and
    caption_attribute_prediction. In the audio folder, for a song with the path
    `8/8/88321.clip.mp3` and the track TRAAAED128E0783FAB:

        8/8/88321.clip.mp3, or 88321.clip.* or TRAAAED128E0783FAB.* at any depth

    There are no questions.
    """

    name = "lp_musiccaps_msd"
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name, description=f"Answers are caption_{name}.")
        for name in CAPTIONS
    ]
    DEFAULT_BUILDER_CONFIG_NAME = "writing"

    def rows(self) -> Iterator[SurveyRow]:
        """The annotations, as in `Corpus.rows`."""
        paths = {split: self._files(split) for split in SPLITS}
        if not any(paths.values()):
            raise UserError(
                f"{self.source}: there is no train-*.parquet, valid-*.parquet or "
                "test-*.parquet in it or in a folder below it"
            )
        for split in SPLITS:
            for path in paths[split]:
                yield from self._read(path, split)

    def _files(self, split: str) -> list[Path]:
        if self.source.is_file():
            return [self.source] if self.source.match(f"{split}*.parquet") else []
        patterns = (f"{split}*.parquet", f"*/{split}*.parquet")
        found = (sorted(self.source.glob(pattern)) for pattern in patterns)
        paths = next(filter(None, found), [])
        if lacking := _lacking(paths):
            findings.tell(
                f"note: {paths[0].parent}: of the files of the split {split!r} "
                f"{lacking} are not there, and their songs are left out"
            )
        return paths

    def _read(self, path: Path, split: str) -> Iterator[SurveyRow]:
        columns = ["track_id", "path", f"caption_{self.configuration}"]
        counter = itertools.count()
        try:
            with open_regular_file(path) as opened:
                file = pyarrow.parquet.ParquetFile(opened)
                names = file.schema_arrow.names
                if missing := [name for name in columns if name not in names]:
                    raise UserError(f"{path}: there is no column {', '.join(missing)}")
                for batch in file.iter_batches(columns=columns):
                    values = (batch.column(name).to_pylist() for name in columns)
                    for row in zip(*values, strict=True):
                        yield self._row(path, next(counter), row, split)
        except UserError:
            raise
        # Of a damaged schema Arrow raises errors of Python's, such as KeyError.
        except Exception as error:
            raise UserError(f"{path}: cannot be read as Parquet: {error}") from error

    def _row(
        self, path: Path, index: int, row: tuple[Any, Any, Any], split: str
    ) -> SurveyRow:
        """Checks a row: its track, its song and its caption."""
        track, song, answer = row
        where = f"{path.name}[{index}]"
        if not isinstance(track, str) or not isinstance(song, str):
            raise UserError(f"{path.parent / where}: must name path and track_id")
        if not isinstance(answer, str | None):
            caption = f"caption_{self.configuration}"
            raise UserError(f"{path.parent / where}: {caption} is not text")
        return SurveyRow(
            where=where,
            sound=Wanted(names=(song, track)),
            question="",
            answer=answer or "",
            split=split,
        )


def _lacking(paths: list[Path]) -> int:
    """How many files of a split are not there, as the names of the others tell."""
    counts = [int(found[1]) for p in paths if (found := _COUNT.search(p.name))]
    return max(0, max(counts, default=0) - len(paths))

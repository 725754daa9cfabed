"""Song Describer: two minutes of songs of MTG-Jamendo, described by listeners.

Manco et al. 2023, "The Song Describer Dataset"; zenodo.org/records/10072001, with its
sound, under CC BY-SA 4.0. Each song has the Creative Commons licence that
audio_licenses.txt gives. It is meant for evaluation only.
"""

from collections.abc import Iterator

import tensorflow_datasets as tfds

from musilingo_jax.corpora import annotations
from musilingo_jax.corpora.builder import Corpus
from musilingo_jax.corpora.clips import Wanted
from musilingo_jax.corpora.survey import SurveyRow
from musilingo_jax.runtime.errors import UserError

TABLE = "song_describer.csv"
CAPTIONS = {
    "all": "1,106 captions of 706 songs.",
    "valid": "746 captions of 546 songs.",
}


class SongDescriber(Corpus):
    """1,106 captions of 706 songs, all of them to test.

    Needed in the source folder or one level below it:

        song_describer.csv             with caption, is_valid_subset and path

    and in the audio folder, for the path `00/1004000.mp3`:

        00/1004000.2min.mp3            or 1004000.2min.* at any depth, or 1004000.*

    The configuration `all` (the default) has all captions, `valid` those that people
    checked (746 of 546 songs). Songs have up to several captions. There are no
    questions. All songs are in the test part of MTG-Jamendo's split-0: train on its
    other parts only.
    """

    name = "song_describer"
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name, description=description)
        for name, description in CAPTIONS.items()
    ]
    DEFAULT_BUILDER_CONFIG_NAME = "all"

    def rows(self) -> Iterator[SurveyRow]:
        """The annotations, as in `Corpus.rows`."""
        path = annotations.need(self.source, TABLE)
        columns = ("caption", "is_valid_subset", "path")
        for where, row in annotations.csv_rows(path, columns):
            full = str(path.parent / where)
            # Captions that nobody checked have an empty cell.
            checked = row["is_valid_subset"] != "" and annotations.is_true(
                row, "is_valid_subset", where=full
            )
            audio = annotations.text(row, "path", where=full)
            if not audio:
                raise UserError(f"{full}: 'path' is empty")
            if self.configuration == "valid" and not checked:
                continue
            yield SurveyRow(
                where=where,
                sound=Wanted(names=(f"{audio.removesuffix('.mp3')}.2min.mp3", audio)),
                question="",
                answer=annotations.text(row, "caption", where=full),
                split="test",
            )

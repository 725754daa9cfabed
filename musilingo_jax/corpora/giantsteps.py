"""GiantSteps: the key or the tempo of electronic dance music, as its listeners put it.

Knees et al. 2015, "Two Data Sets for Tempo Estimation and Key Detection in Electronic
Dance Music", and for the tempo Schreiber and Müller 2018;
github.com/GiantSteps/giantsteps-key-dataset and giantsteps-tempo-dataset, which state
no licence. Their audio_dl.sh fetches the sound, previews of Beatport of two minutes.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from musilingo_jax.corpora import annotations, row_files, stated_facts
from musilingo_jax.corpora.builder import Corpus
from musilingo_jax.corpora.clips import Wanted
from musilingo_jax.corpora.statements.keys import named_key
from musilingo_jax.corpora.survey import SurveyRow
from musilingo_jax.runtime.errors import UserError

# Configuration → folder of its annotations.
FOLDERS = {
    "key": "annotations/key",
    "tempo": "annotations_v2/tempo",
    "tempo_v1": "annotations/tempo",
}
_FASTEST = 1000.0  # beats per minute


class GiantSteps(Corpus):
    """The key of 604 songs, or the tempo of 664; and their genres. All are to test.

    Needed in the source folder or one level below it, as in the repositories, for the
    configuration `key`, `tempo` (the corrected one of 2018) or `tempo_v1` (of 2015):

        annotations/key/1234749.LOFI.key            "Bb major"
        annotations_v2/tempo/1120171.LOFI.bpm       "174.0"
        annotations/tempo/1120171.LOFI.bpm          "174"
        annotations/genre/1120171.LOFI.genre        "drum-and-bass"; may be missing

    and in the audio folder, at any depth:

        1234749.LOFI.mp3

    Both sets are meant for evaluation, so that all songs are the split "test". The
    tempo of three songs is 0.0, which means that there is none: they are left out.
    """

    name = "giantsteps"
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name, description=f"What {folder} holds.")
        for name, folder in FOLDERS.items()
    ]
    DEFAULT_BUILDER_CONFIG_NAME = "key"

    def rows(self) -> Iterator[SurveyRow]:
        """The annotations, as in `Corpus.rows`."""
        folder = annotations.need(self.source, FOLDERS[self.configuration])
        attribute = folder.name
        suffix = {"key": ".key", "tempo": ".bpm"}[attribute]
        files = sorted(folder.glob(f"*{suffix}"))
        if not files:
            raise UserError(f"{folder}: has no {suffix} files")
        genres = folder.parents[1] / "annotations/genre"
        for path in files:
            sound = Wanted(names=(path.stem,))
            value = _key(path) if attribute == "key" else _tempo(path)
            facts = {attribute: [value] if value else []}
            yield from stated_facts.rows(
                facts, where=path.name, sound=sound, split="test"
            )
            genre = genres / f"{path.stem}.genre"
            if os.path.lexists(genre):
                text = row_files.read_text(genre).strip().replace("-", " ")
                if not text or "<" in text or len(text.split()) > 5:
                    raise UserError(f"{genre}: must hold a genre, and nothing else")
                yield from stated_facts.rows(
                    {"genre": [text]}, where=genre.name, sound=sound, split="test"
                )


def _key(path: Path) -> str:
    text = row_files.read_text(path).strip()
    if len(text.split()) != 2 or named_key(text) is None:
        raise UserError(
            f'{path}: must hold a key, such as "Bb major", and nothing else'
        )
    return text


def _tempo(path: Path) -> str:
    """The beats per minute; "" if the file says that there are none."""
    text = row_files.read_text(path).strip()
    try:
        bpm = float(text)
    except ValueError:
        bpm = math.nan
    if not 0 <= bpm < _FASTEST:
        raise UserError(f"{path}: must hold a tempo in BPM, such as 174.0")
    return f"{bpm:g}" if bpm else ""

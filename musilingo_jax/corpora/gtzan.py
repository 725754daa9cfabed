"""GTZAN: a thousand clips of ten genres, and the split that avoids its known faults.

Tzanetakis and Cook 2002; genres.tar.gz of marsyas.info, or as the folder
genres_original on Kaggle. No licence is known: it is commercial music, used for
research. Sturm 2013, "The GTZAN dataset", lists repetitions, mislabelled clips and
artists that are in several parts; Kereliuk, Sturm and Larsen 2015 made the split
without them: the files gtzan/*_filtered.txt of github.com/coreyker/dnn-mgr.
"""

import re
from collections.abc import Iterator

import tensorflow_datasets as tfds

from musilingo_jax.corpora import annotations, row_files, stated_facts
from musilingo_jax.corpora.builder import Corpus
from musilingo_jax.corpora.clips import Wanted
from musilingo_jax.corpora.survey import SurveyRow
from musilingo_jax.runtime.errors import UserError

GENRES = (
    *("blues", "classical", "country", "disco", "hiphop"),
    *("jazz", "metal", "pop", "reggae", "rock"),
)
# Split → its file.
FILTERED = {
    "train": "train_filtered.txt",
    "validation": "valid_filtered.txt",
    "test": "test_filtered.txt",
}
_CLIP_SECONDS = 31.0  # The longest lasts 30.65 s.
_LINE = re.compile(rf"({'|'.join(GENRES)})/(\1\.000\d\d)\.wav", re.ASCII)


class GTZAN(Corpus):
    """One question about the genre of each clip.

    The configuration `filtered` (the default) needs, in the source folder or one level
    below it, lists of lines such as `blues/blues.00029.wav`:

        train_filtered.txt    443 clips, the split "train"
        valid_filtered.txt    197 clips, the split "validation"
        test_filtered.txt     290 clips, the split "test"

    The lists leave out 70 clips because of their faults. The configuration `all` needs
    no list, and has all 1,000 clips as the split "test", for models that were trained
    on none of them. In the audio folder:

        blues/blues.00029.wav    or blues.00029.* at any depth, but not .au, which must
                                 be converted first

    jazz.00054.wav is damaged in most copies: it is then counted as of unknown length,
    and needs --allow_missing.
    """

    name = "gtzan"
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="filtered", description="930 clips, split."),
        tfds.core.BuilderConfig(name="all", description="1,000 clips, all to test."),
    ]
    DEFAULT_BUILDER_CONFIG_NAME = "filtered"

    def rows(self) -> Iterator[SurveyRow]:
        """The annotations, as in `Corpus.rows`."""
        for where, genre, clip, split in self._clips():
            yield from stated_facts.rows(
                {"genre": ["hip hop" if genre == "hiphop" else genre]},
                where=where,
                sound=Wanted(names=(f"{genre}/{clip}.wav",), longest=_CLIP_SECONDS),
                split=split,
            )

    def _clips(self) -> Iterator[tuple[str, str, str, str]]:
        """Place, genre, name and split of each clip."""
        if self.configuration == "all":
            for genre in GENRES:
                for number in range(100):
                    clip = f"{genre}.{number:05}"
                    yield clip, genre, clip, "test"
            return
        for split, file in FILTERED.items():
            path = annotations.need(self.source, file)
            lines = row_files.read_text(path).split("\n")
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                if (found := _LINE.fullmatch(line.strip())) is None:
                    raise UserError(
                        f"{path}:{number}: must be a clip such as "
                        f"blues/blues.00029.wav, not {line[:40]!r}"
                    )
                yield f"{path.name}:{number}", found[1], found[2], split

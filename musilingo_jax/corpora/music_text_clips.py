"""YouTube8M-MusicTextClips: stretches of music videos, described by people.

McKee et al. 2023, "Language-Guided Music Recommendation for Video via Prompt
Analogies"; zenodo.org/records/8040754, under the Adobe Research License: for research
only, not for commercial use. The sound is not included, and some of the videos no
longer exist.
"""

from collections.abc import Iterator

from musilingo_jax.corpora import annotations, musiccaps_clips
from musilingo_jax.corpora.builder import Corpus
from musilingo_jax.corpora.survey import SurveyRow

SPLITS = ("train", "test")
_CLIP = ("video_id", "start", "end")


class MusicTextClips(Corpus):
    """Captions of ten-second clips: 1,000 to train on, 3,169 to test.

    Needed in the source folder or one level below it, any or both of

        train.csv, test.csv       with video_id, start, end and text

    and in the audio folder, the sound of the videos or clips, named as that of
    MusicCaps. The splits are the files. There are no questions.
    """

    name = "music_text_clips"

    def rows(self) -> Iterator[SurveyRow]:
        """The annotations, as in `Corpus.rows`."""
        files = {split: f"{split}.csv" for split in SPLITS}
        paths = {name: annotations.find(self.source, files[name]) for name in SPLITS}
        if not any(paths.values()):
            annotations.need(self.source, *files.values())
        for split, path in paths.items():
            if path is None:
                continue
            for where, row in annotations.csv_rows(path, (*_CLIP, "text")):
                full = str(path.parent / where)
                yield SurveyRow(
                    where=where,
                    sound=musiccaps_clips.sound(row, where=full, columns=_CLIP),
                    question="",
                    answer=annotations.text(row, "text", where=full),
                    split=split,
                )

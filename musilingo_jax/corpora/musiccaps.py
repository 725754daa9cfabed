"""MusicCaps: 5,521 stretches of YouTube videos, described by musicians.

Agostinelli et al. 2023, "MusicLM". `musiccaps-public.csv` comes from Kaggle
(googleai/musiccaps) or the Hugging Face hub (google/MusicCaps), under CC BY-SA 4.0. The
sound is not included, and some of the videos no longer exist.
"""

from collections.abc import Iterator

from musilingo_jax.corpora import annotations
from musilingo_jax.corpora.builder import Corpus
from musilingo_jax.corpora.musiccaps_clips import TABLE, sound
from musilingo_jax.corpora.survey import SurveyRow

AUTHORS = "all.json"


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

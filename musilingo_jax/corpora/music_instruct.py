"""MusicInstruct: questions and answers that GPT-4 wrote about the MusicCaps clips.

Deng et al. 2024, "MusiLingo"; on the Hugging Face hub as m-a-p/Music-Instruct. The
sound is that of MusicCaps: with the same audio folder, each clip is encoded once for
both.
"""

from collections.abc import Iterator

import tensorflow_datasets as tfds

from musilingo_jax.corpora import annotations, musiccaps_clips
from musilingo_jax.corpora.builder import Corpus
from musilingo_jax.corpora.survey import SurveyRow

FILES = {
    "all": "music_instruct.json",
    "short": "music_instruct_short.json",
    "long": "music_instruct_long.json",
}


class MusicInstruct(Corpus):
    """27,540 short answers about facts, and 32,953 long ones about impressions.

    The configuration `all` (both), `short` or `long` needs its file in the source
    folder or one level below it:

        music_instruct.json           {"QA": [{"ytid", "question", "answer",
        music_instruct_short.json       "is_audioset_eval", "sampling_rate", …}]}
        music_instruct_long.json
        musiccaps-public.csv          only for audio of whole videos: the start and end
                                      of each clip

    and the audio of MusicCaps, as described there; MusiLingo's authors have it as
    `MusicCaps_audio/{ytid}.npy`. Clips from AudioSet's evaluation set are the split
    "test", the others "train".
    """

    name = "music_instruct"
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name, description=f"What {file} holds.")
        for name, file in FILES.items()
    ]
    DEFAULT_BUILDER_CONFIG_NAME = "all"

    def rows(self) -> Iterator[SurveyRow]:
        """The annotations, as in `Corpus.rows`."""
        path = annotations.need(self.source, FILES[self.configuration])
        times = musiccaps_clips.times(self.source)
        for where, row in annotations.json_rows(path, "QA"):
            full = str(path.parent / where)
            is_test = annotations.is_true(row, "is_audioset_eval", where=full)
            yield SurveyRow(
                where=where,
                sound=musiccaps_clips.sound(row, where=full, times=times),
                question=annotations.text(row, "question", where=full) or None,
                answer=annotations.text(row, "answer", where=full),
                split="test" if is_test else "train",
            )

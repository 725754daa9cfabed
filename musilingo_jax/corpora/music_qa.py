"""MusicQA: questions and answers that an MPT model wrote about three music data sets.

Liu et al. 2024, "Music Understanding LLaMA" (MU-LLaMA); on the Hugging Face hub as
mu-llama/MusicQA, under the MIT licence, with its sound.
"""

from collections.abc import Iterator

from musilingo_jax.corpora import annotations
from musilingo_jax.corpora.builder import Corpus
from musilingo_jax.corpora.clips import Wanted
from musilingo_jax.corpora.survey import SurveyRow
from musilingo_jax.runtime.errors import UserError

FILES = {
    "pretrain": "PretrainMusicQA.json",
    "train": "FinetuneMusicQA.json",
    "test": "EvalMusicQA.json",
}
_SPEAKERS = ("human", "gpt")


class MusicQA(Corpus):
    """Nine questions per clip: 70,011 to train on, 5,040 to test.

    Needed in the source folder or one level below it, any or all of these, each an
    array of {"audio_name": "012542.wav", "conversation": [{"from": "human",
    "value": …}, {"from": "gpt", "value": …}]}:

        PretrainMusicQA.json      the split "pretrain"   (MusicCaps)
        FinetuneMusicQA.json      the split "train"      (MagnaTagATune)
        EvalMusicQA.json          the split "test"       (MTG-Jamendo)
        audios/012542.wav         the sound, in any format, in the audio folder
    """

    name = "music_qa"

    def rows(self) -> Iterator[SurveyRow]:
        """The annotations, as in `Corpus.rows`."""
        paths = {
            split: path
            for split, name in FILES.items()
            if (path := annotations.find(self.source, name))
        }
        if not paths:
            annotations.need(self.source, *FILES.values())
        for split, path in paths.items():
            for where, row in annotations.json_rows(path, None):
                full = str(path.parent / where)
                name = annotations.text(row, "audio_name", where=full)
                if not name:
                    raise UserError(f"{full}: 'audio_name' is empty")
                for question, answer in _turns(row, where=full):
                    yield SurveyRow(
                        where=where,
                        sound=Wanted(names=(name,)),
                        question=question or None,
                        answer=answer,
                        split=split,
                    )


def _turns(row: dict, *, where: str) -> Iterator[tuple[str, str]]:
    """The questions of a conversation, each with its answer."""
    turns = row.get("conversation")
    if not isinstance(turns, list) or not turns or len(turns) % 2:
        raise UserError(
            f"{where}: 'conversation' must be a list of questions and answers"
        )
    texts = []
    for number, turn in enumerate(turns):
        speaker = _SPEAKERS[number % 2]
        if not isinstance(turn, dict) or turn.get("from") != speaker:
            raise UserError(
                f"{where}: turn {number + 1} of the conversation must be from "
                f"{speaker!r}"
            )
        texts.append(annotations.text(turn, "value", where=where))
    yield from zip(texts[::2], texts[1::2], strict=True)

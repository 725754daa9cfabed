"""MusicCaps and Song Describer: captions beside those of people.

`musiccaps-public.csv` comes from Kaggle or the hub (google/MusicCaps), of which the
2,858 clips of AudioSet's evaluation set are asked about; `song_describer.csv`, with 706
tracks and 1,106 captions, from Zenodo (10072001), with its sound.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from musilingo_jax.answering.model import CAPTION
from musilingo_jax.benchmarks.item import (
    HONEST,
    PUBLISHED,
    Benchmark,
    Item,
    Reading,
    Row,
    Score,
)
from musilingo_jax.corpora import annotations, musiccaps_clips
from musilingo_jax.corpora.clips import Wanted
from musilingo_jax.evaluation.metrics import bleu
from musilingo_jax.evaluation.metrics.wording import COUNTS
from musilingo_jax.evaluation.published_scores import LEGACY
from musilingo_jax.runtime.errors import UserError

SONGS, CLIPS = "song_describer.csv", musiccaps_clips.TABLE
_LABELS = {
    "bleu": "BLEU of characters, published rule",
    "meteor": "METEOR, published rule",
    "rouge_l": "ROUGE-L recall, published rule",
    "bertscore": "BERTScore recall, published rule",
}


def _read_songs(source: Path, reading: Reading) -> list[Item]:
    """A question for each caption; the other captions of a track are references, too.

    Raises:
      UserError: the table is missing or damaged.
    """
    path = annotations.need(source, SONGS)
    columns = ("caption_id", "track_id", "caption", "is_valid_subset", "path")
    rows = [
        (row, str(path.parent / where))
        for where, row in annotations.csv_rows(path, columns)
    ]
    of_track: dict[str, list[str]] = {}
    for row, where in rows:
        if not row["caption"].strip():
            raise UserError(f"{where}: the caption is empty")
        of_track.setdefault(row["track_id"], []).append(row["caption"])
    return [_song(row, of_track[row["track_id"]], where) for row, where in rows]


def _song(row: dict[str, Any], captions: Sequence[str], where: str) -> Item:
    valid = annotations.is_true(row, "is_valid_subset", where=where)
    name = Path(row["path"]).with_suffix("").as_posix()
    own = row["caption"]
    return Item(
        id=row["caption_id"],
        sound=Wanted(names=(f"{name}.2min", name)),
        question=CAPTION,
        reference=own,
        is_caption=True,
        others=tuple(dict.fromkeys(text for text in captions if text != own)),
        groups=("valid subset",) if valid else (),
    )


def _read_clips(source: Path, reading: Reading) -> list[Item]:
    """A question for each clip of the evaluation set.

    Raises:
      UserError: the table is missing or damaged.
    """
    path = annotations.need(source, CLIPS)
    columns = ("ytid", "start_s", "end_s", "caption", "is_audioset_eval")
    items = []
    for where, row in annotations.csv_rows(path, columns):
        full = str(path.parent / where)
        if not annotations.is_true(row, "is_audioset_eval", where=full):
            continue
        if not row["caption"].strip():
            raise UserError(f"{full}: the caption is empty")
        balanced = str(row.get("is_balanced_subset")).lower() in ("true", "1")
        items.append(
            Item(
                id=row["ytid"],
                sound=musiccaps_clips.sound(row, where=full),
                question=CAPTION,
                reference=row["caption"],
                is_caption=True,
                groups=("balanced subset",) if balanced else (),
            )
        )
    return items


def _bleu4(sums: Any) -> Any:
    return bleu.corpus_bleu(sums)["bleu4"]


def _published(name: str, says: str) -> Score:
    label = _LABELS[name]
    return Score(f"legacy.{name}", label, PUBLISHED, says, right_or_wrong=False)


def _honest(name: str, label: str, says: str, formula: Any = None) -> Score:
    score = Score(name, label, HONEST, says, right_or_wrong=False)
    return score if formula is None else score._replace(formula=formula)


_SCORES = (
    _published("bleu", "BLEU-4 of nltk on characters, mean over captions"),
    _published("meteor", "METEOR of nltk, mean over captions"),
    _published("rouge_l", "ROUGE-L recall, so that longer is never worse"),
    _published("bertscore", "BERTScore recall of roberta-large"),
    _honest("honest.rouge_l", "ROUGE-L F1", "of stems, with the nearest reference"),
    _honest(
        COUNTS,
        "BLEU-4 of words",
        "of all captions together, with all references (sacrebleu's counts)",
        _bleu4,
    ),
    _honest("honest.meteor", "METEOR", "with the nearest reference"),
    _honest("honest.bertscore", "BERTScore F1", "with the nearest reference"),
)


def _rows(corpus: str) -> tuple[Row, ...]:
    return tuple(
        Row(row.system, label, getattr(row, name), row.source)
        for row in LEGACY
        if row.corpus == corpus
        for name, label in _LABELS.items()
    )


SONG_DESCRIBER = Benchmark(
    name="song-describer",
    title="Song Describer (Manco et al. 2023)",
    data=f"{SONGS} or its folder",
    read=_read_songs,
    scores=_SCORES,
    rows=_rows("Song Describer"),
)
MUSICCAPS = Benchmark(
    name="musiccaps",
    title="MusicCaps (Agostinelli et al. 2023)",
    data=f"{CLIPS} or its folder",
    read=_read_clips,
    scores=_SCORES,
    rows=_rows("MusicCaps"),
)

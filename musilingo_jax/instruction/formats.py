"""Rows of a job → the files that corpora are read from.

    songs.jsonl                               `corpora/songs.py`: ours, with values
    music_qa/FinetuneMusicQA.json, …          `corpora/music_qa.py`: a file for a split
    music_instruct/music_instruct.json        `corpora/music_instruct.py`: all of it
                   music_instruct_short.json  … answers about facts
                   music_instruct_long.json   … descriptions and reasoning

MusicQA names whole files, and MusicInstruct has two splits; what has no place in one of
these forms is counted, with the reason, and is in the others.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from musilingo_jax.corpora.records import SUFFIXES
from musilingo_jax.instruction.pairs import UNDERSTANDING, Pair
from musilingo_jax.instruction.subjects import Subject
from musilingo_jax.runtime import storage

SONGS, MUSIC_QA, MUSIC_INSTRUCT = "songs", "music_qa", "music_instruct"
FORMATS = (SONGS, MUSIC_QA, MUSIC_INSTRUCT)
SONGS_FILE = "songs.jsonl"

# As the readers name them, which import TFDS.
_QA_FILES = {
    "pretrain": "PretrainMusicQA.json",
    "train": "FinetuneMusicQA.json",
    "test": "EvalMusicQA.json",
}
_SHORT, _LONG = "music_instruct_short.json", "music_instruct_long.json"
_ALL = "music_instruct.json"
_SPLITS = ("train", "test")
_AGAIN = "run the same command again"


class Told(NamedTuple):
    """A pair that is used, of which clip and family.

    Attributes:
      subject: the clip.
      family: of `pairs.FAMILIES`.
      pair: the question and its answer.
    """

    subject: Subject
    family: str
    pair: Pair


class Written(NamedTuple):
    """A file, how many pairs are in it, and why others are not."""

    path: Path
    count: int
    left_out: Mapping[str, int]


def write(folder: Path, told: list[Told], formats: Iterable[str]) -> list[Written]:
    """Writes the files of some formats.

    Args:
      folder: for all of them.
      told: the pairs, in order.
      formats: of `FORMATS`.

    Raises:
      UserError: a file cannot be written.
    """
    return [file for name in formats for file in _WRITERS[name](folder, told)]


def _write(path: Path, text: str) -> None:
    with storage.writing(path, again=_AGAIN):
        storage.write_text(path, text)


def _songs(folder: Path, told: list[Told]) -> Iterator[Written]:
    path = folder / SONGS_FILE
    lines = []
    for subject, _, pair in told:
        assert subject.audio is not None  # The program asks for it.
        row: dict[str, Any] = {"audio": _relative(subject.audio, folder)}
        row |= {"split": subject.split, **pair.entry}
        part = {"start": subject.start, "end": subject.end, "rate": subject.rate}
        row |= {key: value for key, value in part.items() if value is not None}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    _write(path, "".join(lines))
    yield Written(path, len(lines), {})


def _relative(audio: Path, folder: Path) -> str:
    return Path(os.path.relpath(audio, folder.absolute())).as_posix()


def _music_qa(folder: Path, told: list[Told]) -> Iterator[Written]:
    left_out: Counter[str] = Counter()
    rows: dict[str, list[dict[str, Any]]] = {}
    for subject, _, pair in told:
        if subject.end is not None or subject.start is not None:
            left_out["of a stretch of a file, which MusicQA cannot name"] += 1
        elif subject.split not in _QA_FILES:
            left_out[f"of the split {subject.split}, which MusicQA has not"] += 1
        else:
            turns = (("human", pair.question), ("gpt", pair.answer))
            row = {
                "audio_name": subject.name,
                "conversation": [{"from": who, "value": text} for who, text in turns],
                "id": subject.clip,
            }
            rows.setdefault(subject.split, []).append(row)
    for split, name in _QA_FILES.items():
        path = folder / MUSIC_QA / name
        if split in rows:
            _write(path, _array(rows[split]))
            yield Written(path, len(rows[split]), {})
        else:
            path.unlink(missing_ok=True)  # Of an earlier run, of other songs.
    if left_out:
        yield Written(folder / MUSIC_QA, 0, left_out)


def _music_instruct(folder: Path, told: list[Told]) -> Iterator[Written]:
    left_out: Counter[str] = Counter()
    rows: dict[str, list[dict[str, Any]]] = {_ALL: [], _SHORT: [], _LONG: []}
    for subject, family, pair in told:
        if subject.split not in _SPLITS:
            reason = f"of the split {subject.split}, which MusicInstruct has not"
            left_out[reason] += 1
            continue
        row: dict[str, Any] = {
            "ytid": _stem(subject.name),
            "question": pair.question,
            "answer": pair.answer,
            "is_audioset_eval": subject.split == "test",
        }
        if subject.end is not None:
            row |= {"start_s": subject.start or 0.0, "end_s": subject.end}
        if subject.rate is not None:
            row["sampling_rate"] = subject.rate
        for name in (_ALL, _SHORT if family == UNDERSTANDING else _LONG):
            rows[name].append(row)
    for name, own in rows.items():
        path = folder / MUSIC_INSTRUCT / name
        _write(path, json.dumps({"QA": own}, ensure_ascii=False, indent=1) + "\n")
        yield Written(path, len(own), left_out if name == _ALL else {})


def _stem(name: str) -> str:
    """A name as that of a video: without the suffix of a sound file, if it has one."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in SUFFIXES else name


def _array(rows: list[dict[str, Any]]) -> str:
    return json.dumps(rows, ensure_ascii=False, indent=1) + "\n"


_WRITERS: dict[str, Callable[[Path, list[Told]], Iterator[Written]]] = {
    SONGS: _songs,
    MUSIC_QA: _music_qa,
    MUSIC_INSTRUCT: _music_instruct,
}

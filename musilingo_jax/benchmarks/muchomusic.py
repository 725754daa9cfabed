"""MuChoMusic (Weck et al. 2024, ISMIR): 1,187 questions with four options each.

`muchomusic.csv` comes from Zenodo (12709974) or the hub (mulab-mir/muchomusic), under
CC BY-SA 4.0. Its questions are about 644 tracks of MusicCaps and Song Describer, whose
sound is not included.
"""

import ast
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from musilingo_jax.benchmarks import multiple_choice
from musilingo_jax.benchmarks.item import (
    PUBLISHED,
    Answers,
    Benchmark,
    Item,
    Reading,
    Row,
    RowScores,
    Score,
    Told,
)
from musilingo_jax.corpora import annotations, musiccaps_clips
from musilingo_jax.corpora.clips import Wanted
from musilingo_jax.evaluation.metrics import choices
from musilingo_jax.evaluation.published_scores import MUCHOMUSIC, MUCHOMUSIC_SOURCE
from musilingo_jax.runtime.errors import UserError

TABLE = "muchomusic.csv"
_OPTIONS = (
    "correct_answer",
    "distractor_1_answer",
    "distractor_2_answer",
    "distractor_3_answer",
)
_COLUMNS = ("question", *_OPTIONS, "dataset", "dataset_identifier")
_COLUMNS += ("genre", "music_knowledge", "music_reasoning")
# The example in each prompt of the published evaluation (MIT licence).
_EXAMPLE = (
    "Question: What rhythm pattern do the digital drums primarily follow in this pop "
    "music piece? \n Options: (A) Four on the floor. (B) Off-beat syncopation. "
    "(C) Scat singing. (D) E-guitar playing a simple melody. \n The correct answer is: "
    "A"
)
_ANSWERED = "answered (IFR), published rule"


def _read(source: Path, reading: Reading) -> list[Item]:
    """The questions, each `reading.shuffles` times.

    Raises:
      UserError: the table is missing or damaged.
    """
    path = annotations.need(source, TABLE)
    times = musiccaps_clips.times(path.parent)
    items = []
    for number, (where, row) in enumerate(annotations.csv_rows(path, _COLUMNS)):
        full = str(path.parent / where)
        for shuffle in range(reading.shuffles):
            items.append(_item(row, number, shuffle, reading.seed, times, full))
    return items


def _item(
    row: dict[str, Any],
    number: int,
    shuffle: int,
    seed: int,
    times: dict[str, tuple[float, float]],
    where: str,
) -> Item:
    """A question of the table, in one order of its options."""
    texts = [row[column] for column in _OPTIONS]
    multiple_choice.check(texts, texts[0], where=where)
    order = multiple_choice.order(len(texts), f"{number}/{shuffle}", seed)
    options = tuple(texts[place] for place in order)
    track, sound = _sound(row, times, where)
    groups = {
        name: _texts(row[f"music_{name}"], f"{where}: music_{name}")
        for name in ("knowledge", "reasoning")
    }
    question = (
        f"{_EXAMPLE}\n Question: {row['question']}\n Options: "
        f"{multiple_choice.lettered(options)}\n The correct answer is: "
    )
    about = {
        "id": track,
        "prompt": question,
        "answers": list(options),
        "answer_orders": order,
        "dataset": row["dataset"],
        "genre": row["genre"],
        "reasoning": groups["reasoning"],
        "knowledge": groups["knowledge"],
    }
    return Item(
        id=f"{number}/{shuffle}",
        sound=sound,
        question=question,
        reference=texts[0],
        value=texts[0],
        options=options,
        bare=row["question"],
        candidates=options,
        right=order.index(0),
        groups=tuple(name for name, found in groups.items() if found),
        about={"shuffle": shuffle, **about},
    )


def _sound(
    row: dict[str, Any], times: dict[str, tuple[float, float]], where: str
) -> tuple[int | str, Wanted]:
    """The track as the published scorer names it, and its sound.

    Raises:
      UserError: the row names no track of the two corpora.
    """
    name = row["dataset_identifier"].removesuffix(".json")
    if row["dataset"] == "sdd" and name.isdecimal():
        return int(name), Wanted(names=(f"{name}.2min", name))
    if row["dataset"] == "musiccaps" and "_" in name:
        video = name.rpartition("_")[0]
        return video, musiccaps_clips.sound({"ytid": video}, where=where, times=times)
    raise UserError(
        f"{where}: {row['dataset']!r} and {name!r:.60} name no track: dataset must be "
        "sdd, with a number, or musiccaps, with a video"
    )


def _texts(cell: str, where: str) -> list[str]:
    """The texts of a cell that holds a list as Python writes it; none if it is empty.

    Raises:
      UserError: it holds something else.
    """
    try:
        found = ast.literal_eval(cell) if cell else []
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        found = None
    if isinstance(found, list) and all(isinstance(text, str) for text in found):
        return found
    raise UserError(f"{where}: {cell!r:.60} is not a list of texts in brackets")


def _published(items: Sequence[Item], answers: Answers) -> RowScores:
    """Whether answers choose the right option, and any, by the published rule."""
    right = np.full(len(items), np.nan)
    answered = right.copy()
    for place, (item, answer) in enumerate(zip(items, answers, strict=True)):
        if answer is not None:
            option = choices.published_choice(answer, item.options)
            right[place] = option == item.about["answer_orders"].index(0)
            answered[place] = option is not None
    return {"published": right, "published_answered": answered}


def _files(told: Sequence[Told]) -> dict[str, str]:
    """`muchomusic.json`, and one more for each further order of the options."""
    files: dict[str, list[dict[str, Any]]] = {}
    for each in told:
        about = dict(each.item.about)
        shuffle = about.pop("shuffle")
        name = f"muchomusic-{shuffle + 1}.json" if shuffle else "muchomusic.json"
        about |= {"audio_path": each.audio, "model_output": each.answer}
        files.setdefault(name, []).append(about)
    return {
        name: json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
        for name, rows in files.items()
    }


BENCHMARK = Benchmark(
    name="muchomusic",
    title="MuChoMusic (Weck et al. 2024)",
    data=f"{TABLE} or its folder; musiccaps-public.csv beside it tells the times",
    read=_read,
    published=_published,
    files=_files,
    scores=(
        Score(
            "published",
            multiple_choice.ACCURACY,
            PUBLISHED,
            "the only letter of A to D anywhere in the answer, else the first option "
            "whose text it contains, is right",
        ),
        Score(
            "published_answered",
            _ANSWERED,
            PUBLISHED,
            "the answer chooses an option by that rule",
            is_evidence=False,
        ),
        multiple_choice.READ,
        multiple_choice.CHOSEN,
        multiple_choice.LIKELIEST,
    ),
    rows=(
        *(
            Row(system, multiple_choice.ACCURACY, percent, MUCHOMUSIC_SOURCE)
            for system, percent in MUCHOMUSIC.items()
        ),
        Row("M2UGen", multiple_choice.ACCURACY, 42.9, MUCHOMUSIC_SOURCE),
        Row("MusiLingo", _ANSWERED, 71.6, MUCHOMUSIC_SOURCE),
        Row("MU-LLaMA", _ANSWERED, 79.4, MUCHOMUSIC_SOURCE),
        Row("M2UGen", _ANSWERED, 96.4, MUCHOMUSIC_SOURCE),
        Row("Qwen-Audio", _ANSWERED, 89.7, MUCHOMUSIC_SOURCE),
        Row(
            "MOSS-Music-8B-Instruct", multiple_choice.ACCURACY, 89.39, "MOSS-Music card"
        ),
        Row("random choice", multiple_choice.ACCURACY, 25.0, "four options"),
    ),
)

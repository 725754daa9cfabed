"""CMI-Bench (Ma et al. 2025, ISMIR): tasks of music information retrieval, asked.

`CMI_*.jsonl`, a file for each task, are in nicolaus625/CMI-bench, its sound on the hub
(nicolaus625/CMI-bench, test_Data.zip). Asked are the tasks whose answers a rule can
score: classes, key, beats and downbeats, captions. Tags are scored by embeddings of
other models, and of lyrics, melodies, techniques in time and emotions, no published
model gave answers that its script can read without a repair by hand; they are left out,
which is told.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from musilingo_jax.benchmarks import cmi_rules
from musilingo_jax.benchmarks.captions import SONG_DESCRIBER
from musilingo_jax.benchmarks.item import (
    HONEST,
    PUBLISHED,
    Answers,
    Benchmark,
    Item,
    Reading,
    RowScores,
    Score,
    Told,
)
from musilingo_jax.corpora import annotations, row_files
from musilingo_jax.corpora.clips import Wanted
from musilingo_jax.corpora.statements.keys import named_key
from musilingo_jax.evaluation.metrics import facts
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import is_texts
from musilingo_jax.runtime.printable import print_note

_BEGIN = "CMI_"
# Task → what is asked for, as metrics of this package name it.
_CLASSES = {
    "GTZAN": "genre",
    "VocalSet_tech": "singing technique",
    "Nsynth_instrument": "single instrument",
    "Nsynth_pitch": "pitch",
}
_KEY = "GS_key"
_BEATS = ("ballroom_beat", "ballroom_downbeat", "gtzan_beat", "gtzan_downbeat")
_CAPTIONS = ("SDD", "MusicCaps")
TASKS = (*_CLASSES, _KEY, *_BEATS, *_CAPTIONS)
_COUNTED = ("f_measure", "cmlt", "amlt")


def _read(source: Path, reading: Reading) -> list[Item]:
    """The questions of the test split of all tasks that are there.

    Raises:
      UserError: there is no file of a task, or one is damaged.
    """
    if source.is_file():
        paths = {source.stem.removeprefix(_BEGIN): source}
    else:
        found = sorted(source.rglob(f"{_BEGIN}*.jsonl"))
        paths = {path.stem.removeprefix(_BEGIN): path for path in found}
    others = sorted(set(paths) - set(TASKS))
    if others:
        print_note(f"note: {len(others)} tasks are not asked: {', '.join(others)}")
    tasks = [task for task in TASKS if task in paths]
    if not tasks:
        raise UserError(
            f"{source}: there is no {_BEGIN}….jsonl of the tasks {', '.join(TASKS)}"
        )
    return [item for task in tasks for item in _task(task, paths[task])]


def _task(task: str, path: Path) -> list[Item]:
    items = []
    for number, (where, row) in enumerate(row_files.read_rows(path)):
        splits, sounds = row.get("split"), row.get("audio_path")
        if not is_texts(splits) or not is_texts(sounds):
            raise UserError(f"{where}: split and audio_path must be lists of texts")
        # As published, a question about several sounds is not asked.
        if splits[:1] == ["test"] and len(sounds) == 1:
            items.append(_item(task, number, row, sounds[0], where))
    return items


def _item(task: str, number: int, row: dict[str, Any], audio: str, where: str) -> Item:
    question = annotations.text(row, "instruction", where=where)
    output = row.get("output")
    if isinstance(output, list) and len(output) == 1:
        output = output[0]
    if not isinstance(output, str | int | float) or not str(output).strip():
        raise UserError(f"{where}: 'output' must be a text, not {output!r:.60}")
    truth = str(output)
    attribute = "key" if task == _KEY else _CLASSES.get(task)
    if task == _KEY and named_key(truth) is None:
        raise UserError(f"{where}: {truth!r:.60} is not a key")
    start = annotations.number(row, "audio_start", where=where) or 0.0
    end = row.get("audio_end")
    whole = end in (-1, None)
    return Item(
        id=f"{task}/{number}",
        sound=Wanted(
            names=(audio.removeprefix("data/"),),
            start=None if whole else start,
            end=None if whole else annotations.number(row, "audio_end", where=where),
        ),
        question=question,
        reference=truth,
        attribute=attribute,
        value=None if attribute is None else truth,
        is_caption=task in _CAPTIONS,
        groups=(task,),
        about={
            "task": task,
            "row": {
                "question": question,
                "correct_answer": row["output"],
                "audioid": audio,
                "other": "",
            },
        },
    )


def _published(items: Sequence[Item], answers: Answers) -> RowScores:
    """Scores of classes, of keys and of beats, each of its own tasks."""
    classes: dict[str, set[str]] = {}
    for item in items:
        classes.setdefault(item.about["task"], set()).add(item.reference)
    names = ("published_class", "published_key", *map("published_{}".format, _COUNTED))
    found = {name: np.full(len(items), np.nan) for name in names}
    for place, (item, answer) in enumerate(zip(items, answers, strict=True)):
        task = item.about["task"]
        if answer is None:
            continue
        if task in _CLASSES:
            right = cmi_rules.is_class(answer, item.reference, classes[task])
            found["published_class"][place] = right
        elif task == _KEY:
            score = cmi_rules.key_score(answer, item.reference)
            found["published_key"][place] = score
        elif task in _BEATS:
            scores = cmi_rules.beat_scores(answer, item.reference)
            for name, score in zip(_COUNTED, scores, strict=True):
                found[f"published_{name}"][place] = score
    return found


def _values(items: Sequence[Item]) -> dict[str, set[str]]:
    pairs = ((item.attribute, item.value) for item in items)
    return facts.vocabulary(pairs)


def _files(told: Sequence[Told]) -> dict[str, str]:
    """`musilingo_jax_TASK.jsonl`, each a JSON array in spite of its name."""
    files: dict[str, list[dict[str, Any]]] = {}
    for item, _, answer in told:
        name = f"musilingo_jax_{item.about['task']}.jsonl"
        files.setdefault(name, []).append({**item.about["row"], "response": answer})
    return {
        name: json.dumps(rows, ensure_ascii=False, indent=4) + "\n"
        for name, rows in files.items()
    }


BENCHMARK = Benchmark(
    name="cmi-bench",
    title="CMI-Bench (Ma et al. 2025)",
    data=f"the folder of all {_BEGIN}*.jsonl, at any depth, or one of these files",
    read=_read,
    published=_published,
    values=_values,
    files=_files,
    scores=(
        Score(
            "published_class",
            "accuracy, published rule",
            PUBLISHED,
            "the answer has the letters of the right class and of no other",
        ),
        Score(
            "published_key",
            "MIREX score, published rule",
            PUBLISHED,
            "MIREX's weighted score of the first of 24 names that the answer contains",
            right_or_wrong=False,
        ),
        *(
            Score(f"published_{name}", label, PUBLISHED, says, right_or_wrong=False)
            for name, label, says in (
                ("f_measure", "beats, F-measure", "within 70 ms (mir_eval)"),
                ("cmlt", "beats, CMLt", "continuity at the right level (mir_eval)"),
                ("amlt", "beats, AMLt", "… or at twice or half of it (mir_eval)"),
            )
        ),
        Score("genre", "genre, as read", HONEST, facts.STANDARD["genre"]),
        *(
            Score(name, f"{name}, as read", HONEST, "the answer states it and no other")
            for name in ("singing technique", "single instrument", "pitch")
        ),
        Score(
            "key",
            "MIREX score, as read",
            HONEST,
            facts.STANDARD["key"],
            right_or_wrong=False,
        ),
        *SONG_DESCRIBER.scores,
    ),
    rows=(),
)

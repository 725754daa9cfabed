"""MMAU's music (Sakshi et al. 2025): 334 questions of test-mini, v05.15.25.

`mmau-test-mini.json` comes from Sakshi113/MMAU or the hub
(gamma-lab-umd/MMAU-test-mini), its sound from the links there. Questions about speech
and sounds are not asked. The answers of the full test are withheld.
"""

import json
import re
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
from musilingo_jax.corpora import annotations
from musilingo_jax.corpora.clips import Wanted
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import is_texts

FILE = "mmau-test-mini.json"
_WORD = re.compile(r"\w+")
_TEXTS = ("id", "audio_id", "question", "answer", "task", "sub-category", "difficulty")


def published_match(answer: str, right: str, options: Sequence[str]) -> bool:
    r"""Whether an answer is right by the published rule.

    Words are runs of letters, digits and underscores, in lower case, each counted once.
    The answer has all words of the right option, and none that only another option has:

        options "Male singing", "Female singing"; right: the first
        "Singing, male."                          → right
        "Male singing, not female"                → wrong, for "female"
        "A man sings"                             → wrong: no "male"
    """
    said, wanted = _words(answer), _words(right)
    foreign = set().union(*map(_words, options)) - wanted
    return bool(said) and wanted <= said and not said & foreign


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


def _read(source: Path, reading: Reading) -> list[Item]:
    """The questions about music.

    Raises:
      UserError: the file is missing or damaged, or its answers are withheld.
    """
    path = source if source.is_file() else annotations.need(source, FILE)
    items = []
    for where, row in annotations.json_rows(path, None):
        full = str(path.parent / where)
        if row.get("task") != "music":
            continue
        if not row.get("answer"):
            raise UserError(f"{full}: has no answer: of the full test all are withheld")
        for name in _TEXTS:
            annotations.text(row, name, where=full)
        if not is_texts(row.get("choices")):
            raise UserError(f"{full}: 'choices' must be a list of texts")
        for shuffle in range(reading.shuffles):
            items.append(_item(row, shuffle, reading.seed, full))
    return items


def _item(row: dict[str, Any], shuffle: int, seed: int, where: str) -> Item:
    """A question; its first order of options is the published one."""
    texts = row["choices"]
    multiple_choice.check(texts, row["answer"], where=where)
    order = list(range(len(texts)))
    if shuffle:
        order = multiple_choice.order(len(texts), f"{row['id']}/{shuffle}", seed)
    options = tuple(texts[place] for place in order)
    return Item(
        id=f"{row['id']}/{shuffle}",
        sound=Wanted(names=(row["audio_id"].removeprefix("./"),)),
        # Without letters: by the rule, an “A” would be a word of “A child”.
        question="\n".join(
            (row["question"], "Choose one of these, and say nothing else:", *options)
        ),
        reference=row["answer"],
        value=row["answer"],
        options=options,
        bare=row["question"],
        candidates=options,
        right=options.index(row["answer"]),
        groups=(row["sub-category"], f"difficulty: {row['difficulty']}"),
        about={"shuffle": shuffle, "row": row},
    )


def _published(items: Sequence[Item], answers: Answers) -> RowScores:
    found = [
        np.nan
        if answer is None
        else published_match(answer, item.reference, item.options)
        for item, answer in zip(items, answers, strict=True)
    ]
    return {"published": np.array(found, np.float64)}


def _files(told: Sequence[Told]) -> dict[str, str]:
    """`mmau.json`; the script reads `model_output`, its manual `model_prediction`."""
    files: dict[str, list[dict[str, Any]]] = {}
    for item, _, answer in told:
        shuffle = item.about["shuffle"]
        name = f"mmau-{shuffle + 1}.json" if shuffle else "mmau.json"
        said = {"model_output": answer, "model_prediction": answer}
        files.setdefault(name, []).append({**item.about["row"], **said})
    return {
        name: json.dumps(rows, ensure_ascii=False, indent=2) + "\n"
        for name, rows in files.items()
    }


_CARD = "MOSS-Music card, 2026"
BENCHMARK = Benchmark(
    name="mmau",
    title="MMAU, music (Sakshi et al. 2025)",
    data=f"{FILE} or its folder",
    read=_read,
    published=_published,
    files=_files,
    scores=(
        Score(
            "published",
            multiple_choice.ACCURACY,
            PUBLISHED,
            "the answer has all words of the right option and none that only another "
            "option has",
        ),
        multiple_choice.READ,
        multiple_choice.CHOSEN,
        multiple_choice.LIKELIEST,
    ),
    rows=(
        Row("MOSS-Music-8B-Instruct", multiple_choice.ACCURACY, 79.33, _CARD),
        Row("Music Flamingo", multiple_choice.ACCURACY, 76.83, _CARD),
    ),
)

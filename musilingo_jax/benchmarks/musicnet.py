"""MusicNet (Thickstun et al. 2017): which instruments play in half a minute.

`musicnet.tar.gz` from Zenodo (5120004) has test_data/*.wav and test_labels/*.csv, ten
recordings. LLark was scored on every whole half minute of them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from musilingo_jax.benchmarks import llark_rules
from musilingo_jax.benchmarks.item import (
    HONEST,
    PUBLISHED,
    Answers,
    Benchmark,
    Item,
    Reading,
    Row,
    RowScores,
    Score,
)
from musilingo_jax.corpora import annotations
from musilingo_jax.corpora.clips import Wanted
from musilingo_jax.evaluation.metrics import facts
from musilingo_jax.runtime.errors import UserError

FOLDER = "test_labels"
RATE = 44_100
"""Samples per second of the times in the labels."""
_SECONDS = 30
# MIDI programs, from 1 on, that MusicNet has.
INSTRUMENTS = {
    1: "piano",
    7: "harpsichord",
    41: "violin",
    42: "viola",
    43: "cello",
    44: "contrabass",
    61: "horn",
    69: "oboe",
    71: "bassoon",
    72: "clarinet",
    74: "flute",
}
# Instruments that LLark's notebook looks for, too, though they never play.
_NEVER = ("fiddle", "guitar", "double bass", "banjo", "mandolin")
_F1 = "F1, published rule"
_NOTEBOOK = "LLark, notebook of its release"


def _read(source: Path, reading: Reading) -> list[Item]:
    """A question for each whole half minute of each recording.

    Raises:
      UserError: there are no labels, or they are damaged.
    """
    folder = source / FOLDER if (source / FOLDER).is_dir() else source
    paths = sorted(folder.glob("*.csv"))
    if not paths:
        raise UserError(f"{source}: there is no {FOLDER} with files *.csv in it")
    return [item for path in paths for item in _recording(path)]


def _recording(path: Path) -> Iterator[Item]:
    """The questions about a recording; its last note says how long it is."""
    notes = list(_notes(path))
    whole = int(max((end for _, end, _ in notes), default=0) // _SECONDS)
    for number in range(whole):
        start, end = number * _SECONDS, (number + 1) * _SECONDS
        played = {name for on, off, name in notes if on < end and off > start}
        if not played:
            continue
        value = ", ".join(sorted(played))
        yield Item(
            id=f"{path.stem}@{start}",
            sound=Wanted(names=(path.stem,), start=float(start), end=float(end)),
            question="Which instruments do you hear in this song?",
            reference=value,
            attribute="instruments",
            value=value,
        )


def _notes(path: Path) -> Iterator[tuple[float, float, str]]:
    """Begin and end in seconds, and instrument, of each note.

    Raises:
      UserError: a row is damaged.
    """
    columns = ("start_time", "end_time", "instrument")
    for where, row in annotations.csv_rows(path, columns):
        full = str(path.parent / where)
        numbers = [annotations.number(row, name, where=full) for name in columns]
        if None in numbers or numbers[2] not in INSTRUMENTS:
            raise UserError(
                f"{full}: needs start_time and end_time, and an instrument among "
                f"{', '.join(map(str, INSTRUMENTS))}"
            )
        start, end, program = (number or 0.0 for number in numbers)
        yield start / RATE, end / RATE, INSTRUMENTS[int(program)]


def _published(items: Sequence[Item], answers: Answers) -> RowScores:
    """Counts of each question; of those that are missed, only the last one's.

    The notebook overwrites the number of missed instruments where it should add.
    """
    every = {name for item in items for name in item.reference.split(", ")}
    every |= set(_NEVER)
    counts = np.full((len(items), 3), np.nan)
    for place, (item, answer) in enumerate(zip(items, answers, strict=True)):
        if answer is not None:
            counts[place] = llark_rules.counts(
                answer, item.reference.split(", "), every
            )
    asked = np.flatnonzero(~np.isnan(counts[:, 0]))
    counts[asked[:-1], 2] = 0
    return {"published": counts}


def _f1(sums: Any) -> Any:
    """F1 from summed counts: right, wrong, missed."""
    right, wrong, missed = (sums[..., column] for column in range(3))
    with np.errstate(invalid="ignore"):
        return 2 * right / (2 * right + wrong + missed)


def _values(items: Sequence[Item]) -> dict[str, set[str]]:
    return {"instruments": {*INSTRUMENTS.values(), *_NEVER}}


BENCHMARK = Benchmark(
    name="musicnet-instruments",
    title="MusicNet, instruments (Thickstun et al. 2017)",
    data=f"the folder with {FOLDER}",
    read=_read,
    published=_published,
    values=_values,
    constant="piano",
    scores=(
        Score(
            "published",
            _F1,
            PUBLISHED,
            "F1 of all instruments together, found as letters anywhere in the answer; "
            "of those that are missed only the last question's count",
            right_or_wrong=False,
            formula=_f1,
        ),
        Score(
            "instruments",
            "F1, answers as read",
            HONEST,
            facts.STANDARD["instruments"],
            right_or_wrong=False,
        ),
        Score(
            "instruments_answered",
            "answered, as read",
            HONEST,
            "the answer states one",
            is_evidence=False,
        ),
    ),
    rows=(
        Row("ImageBind-LLM", _F1, 85.8, _NOTEBOOK),
        Row("“piano” to all", _F1, 55.1, _NOTEBOOK),
    ),
)

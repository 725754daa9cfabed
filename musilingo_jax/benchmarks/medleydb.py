"""MedleyDB (Bittner et al. 2014): which instruments play in half a minute of a mix.

`*_METADATA.yaml` and `*_ACTIVATION_CONF.lab` are in marl/medleydb on GitHub; the mixes
come from Zenodo, on request. LLark was scored on seconds 30 to 60 of each mix, the
first half minute of those that last less than one.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

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
from musilingo_jax.corpora.clips import Wanted
from musilingo_jax.corpora.row_files import read_text
from musilingo_jax.evaluation.metrics import facts
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import print_note

METADATA, ACTIVATIONS = "_METADATA.yaml", "_ACTIVATION_CONF.lab"
# An instrument is active where its stem's activation is larger.
_ACTIVE = 0.5
_SECONDS = 30.0
# Word → the instruments of MedleyDB that it stands for, in LLark's notebook.
WORDS = {
    "guitar": (
        "acoustic guitar",
        "clean electric guitar",
        "distorted electric guitar",
        "lap steel guitar",
        "mandolin",
    ),
    "bass": ("double bass", "electric bass"),
    "drum": (
        "auxiliary percussion",
        "bass drum",
        "cymbal",
        "drum machine",
        "drum set",
        "kick drum",
        "snare drum",
    ),
    "vocals": ("female singer", "male singer", "vocalists"),
    "piano": ("electric piano", "piano", "tack piano"),
    "synthesizer": ("synthesizer",),
    "saxophone": (
        "alto saxophone",
        "baritone saxophone",
        "soprano saxophone",
        "tenor saxophone",
    ),
    "flute": ("bamboo flute", "dizi", "flute", "flute section", "piccolo"),
    "clarinet": ("bass clarinet", "clarinet", "clarinet section"),
    "oboe": ("oboe",),
    "bassoon": ("bassoon",),
    "horn": ("french horn", "horn section"),
    "trumpet": ("trumpet", "trumpet section"),
    "tuba": ("tuba",),
    "violin": ("violin", "violin section"),
    "viola": ("viola", "viola section"),
    "cello": ("cello", "cello section"),
    "harp": ("harp",),
}
_WORD_OF = {label: word for word, labels in WORDS.items() for label in labels}
_F1 = "F1, published rule"
_NOTEBOOK = "LLark, notebook of its release"


def _read(source: Path, reading: Reading) -> list[Item]:
    """A question for each mix; how many have none of the instruments is told.

    Raises:
      UserError: there are no mixes, or a file is missing or damaged.
    """
    metadata = {
        path.name.removesuffix(METADATA): path
        for path in sorted(source.rglob(f"*{METADATA}"))
    }
    activations = {
        path.name.removesuffix(ACTIVATIONS): path
        for path in sorted(source.rglob(f"*{ACTIVATIONS}"))
    }
    if not metadata:
        raise UserError(f"{source}: there is no *{METADATA} in it or below it")
    items, without = [], []
    for name, path in metadata.items():
        if name not in activations:
            raise UserError(f"{path}: there is no {name}{ACTIVATIONS} in {source}")
        active, start, end = _active(activations[name], _stems(path))
        words = sorted({_WORD_OF[label] for label in active if label in _WORD_OF})
        if not words:
            without.append(name)
            continue
        items.append(
            Item(
                id=name,
                sound=Wanted(names=(f"{name}_MIX", name), start=start, end=end),
                question="Please list the instruments in this song.",
                reference=", ".join(words),
                attribute="instruments",
                value=", ".join(words),
                about={"active": sorted(active)},
            )
        )
    if without:
        print_note(
            f"note: {len(without)} mixes have none of the {len(WORDS)} instruments in "
            f"their half minute, and are not asked about; the first: {without[0]}"
        )
    return items


def _stems(path: Path) -> dict[str, str]:
    """Stem → its instrument.

    Raises:
      UserError: the file is no YAML, or does not name the stems' instruments.
    """
    try:
        content: Any = yaml.safe_load(read_text(path))
        return {
            name: str(stem["instrument"]) for name, stem in content["stems"].items()
        }
    except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path}: is not MedleyDB's metadata: stems with an instrument each"
        ) from error


def _active(
    path: Path, instruments: Mapping[str, str]
) -> tuple[set[str], float | None, float]:
    """The instruments that are active in the half minute that is heard; its ends.

    Raises:
      UserError: the file is no table of numbers, or has a stem that has no instrument.
    """
    head, *table = [*csv.reader(read_text(path).splitlines())] or [[]]
    if head[:1] != ["time"] or not table:
        raise UserError(f"{path}: must begin with a column “time”, and have rows")
    if unknown := [stem for stem in head[1:] if stem not in instruments]:
        raise UserError(f"{path}: {METADATA} says no instrument of stem {unknown[0]}")
    try:
        rows = [list(map(float, row)) for row in table]
    except ValueError as error:
        raise UserError(f"{path}: has a cell that is not a number: {error}") from error
    for number, row in enumerate(rows, 2):
        if len(row) != len(head) or not all(map(math.isfinite, row)):
            raise UserError(f"{path}:{number}: has not {len(head)} finite numbers")
    last = rows[-1][0]
    start = _SECONDS if last >= 2 * _SECONDS else 0.0
    end = min(start + _SECONDS, last)
    inside = [row for row in rows if start <= row[0] <= end]
    found = {
        instruments[stem]
        for place, stem in enumerate(head[1:], 1)
        if any(row[place] > _ACTIVE for row in inside)
    }
    return found, start or None, end


def _published(items: Sequence[Item], answers: Answers) -> RowScores:
    """F1 of each mix over single instruments, several of which share a word."""
    found = np.full(len(items), np.nan)
    for place, (item, answer) in enumerate(zip(items, answers, strict=True)):
        if answer is not None:
            found[place] = published_f1(answer, item.about["active"])
    return {"published": found}


def published_f1(answer: str, active: Sequence[str]) -> float:
    """F1 of a mix by the published rule.

    Each of MedleyDB's instruments counts, and an answer that has its word names all
    that share the word: “guitar” is one right and four wrong if one guitar plays.
    """
    named = {
        label
        for label in _WORD_OF
        if llark_rules.says_instrument(answer, _WORD_OF[label])
    }
    known = {label for label in active if label in _WORD_OF}
    right = len(named & known)
    return 2 * right / (len(named) + len(known))


def _values(items: Sequence[Item]) -> dict[str, set[str]]:
    return {"instruments": set(WORDS)}


BENCHMARK = Benchmark(
    name="medleydb-instruments",
    title="MedleyDB, instruments (Bittner et al. 2014)",
    data=f"a folder with all *{METADATA} and *{ACTIVATIONS}, at any depth",
    read=_read,
    published=_published,
    values=_values,
    constant="drum set electric bass vocals piano guitar",
    scores=(
        Score(
            "published",
            _F1,
            PUBLISHED,
            "F1 of single instruments, mean over mixes; a word names all that share "
            "it, so that even a perfect answer is far below 100 %",
            right_or_wrong=False,
        ),
        Score(
            "instruments",
            "F1 of words, answers as read",
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
        Row("ImageBind-LLM", _F1, 25.1, _NOTEBOOK),
        Row("one answer to all", _F1, 25.2, _NOTEBOOK),
    ),
)

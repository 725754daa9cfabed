"""GiantSteps (Knees et al. 2015): key and tempo of electronic dance music.

The annotations are in GiantSteps/giantsteps-key-dataset and giantsteps-tempo-dataset on
GitHub; their scripts fetch the sound, previews of two minutes. LLark was scored on
seconds 30 to 60 of each, as here.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from musilingo_jax.benchmarks import llark_rules
from musilingo_jax.benchmarks.item import (
    HONEST,
    LIKELIHOOD,
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
from musilingo_jax.corpora.statements.keys import named_key
from musilingo_jax.evaluation.metrics import facts, keys, tempo
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import print_note

START, END = 30.0, 60.0
"""Seconds of a preview that are heard."""
_KEY_QUESTION = "What is the key of this song?"
_TEMPO_QUESTION = "What is the tempo of this song in beats per minute?"
_NOTEBOOK = "LLark, notebook of its release"
_MIREX = "MIREX score, published rule"
_ACC1, _ACC2 = "Acc1, published rule", "Acc2, published rule"


def _annotations(source: Path, folders: Sequence[str], suffix: str) -> Iterator[Path]:
    """The annotation files, one for each track, in order.

    Args:
      source: the data set, or the folder of the files.
      folders: within the data set, the preferred one first.
      suffix: of the files.

    Raises:
      UserError: there are none.
    """
    places = [source / name for name in folders] + [source]
    for place in places:
        if found := sorted(place.glob(f"*{suffix}")):
            yield from found
            return
    raise UserError(f"{source}: there is no {folders[0]} with files *{suffix} in it")


def _sound(path: Path, suffix: str) -> Wanted:
    return Wanted(names=(path.name.removesuffix(suffix),), start=START, end=END)


def _read_keys(source: Path, reading: Reading) -> list[Item]:
    """A question for each track.

    Raises:
      UserError: there are no annotations, or one is no key.
    """
    names = [named_key(name) for name in llark_rules.KEYS]
    items = []
    for path in _annotations(source, ("annotations/key",), ".key"):
        text = read_text(path).strip()
        key = named_key(text)
        if key is None:
            raise UserError(f"{path}: {text!r:.60} is not a key, such as “D minor”")
        place = names.index(key)
        items.append(
            Item(
                id=path.name.removesuffix(".key"),
                sound=_sound(path, ".key"),
                question=_KEY_QUESTION,
                reference=llark_rules.KEYS[place],
                attribute="key",
                value=llark_rules.KEYS[place],
                bare=_KEY_QUESTION,
                candidates=tuple(f"{each}." for each in llark_rules.KEYS),
                right=place,
            )
        )
    return items


def _published_keys(items: Sequence[Item], answers: Answers) -> RowScores:
    found = np.full(len(items), np.nan)
    for place, (item, answer) in enumerate(zip(items, answers, strict=True)):
        if answer is not None:
            key = llark_rules.key(answer)
            named = None if key is None else named_key(key)
            found[place] = keys.weighted_score(named, item.reference)
    return {"published": found}


def _read_tempi(source: Path, reading: Reading) -> list[Item]:
    """A question for each track that has a tempo; how many have none is told.

    Raises:
      UserError: there are no annotations, or one is not a number.
    """
    items, without = [], []
    folders = ("annotations_v2/tempo", "annotations/tempo")
    for path in _annotations(source, folders, ".bpm"):
        text = read_text(path).strip()
        try:
            bpm = float(text)
        except ValueError as error:
            raise UserError(f"{path}: {text!r:.60} is not a number") from error
        if not 0 <= bpm < 1000:
            raise UserError(f"{path}: {bpm:g} is not a number of beats per minute")
        if bpm == 0:
            without.append(path.name)
            continue
        value = f"{bpm:g}"
        items.append(
            Item(
                id=path.name.removesuffix(".bpm"),
                sound=_sound(path, ".bpm"),
                question=_TEMPO_QUESTION,
                reference=f"{value} BPM",
                attribute="tempo",
                value=value,
            )
        )
    if without:
        print_note(
            f"note: {len(without)} tracks have no tempo, as their annotators say, and "
            f"are not asked about; the first: {without[0]}"
        )
    return items


def _published_tempi(items: Sequence[Item], answers: Answers) -> RowScores:
    first, second = np.full(len(items), np.nan), np.full(len(items), np.nan)
    for place, (item, answer) in enumerate(zip(items, answers, strict=True)):
        if answer is not None:
            assert item.value is not None
            stated = llark_rules.tempo(answer)
            first[place], second[place] = tempo.accuracy(stated, float(item.value))
    return {"published_acc1": first, "published_acc2": second}


KEY = Benchmark(
    name="giantsteps-key",
    title="GiantSteps, key (Knees et al. 2015)",
    data="giantsteps-key-dataset, or its folder annotations/key",
    read=_read_keys,
    published=_published_keys,
    scores=(
        Score(
            "published",
            _MIREX,
            PUBLISHED,
            "MIREX's weighted score of the word before the first “major” or “minor”, "
            "if it is a note; else 0",
            right_or_wrong=False,
        ),
        Score(
            "key",
            "MIREX score, answers as read",
            HONEST,
            facts.STANDARD["key"],
            right_or_wrong=False,
        ),
        Score("key_exact", "right key, as read", HONEST, facts.STANDARD["key_exact"]),
        Score(
            "key_answered",
            "answered, as read",
            HONEST,
            "the answer states a key",
            is_evidence=False,
        ),
        Score(
            LIKELIHOOD,
            "right key, by likelihood",
            LIKELIHOOD,
            "of the 24 keys the right one costs the fewest nats per token",
        ),
    ),
    rows=(
        Row("LLark", _MIREX, 69.6, _NOTEBOOK),
        Row("the most frequent key", _MIREX, 15.0, _NOTEBOOK),
    ),
)
TEMPO = Benchmark(
    name="giantsteps-tempo",
    title="GiantSteps, tempo (Knees et al. 2015, Schreiber & Müller 2018)",
    data="giantsteps-tempo-dataset, or its folder annotations_v2/tempo",
    read=_read_tempi,
    published=_published_tempi,
    scores=(
        Score(
            "published_acc1",
            _ACC1,
            PUBLISHED,
            "the first number of the answer is within 4 % of the tempo",
        ),
        Score(
            "published_acc2",
            _ACC2,
            PUBLISHED,
            "… or within 4 % of twice, three times, half or a third of it",
        ),
        Score(
            "tempo_acc1", "Acc1, answers as read", HONEST, facts.STANDARD["tempo_acc1"]
        ),
        Score(
            "tempo_acc2", "Acc2, answers as read", HONEST, facts.STANDARD["tempo_acc2"]
        ),
        Score(
            "tempo_acc1_answered",
            "answered, as read",
            HONEST,
            "the answer states a tempo",
            is_evidence=False,
        ),
    ),
    rows=(
        Row("LLark", _ACC1, 33.1, _NOTEBOOK),
        Row("LLark", _ACC2, 36.8, _NOTEBOOK),
    ),
)

"""GTZAN (Tzanetakis & Cook 2002): the genre of 1,000 clips of 30 s, ten genres.

The sound is what there is of it: a folder for each genre, with blues.00000 to
blues.00099 and so on, in any format. The published set has repetitions, wrong labels
and a damaged file, jazz.00054 (Sturm 2013); a list of files leaves such out.
"""

import re
from collections.abc import Sequence
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
from musilingo_jax.evaluation.metrics import facts
from musilingo_jax.runtime.errors import UserError

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop")
GENRES += ("reggae", "rock")
CLIPS = 100  # of each genre
_SPELT = {"hiphop": "hip hop"}
_NAME = re.compile(rf"({'|'.join(GENRES)})\.(\d{{5}})(?:\.\w+)?")
_QUESTION = "What is the genre of this song?"
_ACCURACY = "accuracy, published rule"
_NOTEBOOK = "LLark, notebook of its release"


def _read(source: Path, reading: Reading) -> list[Item]:
    """A question for each clip: of all, or of those in a list.

    Raises:
      UserError: a line of the list names no clip.
    """
    if not source.is_file():
        # Genre after genre in turn, so that the first ones are of all genres.
        numbers = [(genre, f"{n:05}") for n in range(CLIPS) for genre in GENRES]
    else:
        numbers = []
        for line, text in enumerate(read_text(source).splitlines(), 1):
            found = _NAME.fullmatch(Path(text.strip()).name)
            if found is None and text.strip():
                raise UserError(
                    f"{source}:{line}: {text!r:.60} names no clip, such as "
                    "blues/blues.00029.wav"
                )
            if found is not None:
                numbers.append((found[1], found[2]))
    return [_item(genre, number) for genre, number in dict.fromkeys(numbers)]


def _item(genre: str, number: str) -> Item:
    name = f"{genre}.{number}"
    return Item(
        id=name,
        sound=Wanted(names=(f"{genre}/{name}", name)),
        question=_QUESTION,
        reference=_SPELT.get(genre, genre),
        attribute="genre",
        value=_SPELT.get(genre, genre),
        bare=_QUESTION,
        candidates=tuple(f"{_SPELT.get(each, each)}." for each in GENRES),
        right=GENRES.index(genre),
        groups=(genre,),
    )


def _published(items: Sequence[Item], answers: Answers) -> RowScores:
    found = [
        np.nan
        if answer is None
        else llark_rules.says_genre(answer, item.reference.replace(" ", ""))
        for item, answer in zip(items, answers, strict=True)
    ]
    return {"published": np.array(found, np.float64)}


def _values(items: Sequence[Item]) -> dict[str, set[str]]:
    return {"genre": {_SPELT.get(genre, genre) for genre in GENRES}}


BENCHMARK = Benchmark(
    name="gtzan",
    title="GTZAN (Tzanetakis & Cook 2002)",
    data="the folder of its sound files, or a text file with a name in each line",
    read=_read,
    published=_published,
    values=_values,
    scores=(
        Score(
            "published",
            _ACCURACY,
            PUBLISHED,
            "the answer contains the letters of the right genre, whatever else it has",
        ),
        Score("genre", "accuracy, answers as read", HONEST, facts.STANDARD["genre"]),
        Score(
            "genre_answered",
            "answered, as read",
            HONEST,
            "the answer states one",
            is_evidence=False,
        ),
        Score(
            LIKELIHOOD,
            "accuracy, by likelihood",
            LIKELIHOOD,
            "of the ten genres the right one costs the fewest nats per token",
        ),
    ),
    rows=(
        Row("LLark", _ACCURACY, 56.8, _NOTEBOOK),
        Row("LLark", "accuracy, nearest embedding by OpenAI", 55.8, _NOTEBOOK),
        Row("CLAP, without answers", "accuracy, zero-shot", 71.0, _NOTEBOOK),
        Row("MOSS-Music-8B-Instruct", "accuracy, own rule", 93.59, "MOSS-Music card"),
        Row("random choice", "accuracy, zero-shot", 10.0, "ten genres"),
    ),
)

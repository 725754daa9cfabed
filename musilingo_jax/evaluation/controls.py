"""What an answer is worth that did not come from listening.

    shuffled        the same answers, given for other clips        needs no model
    shuffled audio  the same questions, asked with another clip's music
    silence         … with zeros where the clip's features were
    no audio        … with nothing between <Audio> and </Audio>
    constant        one answer to all questions of a kind          needs no model

A score that is not above all of them says nothing of the music.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from musilingo_jax.answering.answer import Features
from musilingo_jax.answering.answer_file import Ask
from musilingo_jax.corpora.records import Record
from musilingo_jax.evaluation.answered_questions import AnsweredQuestion
from musilingo_jax.evaluation.metrics import choices, facts, rouge
from musilingo_jax.runtime.errors import UserError

LABELS = {
    "shuffled": "answers shuffled",
    "shuffled_audio": "shuffled audio",
    "silence": "silence",
    "no_audio": "no audio",
    "constant": "constant answer",
}
# What `Ask.heard` says instead of a clip.
_ZEROS, _NOTHING = "zeros:", "none"
# Answers among which the most typical one is looked for: their square counts.
_TYPICAL_AMONG = 64


def derangement(clips: Sequence[str], seed: int) -> dict[str, str]:
    """Gives each clip another one: in a shuffled circle, the one after it.

        circle   b → d → a → c → (b)       none is given itself, none given twice

    Raises:
      UserError: there are not two different clips.
    """
    circle = np.random.default_rng(seed).permutation(sorted(set(clips))).tolist()
    if len(circle) < 2:
        raise UserError(
            "the test split has only one readable clip: the control with another "
            "clip's music needs at least two"
        )
    return dict(zip(circle, circle[1:] + circle[:1], strict=True))


def asks(
    records: Sequence[Record], features: Callable[[str], Features], seed: int
) -> dict[str, list[Ask]]:
    """For each control that needs the model, what it is asked instead of each record.

    Without music, a question has one answer whatever the clip, and is asked once: those
    to all other records are the same.
    """
    other = derangement([record.clip for record in records], seed)
    silent: dict[tuple[str, int], Ask] = {}
    alone: dict[str, Ask] = {}
    found = {"shuffled_audio": [], "silence": [], "no_audio": []}
    for record in records:
        question = record.question
        length = len(features(record.clip))
        zeros = silent.setdefault(
            (question, length), Ask(record, f"{_ZEROS}{record.clip}")
        )
        found["shuffled_audio"].append(Ask(record, other[record.clip]))
        found["silence"].append(zeros)
        found["no_audio"].append(alone.setdefault(question, Ask(record, _NOTHING)))
    return found


def heard_features(
    features: Callable[[str], Features], clip: str
) -> Callable[[str], Features]:
    """`features`, that also understands what the controls hear.

    Args:
      features: clip → its features [windows, width].
      clip: any clip, whose features have the width of all.
    """

    def hear(heard: str) -> Features:
        if heard == _NOTHING:
            return features(clip)[:0]
        if heard.startswith(_ZEROS):
            return np.zeros_like(features(heard.removeprefix(_ZEROS)))
        return features(heard)

    return hear


def groups(rows: Sequence[AnsweredQuestion]) -> list[str]:
    """For each row the name of the rows whose answers could stand in for its own.

    Rows of one attribute, else rows of the very same question where it is asked about
    several clips, else rows of the same kind.
    """
    clips: dict[str, set[str]] = {}
    for row in rows:
        clips.setdefault(row.question, set()).add(row.clip)
    return [
        f"“{row.question}”"
        if row.kind == "other questions" and len(clips[row.question]) > 1
        else row.kind
        for row in rows
    ]


def shuffled(rows: Sequence[AnsweredQuestion], seed: int) -> list[str | None]:
    """The answers, each given for another clip, within the groups of `groups`.

    Rows are laid out clip after clip in a shuffled order, and each takes the answer
    that stands as many places further as the largest clip has rows:

        row       a a a b b c c c          clip a has most rows: 3
        answer    b b c c c a a a

    None for the rows of a group in which one clip has more than half of all: there are
    not enough answers for other clips.
    """
    generator = np.random.default_rng(seed)
    given: list[str | None] = [None] * len(rows)
    members: dict[str, list[int]] = {}
    for place, name in enumerate(groups(rows)):
        members.setdefault(name, []).append(place)
    for _, places in sorted(members.items()):
        largest = max(Counter(rows[place].clip for place in places).values())
        if 2 * largest > len(places):
            continue
        order = {
            clip: rank
            for rank, clip in enumerate(
                generator.permutation(sorted({rows[p].clip for p in places})).tolist()
            )
        }
        laid = sorted(places, key=lambda place: order[rows[place].clip])
        for place, other in zip(laid, laid[largest:] + laid[:largest], strict=True):
            given[place] = rows[other].answer
    return given


def constant(
    rows: Sequence[AnsweredQuestion], known: Sequence[AnsweredQuestion], seed: int
) -> list[str | None]:
    """For each row the one answer that all rows of its group get.

    Where the truth has a value: a reference with the most frequent one (of equals the
    first in order). Of several such references, and where there is no value, the one
    that shares most words with the others, among some drawn with `seed`. In a multiple
    choice it is a letter.

    Args:
      rows: what is asked.
      known: rows whose references may be known beforehand: of the training split, or
        where there is none, the same rows. Nothing is known of a row's own clip: the
        clip that the answer was taken from gets what the others would say.
      seed: of the draw.

    Returns:
      The answers; None where nothing is known.
    """
    pools: dict[str, list[AnsweredQuestion]] = {}
    for row in known:
        pools.setdefault(row.kind, []).append(row)
        if row.kind == "other questions":
            pools.setdefault(f"“{row.question}”", []).append(row)
    expected: dict[str, AnsweredQuestion | None] = {}
    others: dict[str, AnsweredQuestion | None] = {}
    given = []
    for name, row in zip(groups(rows), rows, strict=True):
        pool = pools.get(name) or pools.get(row.kind, [])
        if name not in expected:
            expected[name] = first = _most_expected(pool, seed)
            without = [r for r in pool if first is not None and r.clip != first.clip]
            others[name] = _most_expected(without, seed)
        said = expected[name]
        if said is not None and said.clip == row.clip:
            said = others[name]
        given.append(None if said is None else _answer(said))
    return given


def _answer(row: AnsweredQuestion) -> str:
    """What answers a question rightly."""
    if row.options:
        return choices.LETTERS[choices.right(row.value, row.options)]
    return row.reference


def _most_expected(
    pool: Sequence[AnsweredQuestion], seed: int
) -> AnsweredQuestion | None:
    """The row whose reference is the best guess of those of all; None of nothing."""
    if not pool:
        return None
    if pool[0].options:
        letter = _most_frequent([_answer(row) for row in pool])
        return next(row for row in pool if _answer(row) == letter)
    if facts.protocol(pool[0]) is not None:
        value = _most_frequent([row.value for row in pool])
        pool = [row for row in pool if row.value == value]
    drawn = np.random.default_rng(seed).permutation(len(pool))[:_TYPICAL_AMONG]
    references = [pool[place].reference for place in drawn]
    return pool[drawn[references.index(rouge.most_typical(references))]]


def _most_frequent(values: Sequence[str]) -> str:
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value))

"""Answers that owe nothing to the music, to compare a system's answers with.

    shuffled        the same answers, given for other clips        needs no model
    shuffled audio  the same questions, asked with another clip's music
    silence         … with zeros in place of the clip's features
    no audio        … with nothing between <Audio> and </Audio>
    constant        one answer to all questions of a kind          needs no model

A score that is not above all of them is no evidence that the system uses the music.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from musilingo_jax.answering.answer import Features
from musilingo_jax.answering.answer_file import AskedQuestion
from musilingo_jax.corpora.records import Record
from musilingo_jax.evaluation.answered_questions import AnsweredQuestion
from musilingo_jax.evaluation.metrics import choices, facts, rouge
from musilingo_jax.runtime.errors import UserError

# In the order of reports.
LABELS = {
    "shuffled": "shuffled answers",
    "shuffled_audio": "shuffled audio",
    "silence": "silence",
    "no_audio": "no audio",
    "constant": "constant answer",
}
# Values of `AskedQuestion.heard` that are not clips.
_ZEROS, _NOTHING = "zeros:", "none"
# The most typical answer is searched for among this many: the cost is quadratic.
_TYPICAL_AMONG = 64


def derangement(clips: Sequence[str], seed: int) -> dict[str, str]:
    """Maps each clip to another one: the next in a random circle.

        circle   b → d → a → c → (b)     no clip gets itself, none is used twice

    Raises:
      UserError: there are fewer than two different clips.
    """
    circle = _permuted(sorted(set(clips)), np.random.default_rng(seed))
    if len(circle) < 2:
        raise UserError(
            "the test split has only one readable clip: the control with another "
            "clip's music needs at least two"
        )
    return dict(zip(circle, circle[1:] + circle[:1], strict=True))


def asks(
    records: Sequence[Record], features: Callable[[str], Features], seed: int
) -> dict[str, list[AskedQuestion]]:
    """For each control that needs the model, what it asks in place of each record.

    Without music, a question has the same answer for all clips. It is asked for one of
    them, and the others share the answer.
    """
    other = derangement([record.clip for record in records], seed)
    silent: dict[tuple[str, int], AskedQuestion] = {}
    without: dict[str, AskedQuestion] = {}
    found: dict[str, list[AskedQuestion]] = {
        "shuffled_audio": [],
        "silence": [],
        "no_audio": [],
    }
    for record in records:
        question, windows = record.question, len(features(record.clip))
        zeros = AskedQuestion(record, f"{_ZEROS}{record.clip}")
        nothing = AskedQuestion(record, _NOTHING)
        found["shuffled_audio"].append(AskedQuestion(record, other[record.clip]))
        found["silence"].append(silent.setdefault((question, windows), zeros))
        found["no_audio"].append(without.setdefault(question, nothing))
    return found


def is_clip(heard: str) -> bool:
    """Whether an `AskedQuestion.heard` names a clip: neither silence nor nothing."""
    return heard != _NOTHING and not heard.startswith(_ZEROS)


def heard_features(
    features: Callable[[str], Features], clip: str
) -> Callable[[str], Features]:
    """Extends `features` to `AskedQuestion.heard` of the controls.

    Args:
      features: clip → its features [windows, width].
      clip: any clip; its features have the same width as all others.
    """

    def extended(heard: str) -> Features:
        if heard == _NOTHING:
            return features(clip)[:0]
        if heard.startswith(_ZEROS):
            return np.zeros_like(features(heard.removeprefix(_ZEROS)))
        return features(heard)

    return extended


def groups(rows: Sequence[AnsweredQuestion]) -> list[str]:
    """For each row, the name of the group of rows whose answers could replace its own.

    Rows with the same attribute; else rows with the very same question, if it is asked
    about several clips; else rows of the same kind.
    """
    clips: dict[str, set[str]] = {}
    for row in rows:
        clips.setdefault(row.question, set()).add(row.clip)
    return [
        _question_group(row)
        if row.kind == "other questions" and len(clips[row.question]) > 1
        else row.kind
        for row in rows
    ]


def with_model_free(
    rows: Sequence[AnsweredQuestion],
    known: Sequence[AnsweredQuestion],
    model_answers: Mapping[str, Sequence[str | None]],
    seed: int,
) -> dict[str, list[str | None]]:
    """Control → its answers, of all controls in the order of reports.

    Args:
      rows: the questions, with reference and answer.
      known: as in `constant`.
      model_answers: the answers of the controls that need a model.
      seed: of the controls that need no model.
    """
    every = {
        **{name: list(answers) for name, answers in model_answers.items()},
        "shuffled": shuffled(rows, seed),
        "constant": constant(rows, known, seed),
    }
    return {name: every[name] for name in LABELS if name in every}


def shuffled(rows: Sequence[AnsweredQuestion], seed: int) -> list[str | None]:
    """The answers, each given for another clip, within the groups of `groups`.

    The rows of a group are put clip after clip, in random order. Each takes the answer
    that is as many places further as the largest clip has rows:

        row       a a a b b c c c          clip a has the most rows: 3
        answer    b b c c c a a a

    None for the rows of a group if one clip has more than half of them: there are too
    few answers for other clips.
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
        clips = sorted({rows[place].clip for place in places})
        order = {c: rank for rank, c in enumerate(_permuted(clips, generator))}
        ordered = sorted(places, key=lambda place: order[rows[place].clip])
        shifted = ordered[largest:] + ordered[:largest]
        for place, other in zip(ordered, shifted, strict=True):
            given[place] = rows[other].answer
    return given


def constant(
    rows: Sequence[AnsweredQuestion], known: Sequence[AnsweredQuestion], seed: int
) -> list[str | None]:
    """For each row, the one answer that all rows of its group get.

    If the truth has a value, a reference with the most frequent value (the first in
    order if several are). Among several such references, and if there is no value, the
    one most similar to the others, of a sample drawn with `seed`. In a multiple choice,
    the letter that is right most often.

    Args:
      rows: the questions.
      known: rows whose references may be used: those of the training split, or without
        one the rows themselves. A row never gets the reference of its own clip: the
        clip that the answer was taken from gets the best answer of the others.
      seed: of the sample.

    Returns:
      The answers; None if no reference may be used.
    """
    pools: dict[str, list[AnsweredQuestion]] = {}
    for row in known:
        pools.setdefault(row.kind, []).append(row)
        if row.kind == "other questions":
            pools.setdefault(_question_group(row), []).append(row)
    best: dict[str, AnsweredQuestion | None] = {}
    best_of_others: dict[str, AnsweredQuestion | None] = {}
    given = []
    for name, row in zip(groups(rows), rows, strict=True):
        pool = pools.get(name) or pools.get(row.kind, [])
        if name not in best:
            best[name] = first = _best_guess(pool, seed)
            others = [r for r in pool if first is not None and r.clip != first.clip]
            best_of_others[name] = _best_guess(others, seed)
        guess = best[name]
        if guess is not None and guess.clip == row.clip:
            guess = best_of_others[name]
        given.append(None if guess is None else _right_answer(guess))
    return given


def _permuted(clips: Sequence[str], generator: np.random.Generator) -> list[str]:
    """The clips in random order; not as an array, which drops NUL at their ends."""
    return [clips[int(place)] for place in generator.permutation(len(clips))]


def _question_group(row: AnsweredQuestion) -> str:
    # In quotation marks, so that it is not the name of a kind.
    return f"“{row.question}”"


def _right_answer(row: AnsweredQuestion) -> str:
    """The reference, or the letter of the right option."""
    if row.options:
        right = choices.right(row.true_value, row.options)
        assert right is not None, row
        return choices.LETTERS[right]
    return row.reference


def _best_guess(pool: Sequence[AnsweredQuestion], seed: int) -> AnsweredQuestion | None:
    """The row whose right answer is the best guess for all; None without rows."""
    if not pool:
        return None
    if pool[0].options:
        letter = _most_frequent([_right_answer(row) for row in pool])
        return next(row for row in pool if _right_answer(row) == letter)
    if facts.protocol(pool[0]) is not None:
        value = _most_frequent([r.value for r in pool if r.value is not None])
        pool = [row for row in pool if row.value == value]
    sample = np.random.default_rng(seed).permutation(len(pool))[:_TYPICAL_AMONG]
    references = [pool[place].reference for place in sample]
    return pool[sample[references.index(rouge.most_typical(references))]]


def _most_frequent(values: Sequence[str]) -> str:
    """The most frequent value; the first in order if several are."""
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value))

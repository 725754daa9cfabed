"""What is in a corpus that would teach or test something else than was meant.

None of it is an error of form. A corpus is used as it is, with what was found counted,
and listed with file and line.
"""

import functools
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple

from musilingo_jax.corpora.records import Record, contents_of
from musilingo_jax.corpora.statements import values
from musilingo_jax.corpora.statements.keys import named_key, named_keys
from musilingo_jax.corpora.statements.tempos import single_tempo
from musilingo_jax.runtime.printable import print_note, printable
from musilingo_jax.runtime.unicode_names import composed

# Kind → what it means.
MISTAKES = {
    "songs in several splits": "what a model says of them may be remembered, not heard",
    "songs named like one in another split, but for case, accents or suffix": "they "
    "may be the same song",
    "names of splits that differ only in case or spaces": "they are different splits",
    "rows with another value than an earlier one for the same question": "one of the "
    "two is mistaken",
    "answers that state another value than their own `value`": "one of the two is "
    "mistaken",
    "answers that repeat their question": "a model would learn to do so",
}
# No mistakes, but good to know.
REMARKS = {
    "rows that are in the same split twice": "they count twice",
    "questions with several answers": "all of them count as right",
}
KINDS = MISTAKES | REMARKS
(
    _SPLITS,
    _NAMES,
    _SPLIT_NAMES,
    _VALUES,
    _ANOTHER,
    _ECHO,
    _REPEATED,
    _ANSWERS,
) = KINDS


class Finding(NamedTuple):
    """Something found in one row.

    Attributes:
      kind: a key of `KINDS`.
      where: the row: file and line.
      other: the row that it is compared with; "" if there is none.
    """

    kind: str
    where: str
    other: str


def find(rows: Sequence[tuple[str, Record]]) -> list[Finding]:
    """Everything that is found in the rows of a corpus.

    Args:
      rows: file and line of each record, and the record.
    """
    names = _known_values(record for _, record in rows)
    return [
        *_several(rows, _SPLITS, _content, lambda record: record.split),
        *_same_names(rows),
        *_several(rows, _SPLIT_NAMES, _split, lambda record: record.split),
        *_several(rows, _VALUES, _asked_fact, _value),
        *(
            Finding(_ANOTHER, where, "")
            for where, record in rows
            if _states_another(record, names)
        ),
        *(
            Finding(_ECHO, where, "")
            for where, record in rows
            if record.question.strip()
            and _folded(record.question) == _folded(record.answer)
        ),
        *_repeated(rows),
        *_several(rows, _ANSWERS, _asked, lambda record: record.answer),
    ]


def shared_songs(records: Iterable[Record]) -> list[Finding]:
    """Songs that are in one split of one corpus, and in another split of another."""
    rows = [
        (f"{record.corpus} ({record.split}): {record.clip}", record)
        for record in records
    ]
    found = _several(rows, _SPLITS, _content, lambda record: record.split)
    corpus_of = {where: record.corpus for where, record in rows}
    return [each for each in found if corpus_of[each.where] != corpus_of[each.other]]


@functools.cache  # A program may load a corpus several times.
def tell(sentence: str) -> None:
    """Prints a sentence on stderr, once."""
    print_note(sentence)


def sentences(findings: Iterable[Finding]) -> list[str]:
    """One sentence for each kind that was found, with the first place."""
    first: dict[str, Finding] = {}
    counts: Counter[str] = Counter()
    for finding in findings:
        first.setdefault(finding.kind, finding)
        counts[finding.kind] += 1
    told = []
    for kind in KINDS:
        if finding := first.get(kind):
            places = " and ".join(filter(None, (finding.other, finding.where)))
            told.append(
                f"{kind}: {counts[kind]:,}, such as {printable(places)}; {KINDS[kind]}"
            )
    return told


def _several(
    rows: Iterable[tuple[str, Record]],
    kind: str,
    same: Callable[[Record], Hashable | None],
    differs: Callable[[Record], Hashable],
) -> list[Finding]:
    """A finding for each group of rows that are the `same` and of which one differs."""
    first: dict[Hashable, tuple[str, Hashable]] = {}
    found: dict[Hashable, Finding] = {}
    for where, record in rows:
        group = same(record)
        if group is None:
            continue
        other, known = first.setdefault(group, (where, differs(record)))
        if group not in found and differs(record) != known:
            found[group] = Finding(kind, where, other)
    return list(found.values())


def _same_names(rows: Sequence[tuple[str, Record]]) -> list[Finding]:
    """Songs of one name in several splits whose contents differ."""
    splits: dict[Hashable, set[str]] = {}
    for _, record in rows:
        splits.setdefault(_content(record), set()).add(record.split)
    # Those with the same contents are found already.
    apart = [(w, r) for w, r in rows if len(splits[_content(r)]) == 1]
    return _several(apart, _NAMES, _name, lambda record: record.split)


def _repeated(rows: Iterable[tuple[str, Record]]) -> list[Finding]:
    first: dict[Hashable, str] = {}
    found = []
    for where, record in rows:
        same = record.corpus, record.split, record.clip, record.question, record.answer
        other = first.setdefault(same, where)
        if other != where:
            found.append(Finding(_REPEATED, where, other))
    return found


def _content(record: Record) -> str:
    return contents_of(record.clip) or record.clip


def _name(record: Record) -> str:
    """The song's path without its suffix, as it may be spelt elsewhere."""
    return _folded(os.path.splitext(record.audio)[0])


def _split(record: Record) -> str:
    return record.split.strip().casefold()


def _asked(record: Record) -> Hashable | None:
    """What was asked; None for a caption, of which a song may have many."""
    if not record.question.strip():
        return None
    return record.split, record.clip, _folded(record.question)


def _asked_fact(record: Record) -> Hashable | None:
    return (
        None
        if record.value is None
        else (record.clip, record.question, record.attribute)
    )


def _value(record: Record) -> Hashable:
    """The value of a record, the same for all of its spellings."""
    text = record.value or ""
    return named_key(text) or single_tempo(text) or values.key_of(text)


def _folded(text: str) -> str:
    return composed(text.strip()).casefold()


def _known_values(records: Iterable[Record]) -> dict[str, set[str]]:
    """Attribute → its values."""
    known: dict[str, set[str]] = {}
    for record in records:
        if record.attribute is not None and record.value is not None:
            known.setdefault(record.attribute, set()).add(record.value)
    return known


def _states_another(record: Record, known: dict[str, set[str]]) -> bool:
    """Whether an answer states a value of its attribute, and not its own."""
    if record.attribute is None or record.value is None:
        return False
    if (key := named_key(record.value)) is not None:
        stated = set(named_keys(record.answer))
        return bool(stated) and key not in stated
    if (bpm := single_tempo(record.value)) is not None:
        other = single_tempo(record.answer)
        return other is not None and abs(other - bpm) > 0.04 * bpm
    if "," in record.value:  # A list, of which an answer may state a part.
        return False
    named = {
        found.key for found in values.stated(record.answer, known[record.attribute])
    }
    return bool(named) and values.key_of(record.value) not in named

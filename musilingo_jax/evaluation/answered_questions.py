"""A question about a clip with its reference and the answer that a system gave."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from musilingo_jax.corpora.records import Record

# Kinds of questions without an attribute. An attribute of the same name gets a suffix.
_KINDS = ("multiple choice", "captions", "other questions")
_SUFFIX = " (attribute)"


@dataclass(frozen=True)
class AnsweredQuestion:
    """A question about a clip, its reference and an answer.

    Attributes:
      clip: the id of the clip that was asked about.
      question: "" for a caption.
      reference: the right answer, in full.
      answer: the system's answer.
      attribute: what the question is about, such as "tempo"; None if unknown.
      value: the true value of the attribute, or the right option.
      options: the texts of a multiple choice; empty for other questions.
      record: the record of the corpus; None for answers from a file.
      inferred: whether attribute and value were inferred from question and reference.
      others: further references, which are as right as the first.
      is_cut: whether the answer was cut after as many tokens as it had room for.
    """

    clip: str
    question: str
    reference: str
    answer: str
    attribute: str | None
    value: str | None
    options: tuple[str, ...]
    record: Record | None
    inferred: bool
    others: tuple[str, ...] = ()
    is_cut: bool = False

    @classmethod
    def of(
        cls,
        record: Record,
        answer: str,
        others: tuple[str, ...] = (),
        *,
        is_cut: bool = False,
    ) -> "AnsweredQuestion":
        """The question of a record, with an answer and further references."""
        return cls(
            clip=record.clip,
            question=record.question,
            reference=record.answer,
            answer=answer,
            attribute=record.attribute,
            value=record.value,
            options=(),
            record=record,
            inferred=False,
            others=others,
            is_cut=is_cut,
        )

    @property
    def kind(self) -> str:
        """The kind of the question: answers to questions of one kind are comparable."""
        choice, captions, others = _KINDS
        if self.options:
            return choice
        name = self.attribute
        if name is None:
            return others if self.question else captions
        # Controls name groups by a question, in quotation marks (`controls.groups`).
        taken = name in _KINDS or name.startswith("“") or name.endswith(_SUFFIX)
        return name + _SUFFIX if taken else name

    @property
    def true_value(self) -> str:
        """`value`, of a question that has one (see `facts.protocol`)."""
        assert self.value is not None, self
        return self.value


def inferred(rows: Sequence[AnsweredQuestion]) -> dict[str, int]:
    """Attribute → the number of rows for which it was inferred."""
    names = (row.attribute for row in rows if row.inferred and row.attribute)
    return dict(sorted(Counter(names).items()))


def repeated(rows: Sequence[AnsweredQuestion]) -> int:
    """The number of rows with the clip and the question of an earlier row."""
    return len(rows) - len({(row.clip, row.question) for row in rows})


def notes(rows: Sequence[AnsweredQuestion]) -> list[str]:
    """What a reader of the scores should know about the rows, one sentence each."""
    sentences = []
    if found := inferred(rows):
        counts = ", ".join(f"{name} {count}" for name, count in found.items())
        sentences.append(
            f"attribute and value of {sum(found.values())} answers are inferred from "
            f"question and reference ({counts}), because their lines do not give them."
        )
    if cut := sum(row.is_cut for row in rows):
        sentences.append(
            f"{cut} answers are cut, perhaps in the middle of a sentence, because they "
            "had not ended after generate.max_new_tokens: raise it for whole answers."
        )
    if again := repeated(rows):
        sentences.append(
            f"{again} answers have the clip and the question of an earlier one; each "
            "of them counts."
        )
    return sentences

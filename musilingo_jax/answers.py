"""Answers on disk: JSON lines, each written as soon as it is given.

    {"clip": "songs/a.ogg", "heard": "songs/a.ogg", "question": "Which genre is it?",
     "reference": "Jazz.", "answer": "It is jazz.", "attribute": "genre",
     "value": "jazz", "made_by": "6f1c…"}

`made_by` stands for everything that an answer depends on (adapter, language model,
features, prompt, decoding), so that a program which is started again takes up what it
finds, and never mixes the answers of two models.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musilingo_jax.corpora.records import Record
from musilingo_jax.errors import UserError
from musilingo_jax.files import write_whole


@dataclass(frozen=True)
class Ask:
    """A question of the corpus, and the clip that is played to the model.

    `heard` is the record's own clip, or another one, or none at all, in a control
    experiment (`controls.py`).
    """

    record: Record
    heard: str

    def row(self, answer: str) -> dict[str, Any]:
        return {
            "clip": self.record.clip,
            "heard": self.heard,
            "question": self.record.question,
            "reference": self.record.answer,
            "answer": answer,
            "attribute": self.record.attribute,
            "value": self.record.value,
        }


def fingerprint(identity: dict[str, Any]) -> str:
    """A short name for everything that answers depend on."""
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class AnswerFile:
    """The answers of one model in one file, some perhaps from an earlier start."""

    def __init__(
        self, path: Path, made_by: str, *, replace: bool, also: Sequence[Path] = ()
    ):
        """Reads what is there; a last line cut short by a kill is asked again.

        Args:
          path: the JSON-lines file; it and its folder need not exist.
          made_by: `fingerprint` of the model that answers now.
          replace: whether answers of another model are dropped, or refused.
          also: files that other processes write, whose answers of this model count as
            given.

        Raises:
          UserError: the file holds something else, or answers of another model.
        """
        self.path, self._made_by = path, made_by
        self._answers: dict[tuple[str, ...], str] = {
            _key(row): row["answer"]
            for other in also
            for row in _read(other)
            if row["made_by"] == made_by
        }
        kept = []
        for row in _read(path):
            if row["made_by"] == made_by:
                self._answers[_key(row)] = row["answer"]
                kept.append(row)
            elif not replace:
                raise UserError(
                    f"{path} holds answers of another adapter, configuration, corpus "
                    "or split: give another --out, or delete it"
                )
        self._write(kept)

    def answer(self, ask: Ask) -> str | None:
        """What the model said, or None if it was not yet asked."""
        return self._answers.get(_key(ask.row("")))

    def add(self, ask: Ask, answer: str) -> None:
        """Keeps an answer, on disk before this returns."""
        row = {**ask.row(answer), "made_by": self._made_by}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._answers[_key(row)] = answer

    def finish(self, asks: Sequence[Ask]) -> None:
        """Puts the answers into the order of `asks`, and leaves out all others."""
        self._write(
            [{**ask.row(self.answer(ask)), "made_by": self._made_by} for ask in asks]
        )

    def _write(self, rows: Sequence[dict[str, Any]]) -> None:
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_whole(self.path, "".join(lines))


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return row["clip"], row["heard"], row["question"], row["reference"]


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    rows = []
    # What stands behind the last line break was being written when the power went.
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            row = json.loads(line)
            _key(row), row["made_by"], row["answer"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}:{number} is not an answer of this program: give another file, "
                "or delete this one"
            ) from error
        rows.append(row)
    return rows

"""Answers on disk: JSON lines, each written as soon as it is given.

    {"clip": "songs/a.ogg", "heard": "songs/a.ogg", "question": "Which genre is it?",
     "reference": "Jazz.", "answer": "It is jazz.", "attribute": "genre",
     "value": "jazz", "made_by": "adapter=6f1c02aa generate=90d3b41e …"}

`made_by` stands for everything that an answer depends on (adapter, language model,
features, prompt, decoding), so that a program which is started again takes up what it
finds, and never mixes the answers of two models.

    answers.jsonl            by one process, and in the end
    answers-1-of-4.jsonl     by the second of four, until all of them are done
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musilingo_jax.corpora.records import Record
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.storage import write_text


@dataclass(frozen=True)
class Ask:
    """A question of the corpus, and the clip that is played to the model.

    `heard` is the record's own clip, or another one, or none at all, in a control
    experiment (`evaluation/controls.py`).
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
    """A short name for everything that answers depend on, part by part.

    So that two of them tell in what they differ.
    """
    short = {
        name: hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:8]
        for name, part in identity.items()
    }
    return " ".join(f"{name}={short[name]}" for name in sorted(short))


def files_of(path: Path) -> list[Path]:
    """The file of answers, if it is there, and those of single processes beside it."""
    name = re.compile(
        rf"{re.escape(path.stem)}(-\d+-of-\d+)?{re.escape(path.suffix)}", re.ASCII
    )
    if not path.parent.is_dir():
        return []
    return sorted(f for f in path.parent.iterdir() if name.fullmatch(f.name))


class AnswerFile:
    """The answers of one model in one file, some perhaps from an earlier start.

    Several processes share the questions: each writes a file of its own, and the first
    joins them in the end.
    """

    def __init__(
        self, path: Path, made_by: str, *, process: int = 0, processes: int = 1
    ):
        """Reads what is there, and writes nothing yet.

        A last line cut short by a kill is asked again. What other processes have
        answered counts as given, however many there were.

        Args:
          path: the JSON-lines file; it and its folder need not exist.
          made_by: `fingerprint` of the model that answers now.
          process: which of the processes this is.
          processes: how many there are.

        Raises:
          UserError: the file holds something else, or answers of another model.
        """
        self.path, self._made_by = path, made_by
        self._process, self._processes = process, processes
        self._own = path
        if processes > 1:
            part = f"{path.stem}-{process}-of-{processes}{path.suffix}"
            self._own = path.with_name(part)
        self._begun = False
        self._answers: dict[tuple[str, ...], str] = {}
        self._read_all()

    def share(self, asks: Sequence[Ask]) -> Sequence[Ask]:
        """What this process is to ask; always the same part of the same."""
        return asks[self._process :: self._processes]

    def answer(self, ask: Ask) -> str | None:
        """What the model said, or None if it was not yet asked."""
        return self._answers.get(_key(ask.row("")))

    def add(self, ask: Ask, answer: str) -> None:
        """Keeps an answer.

        It is the system's before this returns, so that a kill takes none of those that
        were given; when the power goes, the last seconds of them may be lost.

        Raises:
          UserError: it cannot be written.
        """
        row = {**ask.row(answer), "made_by": self._made_by}
        with self._writing(self._own):
            if not self._begun:
                _write(self._own, _read(self._own))  # Without a line cut short.
                self._begun = True
            with self._own.open("a", encoding="utf-8") as file:
                file.write(_line(row))
        self._answers[_key(row)] = answer

    def finish(self, asks: Sequence[Ask]) -> None:
        """Puts the answers of all processes into one file.

        To be called by the first process, once all of them are done.

        Args:
          asks: what was asked; the order of the answers. All others are left out.

        Raises:
          UserError: it cannot be written, or what others answered is not here.
        """
        self._read_all()
        if lacking := sum(self.answer(ask) is None for ask in asks):
            raise UserError(
                f"{self.path.parent}: {lacking} of {len(asks)} answers are not here, "
                "though another process gave them: name a folder in --out that all "
                "processes share"
            )
        rows = [{**ask.row(self.answer(ask)), "made_by": self._made_by} for ask in asks]
        with self._writing(self.path):
            _write(self.path, rows)
            for part in files_of(self.path):
                if part != self.path:
                    part.unlink()

    def _read_all(self) -> None:
        for path in files_of(self.path):
            for row in _read(path):
                if row["made_by"] != self._made_by:
                    raise UserError(
                        f"{path} holds answers of another model or way of asking (it "
                        f"differs in {_differing(row['made_by'], self._made_by)}): give"
                        " another --out, or change that back, or delete the file"
                    )
                self._answers[_key(row)] = row["answer"]

    @contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        """Says what is kept if there is no more room."""
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{path} cannot be written ({error.strerror}): {len(self._answers)} "
                "answers given before are kept; make room, and the same command goes "
                "on with the others"
            ) from error


def _differing(one: str, other: str) -> str:
    """The names of the parts in which two fingerprints differ."""
    parts = [dict(p.partition("=")[::2] for p in name.split()) for name in (one, other)]
    names = sorted(parts[0].keys() | parts[1].keys())
    return ", ".join(n for n in names if parts[0].get(n) != parts[1].get(n))


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return row["clip"], row["heard"], row["question"], row["reference"]


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    write_text(path, "".join(map(_line, rows)))


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    rows = []
    # What stands behind the last line break was being written when the power went.
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            row = json.loads(line)
            _key(row), row["made_by"].split(), row["answer"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}:{number} is not an answer of this program: give another file, "
                "or delete this one"
            ) from error
        rows.append(row)
    return rows

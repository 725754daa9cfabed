"""Answers on disk: JSON lines, each written as soon as its answer is finished.

    {"clip": "songs/a.ogg", "heard": "songs/a.ogg", "question": "Which genre is it?",
     "reference": "Jazz.", "answer": "It is jazz.", "attribute": "genre",
     "value": "jazz", "made_by": "adapter=6f1c02aa generate=90d3b41e …"}

`made_by` is a fingerprint of everything that an answer depends on (adapter, language
model, features, prompt, decoding). So a program that is started again continues the
file that it finds, and never mixes the answers of two models.

An answer that had not ended when `max_new_tokens` was reached, and so may end in the
middle of a sentence, also has `"cut": true`.

    answers.jsonl            of one process, and in the end of all
    answers-1-of-4.jsonl     of the second of four, until all of them are done
"""

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musilingo_jax.corpora.records import Record
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import parse_json
from musilingo_jax.runtime.paths import open_regular_file
from musilingo_jax.runtime.printable import printable
from musilingo_jax.runtime.storage import write_text

_CUT = "cut"


@dataclass(frozen=True)
class AskedQuestion:
    """A question of the corpus, and the clip that the model hears with it.

    Attributes:
      record: the question.
      heard: the record's own clip; in a control experiment (`evaluation/controls.py`)
        another one, or none at all.
    """

    record: Record
    heard: str

    def row(self, answer: str, *, is_cut: bool = False) -> dict[str, Any]:
        """The line of the file with this answer, without `made_by`."""
        cut = {_CUT: True} if is_cut else {}
        return {
            "clip": self.record.clip,
            "heard": self.heard,
            "question": self.record.question,
            "reference": self.record.answer,
            "answer": answer,
            "attribute": self.record.attribute,
            "value": self.record.value,
            **cut,
        }


def fingerprint(identity: dict[str, Any]) -> str:
    """A short digest of everything that answers depend on, part by part.

    So that two fingerprints show in which parts they differ.
    """
    short = {
        name: hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:8]
        for name, part in identity.items()
    }
    return " ".join(f"{name}={short[name]}" for name in sorted(short))


def answer_files(path: Path) -> list[Path]:
    """The existing files of answers: this one, and those of single processes."""
    name = re.compile(
        rf"{re.escape(path.stem)}(-\d+-of-\d+)?{re.escape(path.suffix)}", re.ASCII
    )
    if not path.parent.is_dir():
        return []
    return sorted(f for f in path.parent.iterdir() if name.fullmatch(f.name))


class AnswerFile:
    """The answers of one model in one file, some perhaps from an earlier run.

    Several processes share the questions: each writes a file of its own, and the first
    one joins them in the end.
    """

    def __init__(
        self, path: Path, made_by: str, *, process: int = 0, processes: int = 1
    ):
        """Reads the answers in the files of all processes; writes nothing yet.

        A question whose line was cut short by a kill is asked again. Files of other
        processes are read even if their number was another one. Editors may leave empty
        lines, and no line end after the last one.

        Args:
          path: the JSON-lines file; it and its folder need not exist.
          made_by: `fingerprint` of the model that answers now.
          process: the number of this process.
          processes: how many share the questions.

        Raises:
          UserError: a file holds something else, or answers of another model.
        """
        self.path, self._made_by = path, made_by
        self._process, self._processes = process, processes
        self._own = path
        if processes > 1:
            part = f"{path.stem}-{process}-of-{processes}{path.suffix}"
            self._own = path.with_name(part)
        self._begun = False
        self._answers: dict[tuple[str, ...], str] = {}
        self._cut: set[tuple[str, ...]] = set()
        self._read_all()

    def share(self, asks: Sequence[AskedQuestion]) -> Sequence[AskedQuestion]:
        """The questions that this process asks; equal questions, equal shares."""
        return asks[self._process :: self._processes]

    def answer(self, ask: AskedQuestion) -> str | None:
        """The model's answer, or None if it was not asked yet."""
        return self._answers.get(_key(ask.row("")))

    def is_cut(self, ask: AskedQuestion) -> bool:
        """Whether the model's answer was cut after `max_new_tokens`."""
        return _key(ask.row("")) in self._cut

    def add(self, ask: AskedQuestion, answer: str, *, is_cut: bool = False) -> None:
        """Appends an answer to this process's file.

        The operating system has it before this returns. So a kill loses no answer; a
        power failure may lose those of the last seconds.

        Raises:
          UserError: the answer cannot be written.
        """
        row = self._row(ask, answer, is_cut)
        with self._writing(self._own):
            if not self._begun:
                _write(
                    self._own, _read(self._own)
                )  # Removes a line that was cut short.
                self._begun = True
            with self._own.open("a", encoding="utf-8") as file:
                file.write(_line(row))
        self._know(row)

    def finish(self, asks: Sequence[AskedQuestion]) -> None:
        """Joins the answers of all processes in one file.

        To be called by the first process, once all of them are done.

        Args:
          asks: the questions, in the order of the file. Answers to others are left out.

        Raises:
          UserError: the file cannot be written, or answers of other processes are
            missing.
        """
        self._read_all()
        rows = [
            self._row(ask, answer, self.is_cut(ask))
            for ask in asks
            if (answer := self.answer(ask)) is not None
        ]
        if missing := len(asks) - len(rows):
            raise UserError(
                f"{self.path.parent}: {missing} of {len(asks)} answers are not here, "
                "though another process gave them: name a folder in --out that all "
                "processes share"
            )
        with self._writing(self.path):
            _write(self.path, rows)
            for part in answer_files(self.path):
                if part != self.path:
                    part.unlink()

    def _read_all(self) -> None:
        for path in answer_files(self.path):
            for row in _read(path):
                if row["made_by"] != self._made_by:
                    raise UserError(
                        f"{path} holds answers of another model or way of asking (it "
                        f"differs in {_differing(row['made_by'], self._made_by)}): give"
                        " another --out, or undo that change, or delete the file"
                    )
                self._know(row)

    def _know(self, row: dict[str, Any]) -> None:
        self._answers[_key(row)] = row["answer"]
        if row.get(_CUT) is True:
            self._cut.add(_key(row))

    def _row(self, ask: AskedQuestion, answer: str, is_cut: bool) -> dict[str, Any]:
        return {**ask.row(answer, is_cut=is_cut), "made_by": self._made_by}

    @contextlib.contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        """Turns a failure to write into an error that names what is kept."""
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            remedy = "make room" if full else "make it writable"
            raise UserError(
                f"{path} cannot be written ({error.strerror}): {len(self._answers)} "
                f"answers are kept; {remedy}, and the same command continues with the "
                "others"
            ) from error


def _differing(one: str, other: str) -> str:
    """The names of the parts in which two fingerprints differ."""
    ones, others = _parts(one), _parts(other)
    names = sorted(ones.keys() | others.keys())
    return ", ".join(name for name in names if ones.get(name) != others.get(name))


def _parts(made_by: str) -> dict[str, str]:
    """Name → digest of the parts of a fingerprint."""
    return {
        name: digest
        for name, _, digest in (part.partition("=") for part in made_by.split())
    }


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return row["clip"], row["heard"], row["question"], row["reference"]


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    write_text(path, "".join(map(_line, rows)))


def _read(path: Path) -> list[dict[str, Any]]:
    if not os.path.lexists(path):
        return []
    where = printable(str(path))
    try:
        with open_regular_file(path) as file:
            content = file.read()
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror})") from error
    rows = []
    *lines, last = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(_parse(line))
        except (UserError, KeyError, TypeError) as error:
            reason = f" ({error})" if isinstance(error, UserError) else ""
            raise UserError(
                f"{where}:{number} is not an answer of this program{reason}: name "
                "another file, or delete this one"
            ) from error
    # A program that was killed while writing leaves a last line without its end.
    with contextlib.suppress(UserError, KeyError, TypeError):
        rows.append(_parse(last))
    return rows


def _parse(line: bytes) -> dict[str, Any]:
    """The answer in a line; UserError, KeyError or TypeError if it holds none."""
    row = parse_json(line, "the line")
    texts = (*_key(row), row["made_by"], row["answer"])
    if not all(isinstance(text, str) for text in texts):
        raise TypeError
    return row

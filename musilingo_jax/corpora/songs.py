"""Anybody's songs: a JSONL file that says of each song what could be asked of it."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musilingo_jax.errors import UserError

EMBEDDED = {
    "musilingo-tiny-corpus": Path(__file__).parent.parent
    / "assets/musilingo-tiny-corpus/songs.jsonl",
}
FILE_NAME = "songs.jsonl"
_END = 1 << 16  # bytes of each end of a sound file that its clip id depends on

_REQUIRED = ("audio", "answer")
_OPTIONAL = ("question", "split", "attribute", "value")


@dataclass(frozen=True)
class Record:
    """One thing to say about one song.

    Attributes:
      audio: the sound file.
      clip: identifies the file's contents: its path relative to the corpus, its size
        and a digest of both its ends. A file that is replaced is another clip.
      question: what is asked; "" where the answer is a caption.
      answer: what should be said.
      split: the part of the corpus that the record belongs to.
      attribute: what the question is about, such as "tempo", where that is known.
      value: its true value, such as "fast".
    """

    audio: Path
    clip: str
    question: str
    answer: str
    split: str
    attribute: str | None
    value: str | None


def resolve(source: str) -> Path:
    """The JSONL file of an embedded corpus, of a folder, or of that very path.

    Raises:
      UserError: there is no such file.
    """
    path = EMBEDDED.get(source, Path(source))
    if path.is_dir():
        path = path / FILE_NAME
    if not path.is_file():
        raise UserError(
            f"{path}: there is no such file; a corpus is a folder with a {FILE_NAME}, "
            f"the path of such a file, or one of {sorted(EMBEDDED)}"
        )
    return path


def load(path: Path | str) -> list[Record]:
    """The records of a corpus, in the order of its lines.

    A line, with paths relative to the file (all keys but `audio` and `answer` may be
    left out):

        {"audio": "songs/a.ogg", "question": "How fast is it?", "answer": "It is fast.",
         "split": "train", "attribute": "tempo", "value": "fast"}

    Raises:
      UserError: with file and line, a line is no such object, or its sound file is
        missing; or there are no records at all.
    """
    path = resolve(str(path))
    records, missing = [], []
    clips: dict[Path, str] = {}
    try:
        # Not splitlines, which also cuts at separators that JSON allows inside strings.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        fields = _fields(line, where=f"{path}:{number}")
        audio = path.parent / fields["audio"]
        try:
            clip = clips.get(audio) or _clip(audio, path.parent)
        except OSError:
            missing.append(f"{path}:{number}: the sound file {audio} is missing")
            continue
        clips[audio] = clip
        records.append(
            Record(
                audio=audio,
                clip=clip,
                question=fields.get("question") or "",
                answer=fields["answer"],
                split=fields.get("split") or "train",
                attribute=fields.get("attribute"),
                value=fields.get("value"),
            )
        )
    if missing:
        others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(
            f"{missing[0]}{others}: put it there, or remove its lines from {path.name}"
        )
    if not records:
        raise UserError(
            f'{path}: holds no songs; write one line {{"audio": …, "answer": …}} each'
        )
    return records


def _clip(audio: Path, folder: Path) -> str:
    """Path, size, and a digest of both ends of the file.

    Two reads per song, however long it is, tell copies from replacements, which the
    time of change does not: it is lost in archives and kept by careful copying.
    """
    size = audio.stat().st_size
    with audio.open("rb") as file:
        ends = file.read(_END)
        file.seek(max(0, size - _END))
        ends += file.read(_END)
    name = Path(os.path.relpath(audio, folder)).as_posix()
    return f"{name}:{size}:{hashlib.sha256(ends).hexdigest()[:16]}"


def _fields(line: str, *, where: str) -> dict[str, Any]:
    """The checked keys of one line."""
    try:
        fields = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{where}: is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise UserError(f"{where}: is no JSON object with the keys {_REQUIRED}")
    if unknown := sorted(fields.keys() - {*_REQUIRED, *_OPTIONAL}):
        raise UserError(
            f"{where}: unknown key {', '.join(unknown)}; known are "
            f"{', '.join((*_REQUIRED, *_OPTIONAL))}"
        )
    for key in _REQUIRED:
        if not isinstance(fields.get(key), str) or not fields[key].strip():
            raise UserError(f"{where}: `{key}` is missing, empty or no text")
    for key in _OPTIONAL:
        if not isinstance(fields.get(key), str | None):
            raise UserError(
                f"{where}: `{key}` must be text in quotes, not {fields[key]}"
            )
        try:
            (fields.get(key) or "").encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{where}: `{key}` holds half a character") from error
    for key in ("attribute", "value"):
        if fields.get(key) is not None and not fields[key].strip():
            raise UserError(f"{where}: `{key}` is empty; leave it out or fill it in")
    if (fields.get("attribute") is None) != (fields.get("value") is None):
        raise UserError(f"{where}: `attribute` and `value` go together; one is missing")
    return fields

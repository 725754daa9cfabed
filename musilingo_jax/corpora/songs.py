"""Your own songs: a file with questions and answers about each of them.

The file is JSON lines, a JSON array, or a table from a spreadsheet saved as CSV, with
the same keys (`row_files.py`). A folder of songs without such a file can be captioned,
but not trained on.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from musilingo_jax.corpora import findings, listing, row_files
from musilingo_jax.corpora.records import Record, clip_id
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import print_note, printable
from musilingo_jax.runtime.unicode_names import as_on_disk

FILE_NAME = "songs.jsonl"
EMBEDDED = {
    name: Path(__file__).parent.parent / "assets" / name / FILE_NAME
    for name in ("musilingo-tiny-corpus", "musilingo-tiny-songs")
}
"""Name → the songs file of a corpus in the package."""
TABLE_NAME = "songs.csv"
# The split of a folder without a songs file: there is nothing to train on.
FOLDER_SPLIT = "test"

_REQUIRED = ("audio", "answer")
_TEXTS = ("question", "split", "attribute", "value")
_NUMBERS = ("start", "end", "rate")
_RATES = (1_000, 1_000_000)  # lowest and highest sampling rate
_LARGEST_NUMBER = 1e9


def resolve(source: str) -> Path:
    """The songs file of an embedded corpus or of a folder, or the path itself.

    A folder that has songs but no such file is returned as it is.

    Raises:
      UserError: there is no such file or folder, or its name is not UTF-8.
    """
    path = EMBEDDED.get(source) or as_on_disk(Path(source))
    listing.check_name(path)
    if path.is_dir():
        for name in (FILE_NAME, TABLE_NAME):
            if os.path.lexists(path / name):
                return _regular(path / name)
        if next(listing.sounds(path, hidden=False), None):
            return path
        path = path / FILE_NAME
    if not os.path.lexists(path):
        raise UserError(
            f"{path}: there is no such file; a corpus is a folder with a {FILE_NAME} "
            f"or {TABLE_NAME} or just songs, the path of such a file, a folder that "
            f"musilingo_jax.corpora.build made, or one of {sorted(EMBEDDED)}"
        )
    return _regular(path)


def _regular(path: Path) -> Path:
    """The path, if it is that of a regular file.

    Raises:
      UserError: it is not, or it is that of a link to a file that is gone.
    """
    if not path.is_file():
        raise UserError(f"{path}: is not a regular file; a corpus is a file or folder")
    return path


def load(path: Path | str, *, answers: bool = True) -> list[Record]:
    """The records of a corpus, in the order of its lines.

    A line, with paths relative to the file (all keys but `audio` and `answer` are
    optional; `answer` may be a list of several right answers, each of which becomes a
    record):

        {"audio": "songs/a.ogg", "question": "How fast is it?", "answer": "It is fast.",
         "split": "train", "attribute": "tempo", "value": "fast",
         "start": 30.0, "end": 40.0}

    The same as CSV, with a first line of column names; commas, semicolons or tabs:

        audio,question,answer,split
        songs/a.ogg,How fast is it?,It is fast.,train

    `start` and `end` select seconds of a longer file; `rate` is the sampling rate that
    an `.npy` needs. The songs of a folder without a songs file come sorted by path,
    with neither questions nor answers, in the split "test"; links are followed. How
    many files were left out, `.npy` among them, is printed to stderr; so are
    the mistakes that `findings` finds in the lines.

    Args:
      path: as `resolve` takes it.
      answers: whether each line must have an answer. Without, those that it may have
        are not looked at.

    Raises:
      UserError: a line is not such an object, or its sound file is missing, with file
        and line; or there are no records at all; or a file's name is not UTF-8.
    """
    path = resolve(str(path))
    if path.is_dir():
        return [_without_texts(audio, path) for audio in _sounds(path)]
    records, missing, places = [], [], []
    clips: dict[tuple, str] = {}
    listings: dict[str, dict[str, list[str]]] = {}
    for where, fields in rows(path, answers=answers):
        audio = as_on_disk(path.parent / fields["audio"], listings)
        part = {key: fields[key] for key in _NUMBERS}
        known = (audio, *part.values())
        try:
            clip = clips.get(known) or _clip(audio, path.parent, part)
        except OSError:
            shown = printable(str(audio))
            missing.append(f"{where}: the sound file {shown} is missing")
            continue
        clips[known] = clip
        texts = {key: fields[key] for key in ("question", "answer", "split")}
        facts = {key: fields[key] for key in ("attribute", "value")}
        records.append(Record(audio=audio, clip=clip, **texts, **facts, **part))
        places.append(where)
    if missing:
        others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(
            f"{missing[0]}{others}: restore it, or remove its lines from {path.name}"
        )
    if not records:
        raise UserError(f"{path}: contains no songs")
    if not answers:
        return records
    found = findings.find(list(zip(places, records, strict=True)))
    mistakes = [each for each in found if each.kind in findings.MISTAKES]
    for sentence in findings.sentences(mistakes):
        findings.tell(f"{printable(str(path))}: {sentence}")
    return records


def _without_texts(audio: Path, folder: Path) -> Record:
    """The record of a song without question and answer."""
    try:
        clip = clip_id(audio, folder)
    except OSError as error:
        raise UserError(f"{audio}: cannot be read: {error.strerror}") from error
    return Record(
        audio=audio,
        clip=clip,
        question="",
        answer="",
        split=FOLDER_SPLIT,
        attribute=None,
        value=None,
    )


def rows(path: Path, *, answers: bool = True) -> Iterator[tuple[str, dict[str, Any]]]:
    """The checked lines of a songs file, once for each of their answers.

    Args:
      path: of the file.
      answers: as in `load`; without, a line comes once, with the answer "".

    Yields:
      `file:line` and all keys; those left out are None, or "" and "train" for
      `question` and `split`.

    Raises:
      UserError: a line is not valid, with file and line.
    """
    is_table = path.suffix.lower() in row_files.TABLES
    required = _REQUIRED if answers else _REQUIRED[:1]
    for where, fields in row_files.read_rows(path, columns=required):
        if is_table:
            fields = {key: _cell(key, cell) for key, cell in fields.items()}
        given = fields.get("answer")
        if not answers:
            checked = _checked({**fields, "answer": "-"}, where=where)
            yield where, {**checked, "answer": ""}
            continue
        if not isinstance(given, list):
            given = [given]
        elif not given:
            raise UserError(f"{where}: `answer` is an empty list; give an answer")
        for answer in given:
            yield where, _checked({**fields, "answer": answer}, where=where)


def _cell(key: str, cell: str) -> str | float | None:
    """The value of a cell of a table; None if it is empty."""
    if not cell.strip():
        return None
    if key in _NUMBERS:
        try:
            return float(cell.replace(",", "."))
        except ValueError:
            return cell
    return cell


def _checked(fields: dict[str, Any], *, where: str) -> dict[str, Any]:
    """All keys of one line, after every check that needs no other file."""
    known = (*_REQUIRED, *_TEXTS, *_NUMBERS)
    if unknown := sorted(fields.keys() - {*known}):
        raise UserError(
            f"{where}: unknown key {', '.join(unknown)}; known are {', '.join(known)}"
        )
    for key in _REQUIRED:
        if not isinstance(fields.get(key), str) or not fields[key].strip():
            raise UserError(f"{where}: `{key}` is missing, empty or not text")
    for key in (*_REQUIRED, *_TEXTS):
        if not isinstance(fields.get(key), str | None):
            raise UserError(
                f"{where}: `{key}` must be text in quotes, not {fields[key]}"
            )
        try:
            (fields.get(key) or "").encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{where}: `{key}` contains half a character") from error
    if "\0" in fields["audio"]:
        raise UserError(f"{where}: `audio` contains a NUL character")
    for key in ("attribute", "value"):
        if fields.get(key) is not None and not fields[key].strip():
            raise UserError(f"{where}: `{key}` is empty; leave it out or fill it in")
    if (fields.get("attribute") is None) != (fields.get("value") is None):
        raise UserError(f"{where}: `attribute` and `value` belong together; add both")
    return {
        **{key: fields.get(key) for key in known},
        "question": fields.get("question") or "",
        "split": fields.get("split") or "train",
        **_part(fields, where=where),
    }


def _part(fields: dict[str, Any], *, where: str) -> dict[str, float | int | None]:
    """The stretch of the file, to the millisecond, and the rate of an `.npy`."""
    part: dict[str, float | None] = {}
    for key in _NUMBERS:
        value = fields.get(key)
        if not isinstance(value, int | float | None) or isinstance(value, bool):
            raise UserError(f"{where}: `{key}` must be a number, not {value!r}")
        if value is not None and not 0 <= value < _LARGEST_NUMBER:
            raise UserError(f"{where}: `{key}` must be 0 or more, not {value}")
        part[key] = None if value is None else round(float(value), 3)
    start, end, rate = part.values()
    if end is not None and end <= (start or 0):
        raise UserError(f"{where}: `end` must be later than `start`, not {end}")
    is_array = fields["audio"].lower().endswith(".npy")
    if is_array and rate is None:
        raise UserError(
            f"{where}: an .npy does not state its sampling rate; give it as `rate`"
        )
    if rate is not None and not is_array:
        raise UserError(f"{where}: `rate` is for .npy files; others state their own")
    if rate is not None and (rate % 1 or not _RATES[0] <= rate <= _RATES[1]):
        raise UserError(
            f"{where}: `rate` must be a whole number of samples per second from "
            f"{_RATES[0]:,} to {_RATES[1]:,}, not {rate}"
        )
    return {"start": start, "end": end, "rate": None if rate is None else int(rate)}


def _clip(audio: Path, folder: Path, part: dict[str, Any]) -> str:
    # Checked first, because to open a named pipe waits until another process writes.
    if not audio.is_file():
        raise FileNotFoundError
    return clip_id(audio, folder, **part)


def _sounds(folder: Path) -> list[Path]:
    """The sound files in a folder, at any depth, in order and without hidden ones.

    Raises:
      UserError: none of them can be read, or a name is not UTF-8.
    """
    chosen, others = [], []
    for path, reason in listing.sounds(folder, hidden=False):
        if not reason and path.lower().endswith(".npy"):
            reason = "does not state its sampling rate, which a songs file can give"
        if reason:
            others.append(f"{printable(path)} {reason}")
        else:
            listing.check_name(path)
            chosen.append(Path(path))
    if not chosen:
        raise UserError(f"{folder}: contains no songs that can be read: {others[0]}")
    if others:
        print_note(
            f"{folder}: {len(chosen):,} songs, and {len(others):,} files left out, the "
            f"first: {others[0]}"
        )
    return sorted(chosen)

"""Files that say what is known of clips → subjects, one for each clip.

    songs.jsonl, songs.csv, a folder with one      captions, and questions with a value
    rows with `caption` or `tags` beside `audio`   captions, tags
    musiccaps-public.csv                           captions, aspects as tags
    annotations.jsonl of `musilingo annotate`      tempo, key, metre, chords …, tags

Sound is found in the folder that `--audio` names, or beside a songs file. Published
captions may be used without their sound, as many corpora come without it.
"""

import ast
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from musilingo_jax.corpora import annotations, corpus, musiccaps_clips, row_files, songs
from musilingo_jax.corpora.clips import AudioFolder, Lacking, Wanted
from musilingo_jax.corpora.records import Record, contents_of
from musilingo_jax.instruction import annotation_rows
from musilingo_jax.instruction.subjects import Subject
from musilingo_jax.runtime.errors import UserError

_LISTED = ("caption", "tags")
_TAG_COLUMN = "aspect_list"  # MusicCaps' name for tags.
_Found = Iterator[Subject | tuple[str, str]]


class Known(NamedTuple):
    """What files say.

    Attributes:
      subjects: one for each clip, in order.
      unused: why rows are not used → how many there are, with an example.
    """

    subjects: list[Subject]
    unused: dict[str, tuple[int, str]]


def read(source: str, audio: str | None) -> Known:
    """What is known of the clips of a source.

    Args:
      source: a file as above, or a corpus as `corpora.corpus.load` takes it.
      audio: the folder of the sound, for sources that do not name files beside them;
        None if it is not at hand.

    Raises:
      UserError: the source cannot be read, or says nothing of any clip.
    """
    folder = None if audio is None else AudioFolder(Path(audio))
    path = Path(source)
    first = _first_row(path) if path.is_file() else {}
    if "ytid" in first:
        found = _of_videos(row_files.read_rows(path), musiccaps_clips.sound, folder)
    elif annotation_rows.is_one(first):
        found = _of_annotations(row_files.read_rows(path), folder)
    elif "audio" in first and any(key in first for key in _LISTED):
        found = _of_listing(row_files.read_rows(path, columns=("audio",)), path, folder)
    elif audio is not None and (path.exists() or source in songs.EMBEDDED):
        raise UserError(
            f"--audio={audio}: {source} names its own sound files; leave out --audio"
        )
    else:
        return _of_records(corpus.load(source), source)
    return _joined(found, source)


def _first_row(path: Path) -> Mapping[str, Any]:
    return next((row for _, row in row_files.read_rows(path)), {})


def _joined(found: Iterable[Subject | tuple[str, str]], source: str) -> Known:
    """Subjects of one clip as one; with the reasons why other rows are not used.

    Raises:
      UserError: there are no subjects.
    """
    subjects: dict[str, Subject] = {}
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for one in found:
        if not isinstance(one, Subject):
            reason, detail = one
            counts[reason] += 1
            examples.setdefault(reason, detail)
        elif (other := subjects.get(one.clip)) is None:
            subjects[one.clip] = one
        else:
            subjects[one.clip] = replace(
                other,
                captions=_once(other.captions + one.captions),
                tags=_once(other.tags + one.tags),
            )
    unused = {reason: (counts[reason], examples[reason]) for reason in counts}
    if not subjects:
        why = "".join(f"; {reason}, such as {examples[reason]}" for reason in counts)
        raise UserError(f"{source}: says nothing of any clip{why}")
    return Known(list(subjects.values()), unused)


def _of_records(records: Iterable[Record], source: str) -> Known:
    """What the captions and the values of a corpus say."""
    clips: dict[str, list[Record]] = {}
    for record in records:
        clips.setdefault(record.clip, []).append(record)
    return _joined(_of_clips(clips), source)


def _of_clips(clips: Mapping[str, list[Record]]) -> _Found:
    for clip, records in clips.items():
        facts: dict[str, list[str]] = {}
        captions = []
        for record in records:
            if record.attribute is not None and record.value is not None:
                facts.setdefault(record.attribute, []).append(record.value)
            elif not record.question and record.answer:
                captions.append(record.answer)
            elif record.answer:
                yield "questions without attribute and value", record.question
        if not facts and not captions:
            yield "clips of which nothing is known", clip
            continue
        first = records[0]
        yield Subject(
            clip=clip,
            name=_name_of(first),
            audio=first.audio.absolute(),
            split=first.split,
            captions=_once(captions),
            facts={name: ", ".join(_once(values)) for name, values in facts.items()},
            start=first.start,
            end=first.end,
            rate=first.rate,
        )


def _name_of(record: Record) -> str:
    """The path of the file within the corpus, with which its clip's id begins."""
    contents = contents_of(record.clip)
    return record.clip.partition(f":{contents}")[0] if contents else record.audio.name


def _of_videos(
    rows: Iterable[row_files.Row],
    sound: Callable[..., Wanted],
    folder: AudioFolder | None,
) -> _Found:
    """The rows of MusicCaps' table."""
    for where, row in rows:
        wanted = sound(row, where=where)
        caption = annotations.text(row, "caption", where=where).strip()
        tags = _tags(row.get(_TAG_COLUMN), where=where)
        if not caption and not tags:
            yield "rows without caption", where
            continue
        is_test = annotations.is_true(row, "is_audioset_eval", where=where)
        subject = Subject(
            clip="",
            name=wanted.names[0],
            audio=None,
            split="test" if is_test else "train",
            captions=(caption,) if caption else (),
            tags=tags,
            start=wanted.start,
            end=wanted.end,
        )
        yield _with_sound(subject, wanted, folder)


def _of_listing(
    rows: Iterable[row_files.Row], path: Path, folder: AudioFolder | None
) -> _Found:
    """Rows with a sound file, and what people say of it."""
    folder = folder or AudioFolder(path.parent)
    for where, row in rows:
        caption = annotations.text({"caption": None, **row}, "caption", where=where)
        tags = _tags(row.get("tags"), where=where)
        if not caption.strip() and not tags:
            yield "rows without caption and tags", where
            continue
        name = annotations.text(row, "audio", where=where)
        start = annotations.number(row, "start", where=where)
        end = annotations.number(row, "end", where=where)
        subject = Subject(
            clip="",
            name=name,
            audio=None,
            split=annotations.text({"split": None, **row}, "split", where=where)
            or "train",
            captions=(caption.strip(),) if caption.strip() else (),
            tags=tags,
        )
        exact = folder.folder / name
        wanted = Wanted((name,), start, end, exact=exact if exact.is_file() else None)
        yield _with_sound(subject, wanted, folder)


def _of_annotations(
    rows: Iterable[row_files.Row], folder: AudioFolder | None
) -> _Found:
    """The rows of `musilingo annotate`."""
    for where, row in rows:
        subject = annotation_rows.subject(row, where=where)
        if not subject.known:
            yield "rows without a value", where
            continue
        if folder is not None:
            audio = folder.folder / subject.name
            if not audio.is_file():
                yield "missing audio", str(audio)
                continue
            subject = replace(subject, audio=audio.absolute())
        yield subject


def _with_sound(
    subject: Subject, wanted: Wanted, folder: AudioFolder | None
) -> Subject | tuple[str, str]:
    """The subject with its file, or why there is none."""
    if folder is None:
        start, end = wanted.start, wanted.end
        part = "" if end is None else f"@{1000 * (start or 0):.0f}-{1000 * end:.0f}ms"
        return replace(subject, clip=subject.name + part, start=start, end=end)
    found = folder.find(wanted)
    if isinstance(found, Lacking):
        return found.reason, found.detail
    return replace(
        subject,
        clip=found.id,
        name=os.path.relpath(found.audio, folder.folder)
        if wanted.exact
        else subject.name,
        audio=found.audio.absolute(),
        start=found.start,
        end=found.end,
        rate=found.rate,
    )


def _tags(given: Any, *, where: str) -> tuple[str, ...]:
    """Tags, as a list, the text of a list, or a text with commas.

    Raises:
      UserError: they are something else.
    """
    if given is None or given == "":
        return ()
    if isinstance(given, str) and given.lstrip().startswith("["):
        try:
            given = ast.literal_eval(given.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise UserError(f"{where}: its tags are not a list: {given!r}") from error
    if isinstance(given, str):
        given = given.split(",")
    if not isinstance(given, list) or not all(isinstance(tag, str) for tag in given):
        raise UserError(f"{where}: its tags must be texts, not {given!r}")
    return _once(tag.strip().lower() for tag in given if tag.strip())


def _once(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))

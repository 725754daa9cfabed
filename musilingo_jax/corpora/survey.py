"""Which rows of a corpus can be used on this machine, which cannot, and why."""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from musilingo_jax.corpora.clips import AudioFolder, FoundClip, Lacking, Wanted
from musilingo_jax.corpora.findings import KINDS, Finding, sentences
from musilingo_jax.corpora.findings import find as find_findings
from musilingo_jax.corpora.records import Record
from musilingo_jax.runtime import cli
from musilingo_jax.runtime.printable import printable

MOST_THREADS = 16
# Reasons that are about the text: such rows are useless wherever the sound is.
NO_ANSWER, NO_QUESTION = "empty answer", "empty question"


@dataclass(frozen=True, slots=True)
class SurveyRow:
    """One row of an annotation file.

    Attributes:
      where: file and line, or file and index.
      sound: what it is about.
      question: "" for a caption; None if the question is missing.
      answer: the reference answer; "" if it is missing.
      split: as published.
      attribute, value: as in `Record`.
    """

    where: str
    sound: Wanted
    question: str | None
    answer: str
    split: str
    attribute: str | None = None
    value: str | None = None


@dataclass(frozen=True)
class Split:
    """Counts of one split.

    Attributes:
      published_rows, published_clips: in the annotations.
      rows, clips: of those, the ones that can be used.
      hours: of usable clips, as far as their files state it.
      untold: usable clips whose files do not state how long they are.
    """

    published_rows: int
    published_clips: int
    rows: int
    clips: int
    hours: float
    untold: int


@dataclass(frozen=True)
class Survey:
    """The usable records of a corpus, and the rows left out.

    Attributes:
      records: those that can be used, in the published order, each with its seconds
        (None if the file does not state them).
      left_out: the others, as in left_out.jsonl.
      splits: counts, by split, in the published order.
      findings: what the records would teach or test that is not meant.
    """

    records: list[tuple[Record, float | None]]
    left_out: list[dict[str, str]]
    splits: dict[str, Split]
    findings: list[Finding]

    @property
    def without_audio(self) -> int:
        """Number of rows left out because of their sound, not of their text."""
        useless = (NO_ANSWER, NO_QUESTION)
        return sum(row["reason"] not in useless for row in self.left_out)

    def reasons(self) -> dict[str, int]:
        """Number of rows left out, by reason, the most frequent first."""
        return dict(Counter(row["reason"] for row in self.left_out).most_common())

    def summary(self) -> dict[str, Any]:
        """The counts, as in report.json."""
        splits = {name: asdict(split) for name, split in self.splits.items()}
        found = Counter(finding.kind for finding in self.findings)
        return {
            "splits": splits,
            "left_out": self.reasons(),
            "findings": {kind: found[kind] for kind in KINDS if kind in found},
        }

    def lines(self) -> str:
        """The text of left_out.jsonl: a line per row that was left out."""
        return "".join(
            json.dumps(row, ensure_ascii=False) + "\n" for row in self.left_out
        )

    def found_lines(self) -> str:
        """The text of findings.jsonl: a line per finding."""
        return "".join(
            json.dumps(finding._asdict(), ensure_ascii=False) + "\n"
            for finding in self.findings
        )

    def table(self) -> str:
        """The counts, as they are printed."""
        text = (
            f"{'':10} {'published':>20} {'with audio here':>20}\n"
            f"{'split':10} {'rows':>10} {'clips':>9} {'rows':>10} {'clips':>9} "
            f"{'hours':>9}\n"
        )
        for name, split in self.splits.items():
            hours = f"{split.hours:9.2f}" if split.untold < split.clips else f"{'–':>9}"
            untold = f"  (and {split.untold:,} clips of unknown length)"
            text += (
                f"{printable(name):10} "
                f"{split.published_rows:10,} {split.published_clips:9,} "
                f"{split.rows:10,} {split.clips:9,} {hours}"
                f"{untold if split.untold else ''}\n"
            )
        examples = {row["reason"]: row for row in reversed(self.left_out)}
        if examples:
            text += f"left out: {len(self.left_out):,} rows\n"
        for reason, count in self.reasons().items():
            first = examples[reason]
            detail = f": {first['detail']}" if first["detail"] else ""
            text += f"{count:10,} {reason}, the first {first['where']}{detail}\n"
        for sentence in sentences(self.findings):
            text += f"found: {sentence}\n"
        return text


def survey(rows: Iterable[SurveyRow], audio: AudioFolder | None) -> Survey:
    """Finds the sound of each row. Each sound is looked for once, on many threads.

    Args:
      rows: the annotations.
      audio: where to look; None if there is no audio at all.
    """
    rows = list(rows)
    sounds = list(dict.fromkeys(row.sound for row in rows))

    def find(wanted: Wanted) -> FoundClip | Lacking:
        if audio is None:
            return Lacking("missing audio", f"no folder to look for {wanted.names[0]}")
        return audio.find(wanted)

    with ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS)) as pool:
        looking = cli.progress(
            pool.map(find, sounds),
            total=len(sounds),
            unit="clips",
            label="looking for audio",
            disable=audio is None,
        )
        found = dict(zip(sounds, looking, strict=True))

    records, left_out, places = [], [], []
    for row in rows:
        clip = found[row.sound]
        lacking = _lacking(row, clip)
        if lacking:
            entry = {
                "where": row.where,
                "audio": row.sound.names[0],
                "split": row.split,
                **asdict(lacking),
            }
            left_out.append({key: printable(text) for key, text in entry.items()})
        else:
            records.append((_record(row, clip), clip.seconds))
            places.append(row.where)
    found = find_findings([(w, r) for w, (r, _) in zip(places, records, strict=True)])
    return Survey(records, left_out, _counts(rows, records), found)


def _lacking(row: SurveyRow, clip: FoundClip | Lacking) -> Lacking | None:
    if not row.answer.strip():
        return Lacking(NO_ANSWER, "")
    if row.question is None or (row.question and not row.question.strip()):
        return Lacking(NO_QUESTION, "")
    return clip if isinstance(clip, Lacking) else None


def _record(row: SurveyRow, clip: FoundClip) -> Record:
    return Record(
        audio=clip.audio,
        clip=clip.id,
        question=row.question or "",
        answer=row.answer,
        split=row.split,
        attribute=row.attribute,
        value=row.value,
        start=clip.start,
        end=clip.end,
        rate=clip.rate,
    )


def _counts(
    rows: list[SurveyRow], records: list[tuple[Record, float | None]]
) -> dict[str, Split]:
    published: dict[str, list[Wanted]] = defaultdict(list)
    for row in rows:
        published[row.split].append(row.sound)
    there: dict[str, dict[str, float | None]] = defaultdict(dict)
    usable = Counter(record.split for record, _ in records)
    for record, seconds in records:
        there[record.split][record.clip] = seconds
    splits = {}
    for name, sounds in published.items():
        lengths = there[name].values()
        splits[name] = Split(
            published_rows=len(sounds),
            published_clips=len(set(sounds)),
            rows=usable[name],
            clips=len(lengths),
            hours=round(sum(length or 0 for length in lengths) / 3600, 4),
            untold=sum(length is None for length in lengths),
        )
    return splits

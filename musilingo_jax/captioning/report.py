"""What came out of a job: distributions, why captions were changed, a sample.

report.md            to read
report.json          the same numbers
distributions.png    tempi, keys, genres, outcomes
faults.jsonl         each fault: the song, the sentence, what contradicts what
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from musilingo_jax.captioning import fields, pictures
from musilingo_jax.captioning.captioned import LeftOut, Song, as_json
from musilingo_jax.captioning.contradictions import REASONS
from musilingo_jax.captioning.truth import OUTCOMES
from musilingo_jax.jobs import all_rows
from musilingo_jax.runtime import storage
from musilingo_jax.runtime.printable import escape

SAMPLE = 20
"""Rows of the sample."""
BIN = 10
"""Beats per minute of a bar of the histogram."""

_COUNTED = (fields.GENRE, fields.INSTRUMENTS, fields.MOOD, fields.VOCALS)
_COUNTED += (fields.KEY, fields.METRE, fields.TAGS)
# Rows of a table in report.md; report.json has all.
_MOST = 20
_SHOWN = (fields.CAPTION, fields.GENRE, fields.BPM, fields.KEY, fields.VOCALS)


def write(
    songs: Sequence[Song],
    failed: Mapping[str, str],
    left_out: Sequence[LeftOut],
    folder: epath.Path,
    *,
    seed: int,
) -> None:
    """Writes the files of a report.

    Args:
      songs: with their rows.
      failed: songs without a row → why.
      left_out: songs that other files lack.
      folder: of the job.
      seed: of the sample.

    Raises:
      UserError: a file cannot be written.
    """
    found = summary(songs, failed, left_out)
    with storage.writing(folder, again="run the same command again"):
        storage.write_text(folder / "report.json", as_json(found))
        with storage.atomic(folder / "distributions.png") as partial:
            pictures.draw(found, partial)
        storage.write_text(folder / "report.md", markdown(found, songs, seed))
    all_rows.write(folder / "faults.jsonl", _faults(songs))


def summary(
    songs: Sequence[Song], failed: Mapping[str, str], left_out: Sequence[LeftOut]
) -> dict[str, Any]:
    """All numbers of a report; arguments as in `write`."""
    checks = [song.row[fields.CAPTION]["check"] for song in songs]
    outcomes = Counter(check["outcome"] for check in checks)
    reasons = Counter(
        reason
        for check in checks
        for reason in {fault["reason"] for fault in check["faults"]}
    )
    bpm = Counter(
        int(value // BIN) * BIN
        for song in songs
        if (value := song.value(fields.BPM)) is not None
    )
    return {
        "songs": len(songs),
        "hours": round(sum(song.row["seconds"] for song in songs) / 3600, 3),
        "captions": {name: outcomes[name] for name in OUTCOMES},
        "drawn_again": sum(check["tries"] for check in checks),
        "reasons": {name: reasons[name] for name in REASONS},
        "bpm": {f"{low} to {low + BIN}": bpm[low] for low in sorted(bpm)},
        **{name: _counted(songs, name) for name in _COUNTED},
        "sources": {name: _sources(songs, name) for name in fields.FIELDS},
        "failed": list(failed.values()),
        "left_out": [each._asdict() for each in left_out],
    }


def markdown(found: Mapping[str, Any], songs: Sequence[Song], seed: int) -> str:
    """The report as a page.

    Args:
      found: its numbers, as `summary` returns them.
      songs: with their rows.
      seed: of the sample.
    """
    lines = [
        "# Captions",
        "",
        f"{found['songs']:,} songs, {found['hours']:,.2f} hours"
        + f"; {len(found['failed']):,} could not be read" * bool(found["failed"])
        + ".",
        "",
        *_table("caption", "songs", found["captions"]),
        "",
        f"{found['drawn_again']:,} captions were drawn again. What the model's own "
        "caption was faulted for, a song once for each reason (each sentence is in "
        "`faults.jsonl`):",
        "",
        *_table("reason", "songs", found["reasons"]),
        "",
        "![Tempi, keys, genres, captions](distributions.png)",
    ]
    for name in ("bpm", *_COUNTED):
        if found[name]:
            lines += ["", f"## {name}", "", *_table(name, "songs", found[name])]
    lines += ["", "## Sources", "", "| field | from | songs |", "| --- | --- | --- |"]
    lines += [
        f"| {name} | {escape(source)} | {count:,} |"
        for name, sources in found["sources"].items()
        for source, count in sources.items()
    ]
    if found["left_out"]:
        lines += ["", "## Left out", "", "| file | song | |", "| --- | --- | --- |"]
        lines += [
            f"| {each['format']} | {escape(each['audio'])} | {escape(each['reason'])} |"
            for each in found["left_out"]
        ]
    if found["failed"]:
        lines += ["", "## Not read", ""]
        lines += [f"- {escape(reason)}" for reason in found["failed"]]
    lines += ["", f"## A sample, seed {seed}", "", *_sample(songs, seed)]
    return "\n".join(lines) + "\n"


def _counted(songs: Sequence[Song], name: str) -> dict[str, int]:
    """How many songs have each word of a field, the most frequent first."""
    words = Counter(word for song in songs for word in fields.listed(song.value(name)))
    if unknown := sum(not song.value(name) for song in songs):
        words["(unknown)"] = unknown
    return dict(sorted(words.items(), key=lambda pair: (-pair[1], pair[0])))


def _sources(songs: Sequence[Song], name: str) -> dict[str, int]:
    found = Counter()
    for song in songs:
        made = song.row[name]
        by = f"{made['source']}: {made['name']} {made['version']}".strip()
        found[by] += 1
    return dict(sorted(found.items()))


def _table(what: str, count: str, rows: Mapping[str, int]) -> list[str]:
    shown = list(rows.items())[:_MOST]
    lines = [f"| {what} | {count} |", "| --- | --- |"]
    lines += [f"| {escape(name)} | {number:,} |" for name, number in shown]
    if others := len(rows) - len(shown):
        lines.append(f"| {others} more, in `report.json` | |")
    return lines


def _sample(songs: Sequence[Song], seed: int) -> list[str]:
    """Some rows, drawn with the seed, in the order of the songs."""
    places = random.Random(seed).sample(range(len(songs)), min(SAMPLE, len(songs)))
    lines = [f"| song | {' | '.join(_SHOWN)} |", "| --- " * (len(_SHOWN) + 1) + "|"]
    for place in sorted(places):
        song = songs[place]
        cells = [song.audio, *map(song.value, _SHOWN)]
        shown = ["–" if cell is None else escape(str(cell)) for cell in cells]
        lines.append(f"| {' | '.join(shown)} |")
    return lines


def _faults(songs: Sequence[Song]) -> list[dict[str, Any]]:
    """Every fault of the models' own captions."""
    return [
        {"audio": song.audio, "outcome": check["outcome"], **fault}
        for song in songs
        for check in [song.row[fields.CAPTION]["check"]]
        for fault in check["faults"]
    ]

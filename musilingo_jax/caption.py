"""Captions a whole library, with fields that are checked against each other.

    python -m musilingo_jax.caption songs/ --out=captions
    python -m musilingo_jax.caption songs/ --out=captions --tags=tags.txt
    python -m musilingo_jax.caption songs.jsonl --out=captions --format=jsonl,ace-step
    python -m musilingo_jax.caption songs/ --out=captions --task=3 --tasks=16

Each song gets a caption, genre, instruments, mood, vocals, bpm, key, timesignature and
tags, each with its source. Tempo, key and metre are measured. With `--tags`, words are
chosen by their likelihood among those of the file, and never invented; with
`--teachers`, musicnn's taggers give them; else they are read from the model's answers.
A caption that contradicts the fields is asked for again (`--tries`), then shortened,
then dropped. OUT/report.md counts that, and OUT/faults.jsonl lists it.

Kill it at any time: the same command resumes. However many tasks share the work, the
rows are the same, on machines of one kind. Songs that cannot be read are listed, and
the exit status is then 1, unless `--allow-missing` is given.
"""

import argparse
import functools
from collections.abc import Mapping
from pathlib import Path

from musilingo_jax.annotation import windows
from musilingo_jax.captioning import captions, fields, files, known, report, vocabulary
from musilingo_jax.captioning.asker import Sources
from musilingo_jax.captioning.captioned import LeftOut, Song
from musilingo_jax.captioning.captions import Item, Settings
from musilingo_jax.captioning.truth import Drawing
from musilingo_jax.corpora import clips, songs
from musilingo_jax.corpora.records import SUFFIXES
from musilingo_jax.jobs import all_rows, flags, row_job
from musilingo_jax.jobs.job import Place
from musilingo_jax.runtime import cli, paths
from musilingo_jax.runtime.command_line import CommandParser, nonempty, positive
from musilingo_jax.runtime.errors import UsageError
from musilingo_jax.runtime.printable import print_note, printable

MADE = "these captions"
# Songs that are lost if the job is killed, and whose questions share batches.
_SHARD = 32


def parser() -> CommandParser:
    """The command line."""
    parser = CommandParser(prog="python -m musilingo_jax.caption", description=__doc__)
    parser.add_argument(
        "songs", type=nonempty, help="a folder of songs, or a songs.jsonl or .csv"
    )
    parser.add_argument(
        "--out", type=nonempty, required=True, help="a folder for the captions"
    )
    parser.add_argument(
        "--format",
        metavar="NAMES",
        type=nonempty,
        default=files.NAMES[0],
        help=f"of {', '.join(files.NAMES)} (default: {files.NAMES[0]})",
    )
    parser.add_argument(
        "--beside",
        action="store_true",
        help="write sidecars beside the songs, not into OUT",
    )
    parser.add_argument(
        "--tags", metavar="FILE", type=nonempty, help="the tags that are allowed"
    )
    parser.add_argument(
        "--teachers", metavar="FILE", type=nonempty, help="the wheel of musicnn 0.1.0"
    )
    parser.add_argument(
        "--annotations",
        metavar="FILE",
        type=nonempty,
        help="tempo, key and metre that `musilingo annotate` has measured",
    )
    parser.add_argument(
        "--tries",
        metavar="N",
        type=_natural,
        default=3,
        help="other captions for one with faults (default: 3)",
    )
    parser.add_argument(
        "--temperature",
        metavar="N",
        type=float,
        default=0.7,
        help="of their draws (default: 0.7)",
    )
    parser.add_argument(
        "--seed", metavar="N", type=_natural, default=0, help="of draws (default: 0)"
    )
    Sources.add_flags(parser)
    parser.add_argument(
        "--rows",
        metavar="N",
        type=positive,
        help="questions answered together; default: as the model says",
    )
    parser.add_argument(
        "--limit", metavar="N", type=positive, help="only the first N songs"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="only say what would be done"
    )
    parser.add_argument(
        "--retry", action="store_true", help="try songs again that failed before"
    )
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="succeed even if some songs cannot be read",
    )
    flags.add(parser.add_argument_group("sharing the work"))
    return parser


def main(given: argparse.Namespace) -> None:
    """Captions this process's share of the songs.

    Raises:
      UserError: there are no songs, or some cannot be read and `--allow-missing` is not
        given; or as in `row_job.run`.
    """
    engine, share = flags.engine(given), flags.share(given)
    formats, settings = _formats(given), _settings(given)
    items = _items(given)
    folder = paths.open_folder(given.out, flag="--out")
    if given.dry_run:
        _tell_plan(items, settings, formats)
        return
    place = Place(
        folder,
        settings.identity(),
        _SHARD,
        flag="--out",
        busy="captioning songs here",
        label="captioning",
        unit="song",
    )
    state = row_job.run(
        place,
        items,
        functools.partial(captions.load, settings),
        share,
        engine,
        made=MADE,
        retry=given.retry,
    )
    if state.unfinished:
        all_rows.tell_unfinished(state, share, later="the files are written")
        return
    rows = all_rows.in_order(folder, state, items)
    made = [_song(items[row["id"]], row) for row in rows]
    written, left_out = files.write(made, folder, formats, beside=given.beside)
    failed = {id: why for id, why in state.failed.items() if id in items}
    report.write(made, failed, left_out, folder, seed=given.seed)
    _tell(made, written, left_out)
    print(f"{folder / 'report.md'}: what came out")
    all_rows.tell_failed(
        failed, len(items), problem="cannot be captioned", allowed=given.allow_missing
    )


def _natural(text: str) -> int:
    """A whole number from 0 on, as the `type` of an argument."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 on")
    return int(text)


def _formats(given: argparse.Namespace) -> tuple[str, ...]:
    """The formats that the command line names, each once.

    Raises:
      UsageError: one is unknown, or `--beside` is given without sidecars.
    """
    named = dict.fromkeys(given.format.split(","))
    if unknown := [name for name in named if name not in files.NAMES]:
        raise UsageError(
            f"--format={given.format}: there is no {unknown[0] or 'empty format'}; "
            f"choose among {', '.join(files.NAMES)}"
        )
    if given.beside and "sidecar" not in named:
        raise UsageError("--beside is for sidecars: add --format=sidecar")
    return tuple(named)


def _settings(given: argparse.Namespace) -> Settings:
    """What rows depend on.

    Raises:
      UsageError: flags exclude each other, or a number is impossible.
      UserError: as in `vocabulary.read`.
    """
    if not 0 < given.temperature <= 10:
        raise UsageError(
            f"--temperature={given.temperature:g}: must be above 0, or each other "
            "caption would be the same, and at most 10"
        )
    return Settings(
        Sources.of(given),
        vocabulary.read(Path(given.tags)) if given.tags else {},
        given.teachers,
        Drawing(given.tries, given.temperature, given.seed),
        given.rows,
    )


def _items(given: argparse.Namespace) -> dict[str, Item]:
    """What is captioned, by id; values of the songs file are a part of it.

    Raises:
      UsageError: a single song is named.
      UserError: there are no songs, or as in `known.of_annotations`.
    """
    path = songs.resolve(given.songs)
    if path.suffix.lower() in SUFFIXES:
        raise UsageError(
            f"{path} is one song: describe it with `musilingo caption {path}`, without "
            "--out, or name its folder"
        )
    records = songs.load(path, answers=False)
    folder = path if path.is_dir() else path.parent
    stretches, _ = windows.of_songs(records, folder, None)
    values, unused = known.of_records(records, path.name)
    if unused:
        print_note(
            f"note: {path.name} gives {len(unused)} values that no field is made of, "
            f"the first: {unused[0]}"
        )
    measured = (
        known.of_annotations(Path(given.annotations)) if given.annotations else {}
    )
    if given.annotations and (
        lacking := [id for id in stretches if id not in measured]
    ):
        print_note(
            f"note: {given.annotations} lacks {len(lacking):,} of {len(stretches):,} "
            f"songs, which are measured; the first: {lacking[0]}"
        )
    items = {}
    for id, stretch in stretches.items():
        item = Item(stretch, {**measured.get(id, {}), **values.get(id, {})})
        items[item.id] = item
    if given.limit is None or given.limit >= len(items):
        return items
    print_note(f"--limit: {given.limit} of {len(items):,} songs")
    return dict(list(items.items())[: given.limit])


def _tell_plan(
    items: Mapping[str, Item], settings: Settings, formats: tuple[str, ...]
) -> None:
    """Says what would be done."""
    lengths = [_seconds(item) for item in items.values()]
    stated = [length for length in lengths if length is not None]
    unknown = len(lengths) - len(stated)
    print(
        f"{len(items):,} songs, {sum(stated) / 3600:,.2f} hours"
        + f", and {unknown:,} whose files do not say how long they are" * bool(unknown)
    )
    print(f"model: {settings.sources.source}")
    for name in fields.FIELDS:
        given = sum(name in item.known for item in items.values())
        by_file = f"; of {given:,} songs, given" * bool(given)
        print(f"  {name:14} {settings.plan_of(name)}{by_file}")
    print(f"files: {', '.join(formats)}, and a report; nothing was written")


def _seconds(item: Item) -> float | None:
    clip = item.stretch.clip
    end = clip.end
    if end is None:
        end = clips.duration(clip.path, clip.rate)
    return None if end is None else max(0.0, end - (clip.start or 0.0))


def _song(item: Item, row: Mapping) -> Song:
    clip = item.stretch.clip
    return Song(row, clip.path, clip.rate)


def _tell(
    made: list[Song], written: Mapping[str, str], left_out: list[LeftOut]
) -> None:
    """Says what was made, and which songs each file lacks."""
    for name, text in written.items():
        print(text)
        lacking = [each for each in left_out if each.format == name]
        if lacking:
            first = printable(f"{lacking[0].audio} {lacking[0].reason}")
            print_note(f"note: {name} lacks {len(lacking):,} songs, the first: {first}")
    counts = report.summary(made, {}, left_out)["captions"]
    shown = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    print(f"captions: {shown}")


if __name__ == "__main__":
    cli.run(main, parser())

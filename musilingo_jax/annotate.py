"""Measures songs: tempo, beats, bars, key, chords, loudness, sections, tags.

    python -m musilingo_jax.annotate songs/ --out=annotations
    python -m musilingo_jax.annotate songs.jsonl --out=annotations --window=30
    python -m musilingo_jax.annotate songs/ --out=annotations --tags=musicnn.whl
    python -m musilingo_jax.annotate songs/ --out=annotations --task=3 --tasks=16

Writes OUT/annotations.jsonl: a row for each song, or for each window of each song,
where every value has its source, its version and how sure it is. Everything is measured
by functions of this package and librosa, whose licences permit any use; tags come from
musicnn's taggers, if their package is given. The fields: tempo, beats, downbeats,
metre, key, chords, loudness, sections, tags.

Kill it at any time: the same command resumes. However many tasks share the work, the
file is the same, on machines of one kind. Songs that cannot be read are listed, and the
exit status is then 1, unless `--allow-missing` is given.
"""

import argparse
import functools

from musilingo_jax.annotation import annotate, madmom, song, tags, windows
from musilingo_jax.annotation.windows import Stretch
from musilingo_jax.corpora import songs
from musilingo_jax.jobs import all_rows, flags, row_job
from musilingo_jax.jobs.job import Place
from musilingo_jax.runtime import cli, paths
from musilingo_jax.runtime.command_line import CommandParser, nonempty, positive
from musilingo_jax.runtime.errors import UsageError
from musilingo_jax.runtime.printable import print_note

NAME = "annotations.jsonl"
MADE = "these annotations"
# Songs that are lost if the job is killed.
_SHARD = 32


def parser() -> CommandParser:
    """The command line."""
    parser = CommandParser(prog="python -m musilingo_jax.annotate", description=__doc__)
    parser.add_argument(
        "songs", type=nonempty, help="a folder of songs, or a songs.jsonl or .csv"
    )
    parser.add_argument(
        "--out", type=nonempty, required=True, help="a folder for the annotations"
    )
    parser.add_argument(
        "--fields",
        type=nonempty,
        help="such as tempo,key; default: all, and tags if --tags is given",
    )
    parser.add_argument(
        "--window",
        metavar="SECONDS",
        type=float,
        help="annotate each stretch of that length on its own; default: whole songs",
    )
    parser.add_argument(
        "--tags", metavar="FILE", type=nonempty, help="the wheel of musicnn 0.1.0"
    )
    parser.add_argument(
        "--estimators",
        choices=annotate.ESTIMATORS,
        default=annotate.LIBROSA,
        help="madmom's are not for commercial use (default: librosa)",
    )
    parser.add_argument(
        "--limit", metavar="N", type=positive, help="only the first N rows"
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
    """Annotates this process's share of the songs.

    Raises:
      UserError: there are no songs, or some cannot be read and `--allow-missing` is not
        given; or as in `row_job.run`.
    """
    engine, share = flags.engine(given), flags.share(given)
    fields = _fields(given)
    if given.estimators == annotate.MADMOM:
        print_note(madmom.LICENCE)
    stretches = _stretches(given)
    place = Place(
        paths.open_folder(given.out, flag="--out"),
        annotate.identity(fields, given.estimators),
        _SHARD,
        flag="--out",
        busy="annotating songs here",
        label="annotating",
        unit="song",
    )
    state = row_job.run(
        place,
        stretches,
        functools.partial(annotate.load, fields, given.tags, given.estimators),
        share,
        engine,
        made=MADE,
        retry=given.retry,
    )
    if state.unfinished:
        all_rows.tell_unfinished(state, share, later=f"{NAME} is written")
        return
    rows = all_rows.in_order(place.folder, state, stretches)
    all_rows.write(place.folder / NAME, rows)
    print(f"{place.folder / NAME}: {len(rows)} rows")
    for field in fields:
        known = sum(row[field]["value"] not in (None, []) for row in rows)
        print(f"  {field:10} {known:,}" + f" of {len(rows):,}" * (known < len(rows)))
    failed = {id: why for id, why in state.failed.items() if id in stretches}
    all_rows.tell_failed(
        failed,
        len(stretches),
        problem="cannot be annotated",
        allowed=given.allow_missing,
    )


def _fields(given: argparse.Namespace) -> tuple[str, ...]:
    """The fields that the command line names, in the order of a row.

    Raises:
      UsageError: one is unknown, or tags are wanted without taggers.
    """
    known = (*song.FIELDS, tags.FIELD)
    if given.fields is None:
        return known if given.tags else song.FIELDS
    named = given.fields.split(",")
    if unknown := [field for field in named if field not in known]:
        raise UsageError(
            f"--fields={given.fields}: there is no {unknown[0] or 'field without name'}"
            f"; choose among {', '.join(known)}"
        )
    if tags.FIELD in named and not given.tags:
        raise UsageError(
            "--fields: tags need the taggers of musicnn: get them with `make "
            "teachers`, and give --tags=build/teachers/musicnn.whl"
        )
    return tuple(field for field in known if field in named)


def _stretches(given: argparse.Namespace) -> dict[str, Stretch]:
    """What is annotated, by id.

    Raises:
      UsageError: a window is too short.
      UserError: there are no songs.
    """
    if given.window is not None and not given.window >= 3:
        raise UsageError(f"--window={given.window:g}: must be 3 seconds at least")
    path = songs.resolve(given.songs)
    records = songs.load(path, answers=False)
    folder = path if path.is_dir() else path.parent
    stretches, uncut = windows.of_songs(records, folder, given.window)
    if uncut:
        print_note(
            f"note: {len(uncut)} songs do not say how long they are, and are annotated "
            f"as a whole, the first: {uncut[0]}"
        )
    if given.limit is None or given.limit >= len(stretches):
        return stretches
    print_note(f"--limit: {given.limit} of {len(stretches):,} rows")
    return dict(list(stretches.items())[: given.limit])


if __name__ == "__main__":
    cli.run(main, parser())

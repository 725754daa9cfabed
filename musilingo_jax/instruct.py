r"""Makes questions and answers to train on, from what is known of songs.

    python -m musilingo_jax.instruct songs.jsonl --out=pairs
    python -m musilingo_jax.instruct musiccaps-public.csv --audio=songs/ --out=pairs
    python -m musilingo_jax.instruct annotations.jsonl --audio=songs/ --out=pairs
    python -m musilingo_jax.instruct songs.jsonl --out=pairs --by=decoder \
        --language-model=HuggingFaceTB/SmolLM3-3B
    python -m musilingo_jax.instruct songs.jsonl --out=pairs --by=endpoint \
        --url=http://localhost:8000/v1 --model-name=qwen3 --price-in=0 --price-out=0

The source is a songs file with captions or values, captions and tags beside sound
files, MusicCaps' table, or what `musilingo annotate` has measured. Pairs are of three
families: understanding (facts), captioning (descriptions) and reasoning. They are made
by templates, which are right by construction; by a language model of this package,
which is asked without music; or by one behind an address that speaks OpenAI's protocol.

What a model writes is read strictly, then leniently, and pairs that cannot be answered
from the sound, speak of their source, repeat each other or contradict what is known are
refused. Every reply and every refused pair stays in the shards of OUT, with the reason.

Writes OUT/songs.jsonl to train on, or the forms of MusicQA and MusicInstruct
(`--formats`), and OUT/report.md. Kill it at any time: the same command resumes, and
asks for nothing again that an endpoint has answered.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from musilingo_jax.instruction import (
    costs,
    formats,
    ledger,
    makers,
    sources,
    summary,
)
from musilingo_jax.instruction.endpoint import Endpoint
from musilingo_jax.instruction.formats import Told
from musilingo_jax.instruction.makers import Chosen
from musilingo_jax.instruction.pairs import FAMILIES, Item, Pair
from musilingo_jax.instruction.subjects import EXCLUSIVE, Subject, Vocabulary
from musilingo_jax.instruction.summary import Summary
from musilingo_jax.jobs import all_rows, flags, row_job, row_shards, shard_plan
from musilingo_jax.jobs.job import Place
from musilingo_jax.runtime import cli, paths, storage
from musilingo_jax.runtime.command_line import CommandParser, nonempty, positive
from musilingo_jax.runtime.errors import UsageError, UserError
from musilingo_jax.runtime.printable import print_note, print_question

MADE = "these pairs"
REPORT, PICTURE = "report.md", "report.png"
# Items that are lost if the job is killed, but for what an endpoint has answered.
_SHARD = 64


def parser() -> CommandParser:
    """The command line."""
    parser = CommandParser(prog="python -m musilingo_jax.instruct", description=__doc__)
    add = parser.add_argument
    add("source", type=nonempty, help="what is known of songs: a file, as above")
    add("--out", type=nonempty, required=True, help="a folder for the pairs")
    add("--audio", metavar="FOLDER", type=nonempty, help="where the sound is")
    add(
        "--families",
        type=nonempty,
        default=",".join(FAMILIES),
        help=f"which ones (default: {','.join(FAMILIES)})",
    )
    add(
        "--formats",
        type=nonempty,
        default=formats.SONGS,
        help=f"of {','.join(formats.FORMATS)} (default: {formats.SONGS})",
    )
    add(
        "--pairs",
        metavar="N",
        type=positive,
        default=5,
        help="of a clip and a family; templates make no more (default: 5)",
    )
    add("--seed", metavar="N", type=int, default=0, help="of all draws (default: 0)")
    add(
        "--exclusive",
        metavar="NAMES",
        type=nonempty,
        help="attributes of which a clip has one value, such as style,lead",
    )
    add(
        "--complete-tags",
        action="store_true",
        help="tags that a clip is not said to have are false",
    )
    add("--limit", metavar="N", type=positive, help="only the first N clips")
    add("--retry", action="store_true", help="ask again for what failed before")
    add(
        "--allow-missing",
        action="store_true",
        help="succeed even if there are clips without a reply",
    )
    makers.add_flags(parser)
    flags.add(parser.add_argument_group("sharing the work"))
    return parser


def main(given: argparse.Namespace) -> None:
    """Makes this process's share of the pairs.

    Raises:
      UserError: the source cannot be used, or some items failed and `--allow-missing`
        is not given; or as in `row_job.run`.
    """
    engine, share = flags.engine(given), flags.share(given)
    makers.check(given)
    families = _listed(given.families, FAMILIES, "--families")
    wanted = _listed(given.formats, formats.FORMATS, "--formats")
    if not paths.is_local(given.out):
        raise UsageError(f"--out={given.out}: name a folder that this machine can open")
    folder = paths.open_folder(given.out, flag="--out")
    _check_empty(Path(folder))
    subjects, vocabulary = _subjects(given)
    _check_sound(subjects, wanted)
    items = {
        item.id: item
        for subject in subjects
        for item in (Item(subject, family) for family in families)
    }
    chosen = makers.choose(given, vocabulary, Path(folder))
    place = Place(
        folder,
        chosen.identity,
        _SHARD,
        flag="--out",
        busy="making pairs here",
        label="making pairs",
        unit="item",
    )
    if chosen.endpoint is not None:
        _agree(given, place, items, chosen.endpoint, chosen.prices)
    state = row_job.run(
        place, items, chosen.load, share, engine, made=MADE, retry=given.retry
    )
    if state.unfinished:
        all_rows.tell_unfinished(state, share, later="the pairs are written")
        return
    ordered = all_rows.in_order(folder, state, items)
    _write(given, Path(folder), ordered, items, wanted, chosen)
    failed = {id: why for id, why in state.failed.items() if id in items}
    all_rows.tell_failed(
        failed, len(items), problem="have no reply", allowed=given.allow_missing
    )


def _check_empty(folder: Path) -> None:
    """Checks that no songs file of somebody else would be replaced.

    Raises:
      UsageError: one would.
    """
    path = folder / formats.SONGS_FILE
    if path.exists() and not (folder / shard_plan.FOLDER).exists():
        raise UsageError(
            f"--out={folder}: holds a {path.name} that is not of this program: name "
            "another folder"
        )


def _listed(given: str, known: Sequence[str], flag: str) -> tuple[str, ...]:
    """The names that a flag lists, in the order of all that are known.

    Raises:
      UsageError: one is unknown.
    """
    named = given.split(",")
    if unknown := [name for name in named if name not in known]:
        raise UsageError(
            f"{flag}={given}: there is no {unknown[0] or 'one without a name'}; choose "
            f"among {', '.join(known)}"
        )
    return tuple(name for name in known if name in named)


def _subjects(given: argparse.Namespace) -> tuple[list[Subject], Vocabulary]:
    """What is known of the clips, and the vocabulary of all of them.

    Raises:
      UsageError: an exclusive attribute is of no clip.
      UserError: as in `sources.read`.
    """
    known = sources.read(given.source, given.audio)
    for reason, (count, example) in known.unused.items():
        print_note(f"note: {reason}: {count:,} are not used, such as {example}")
    named = given.exclusive.split(",") if given.exclusive else []
    attributes = {name for subject in known.subjects for name in subject.facts}
    for name in named:
        if name not in attributes:
            raise UsageError(
                f"--exclusive={given.exclusive}: no clip has the attribute {name!r}; "
                f"there are {', '.join(sorted(attributes)) or 'none'}"
            )
    exclusive = (*EXCLUSIVE, *(name for name in named if name not in EXCLUSIVE))
    # Of all clips, also with --limit, so that the first ones are asked the same.
    vocabulary = Vocabulary.of(known.subjects, exclusive, complete=given.complete_tags)
    if given.limit is None or given.limit >= len(known.subjects):
        return known.subjects, vocabulary
    print_note(f"--limit: {given.limit} of {len(known.subjects):,} clips")
    return known.subjects[: given.limit], vocabulary


def _check_sound(subjects: Sequence[Subject], wanted: Sequence[str]) -> None:
    """Checks that all sound is known, if a format names files.

    Raises:
      UsageError: it is not.
    """
    if formats.SONGS in wanted and any(subject.audio is None for subject in subjects):
        raise UsageError(
            "songs.jsonl names sound files, which this source does not: give the "
            f"folder with --audio, or --formats={formats.MUSIC_INSTRUCT}"
        )


def _agree(
    given: argparse.Namespace,
    place: Place,
    items: Mapping[str, Item],
    endpoint: Endpoint,
    prices: costs.Prices,
) -> None:
    """Says what is going to be asked, and asks whether that is meant.

    Raises:
      UsageError: there is nobody to ask.
      UserError: it is not meant.
    """
    state = row_shards.read(place.folder, place.identity, made=MADE, flag=place.flag)
    finished = {id for head in state.heads.values() for id in head.items}
    finished -= {*state.failed} if given.retry else set()
    replies = ledger.Ledger(endpoint.folder)
    waiting = [
        item
        for id, item in items.items()
        if id not in finished and replies.get(endpoint.key(item)) is None
    ]
    if not waiting:
        return
    print_note(costs.estimate(endpoint, waiting, prices))
    if given.yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("to agree to this without being asked, give --yes")
    print_question("Is that meant? [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError("nothing was asked for")


def _write(
    given: argparse.Namespace,
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    items: Mapping[str, Item],
    wanted: Sequence[str],
    chosen: Chosen,
) -> None:
    """Writes all pairs and the report, and says what was made."""
    told = [
        Told(items[row["id"]].subject, row["family"], Pair.of(pair))
        for row in rows
        for pair in row["pairs"]
    ]
    for path, count, left_out in formats.write(folder, told, wanted):
        print(f"{path}: {count:,} pairs" if count else f"{path}:")
        for reason, missing in left_out.items():
            print(f"  {missing:,} more are left out: {reason}")
    counts = Summary.of(rows)
    with storage.writing(folder, again="run the same command again"):
        storage.write_text(
            folder / REPORT, summary.page(counts, told, given.seed, PICTURE)
        )
        with storage.atomic(folder / PICTURE) as partial:
            counts.picture().savefig(partial, format="png", facecolor="white")
    print("\n".join(counts.lines()))
    if chosen.endpoint is not None:
        print(f"counted    {costs.spent(*counts.usage, chosen.prices)}")
    some = summary.sample(told, given.seed)
    print(f"\n{len(some)} of them, drawn with the seed {given.seed}:")
    print("\n".join(summary.shown(some)))


if __name__ == "__main__":
    cli.run(main, parser())

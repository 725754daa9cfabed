r"""Runs one of the field's benchmarks on any model of this package.

    python -m musilingo_jax.benchmark muchomusic --data=muchomusic.csv --audio=songs \
      --out=runs/muchomusic
    python -m musilingo_jax.benchmark gtzan --data=genres --audio=genres --out=gtzan
    python -m musilingo_jax.benchmark mmau --data=mmau-test-mini.json --audio=sounds \
      --run=runs/mine --limit=50 --allow-missing --out=runs/mmau

The benchmarks: muchomusic, rulistening, mmau, cmi-bench, song-describer, musiccaps,
giantsteps-key, giantsteps-tempo, gtzan, medleydb-instruments, musicnet-instruments.

Each question is asked with its song, and under controls: with another song, with noise,
with silence, without any sound. Answers are scored by the benchmark's published rule
and by the rules of this package; the options of a multiple choice also by their
likelihood. Writes OUT/report.md, OUT/report.json, OUT/answers.jsonl, and the file that
the benchmark's own scorer reads. The files of a benchmark and its sound are not
included: docs/field-benchmarks.md says where they are had.

Kill it at any time: the same command resumes. Sounds that are missing or cannot be read
are counted and listed, and stop the work, unless `--allow-missing` is given.
"""

import argparse
import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from etils import epath

from musilingo_jax.benchmarks import (
    asking,
    captions,
    cmi_bench,
    giantsteps,
    gtzan,
    medleydb,
    mmau,
    muchomusic,
    musicnet,
    outcome,
    report,
    rulistening,
    scores,
    sounds,
)
from musilingo_jax.benchmarks.item import Benchmark, Item, Reading, Told
from musilingo_jax.benchmarks.report import About
from musilingo_jax.benchmarks.scores import Line
from musilingo_jax.captioning.asker import Sources
from musilingo_jax.evaluation.metrics.wording import WordingModels
from musilingo_jax.evaluation.score_table import OWN
from musilingo_jax.jobs import all_rows, flags, row_job
from musilingo_jax.jobs.job import Place
from musilingo_jax.runtime import cli, paths, storage
from musilingo_jax.runtime.command_line import CommandParser, nonempty, positive
from musilingo_jax.runtime.errors import UsageError, UserError
from musilingo_jax.runtime.printable import print_note
from musilingo_jax.runtime.unicode_names import as_on_disk

MADE = "these answers"
ANSWERS = "answers.jsonl"
NO_CONTROLS = "off"
BENCHMARKS = {
    each.name: each
    for each in (
        muchomusic.BENCHMARK,
        rulistening.BENCHMARK,
        mmau.BENCHMARK,
        cmi_bench.BENCHMARK,
        captions.SONG_DESCRIBER,
        captions.MUSICCAPS,
        giantsteps.KEY,
        giantsteps.TEMPO,
        gtzan.BENCHMARK,
        medleydb.BENCHMARK,
        musicnet.BENCHMARK,
    )
}
# Songs that are lost if the job is killed, and whose questions share batches.
_SHARD = 16


def parser() -> CommandParser:
    """The command line."""
    parser = CommandParser(
        prog="python -m musilingo_jax.benchmark", description=__doc__
    )
    parser.add_argument(
        "name", choices=tuple(BENCHMARKS), help="the benchmark", metavar="NAME"
    )
    parser.add_argument(
        "--data",
        metavar="PATH",
        type=nonempty,
        required=True,
        help="its published file, or the folder of its files",
    )
    parser.add_argument(
        "--audio",
        metavar="FOLDER",
        type=nonempty,
        required=True,
        help="its sound files, at any depth, in any format",
    )
    parser.add_argument(
        "--out", type=nonempty, required=True, help="a folder for answers and scores"
    )
    Sources.add_flags(parser)
    parser.add_argument(
        "--controls",
        metavar="NAMES",
        type=nonempty,
        default=",".join(asking.CONTROLS),
        help=f"of {', '.join(asking.CONTROLS)}, or {NO_CONTROLS} (default: all)",
    )
    parser.add_argument(
        "--shuffles",
        metavar="N",
        type=positive,
        default=1,
        help="orders of the options of a multiple choice (default: 1)",
    )
    parser.add_argument(
        "--seed",
        metavar="N",
        type=int,
        default=0,
        help="of orders of options and of other songs (default: 0)",
    )
    parser.add_argument(
        "--bertscore",
        metavar="MODEL",
        type=nonempty,
        help="a model to score captions with, such as roberta-large",
    )
    parser.add_argument(
        "--limit", metavar="N", type=positive, help="only the first N questions"
    )
    parser.add_argument(
        "--retry", action="store_true", help="try songs again that failed before"
    )
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="leave out questions whose sound is missing or cannot be read",
    )
    flags.add(parser.add_argument_group("sharing the work"))
    return parser


def main(given: argparse.Namespace) -> None:
    """Asks this process's share of the questions, and scores all of them.

    Raises:
      UserError: the published files are missing or damaged; or sounds are missing or
        cannot be read and `--allow-missing` is not given; or as in `row_job.run`.
    """
    engine, share = flags.engine(given), flags.share(given)
    benchmark, sources = BENCHMARKS[given.name], Sources.of(given)
    named = _controls(given)
    items = _items(benchmark, given)
    wording = _wording(items, given)
    audio = as_on_disk(Path(given.audio))
    found, lacking = sounds.find(items, audio)
    if note := sounds.check(lacking, len(items), allowed=given.allow_missing):
        print_note(note)
    asked = [item for item in items if item.id in found]
    hearings = asking.plan(asked, found, audio, named, given.seed)
    place = Place(
        paths.open_folder(given.out, flag="--out"),
        {
            "format": asking.FORMAT,
            "benchmark": benchmark.name,
            **sources.identity(),
        },
        _SHARD,
        flag="--out",
        busy="asking here",
        label="asking",
        unit="song",
    )
    state = row_job.run(
        place,
        hearings,
        functools.partial(asking.load, sources),
        share,
        engine,
        made=MADE,
        retry=given.retry,
    )
    if state.unfinished:
        all_rows.tell_unfinished(state, share, later="the report is written")
        return
    rows = all_rows.in_order(place.folder, state, hearings)
    failed = {id: why for id, why in state.failed.items() if id in hearings}
    said = outcome.said(asked, rows, named)
    if not any(answer is not None for answer in said[OWN].answers):
        all_rows.tell_failed(
            failed, len(hearings), problem="cannot be heard", allowed=False
        )
    lines = scores.lines(
        benchmark,
        asked,
        [found[item.id].id for item in asked],
        said,
        wording,
        seed=given.seed,
    )
    about = About(
        benchmark=benchmark,
        model=sources.source,
        asked=sum(answer is not None for answer in said[OWN].answers),
        of=len(items),
        shuffles=given.shuffles,
        seed=given.seed,
        lacking={id: each.detail for id, each in lacking.items()},
        failed=list(failed.values()),
        notices=outcome.notices(rows),
        cut=outcome.cut(rows),
        unscored=outcome.unscored(rows),
        absent=wording.absent if wording else {},
        files=(),
    )
    told = [
        Told(item, asking.relative(found[item.id], audio), answer)
        for item, answer in zip(asked, said[OWN].answers, strict=True)
        if answer is not None
    ]
    _write(place.folder, about, lines, told, outcome.answers(asked, rows))
    _tell(place.folder, lines)
    all_rows.tell_failed(
        failed, len(hearings), problem="cannot be heard", allowed=given.allow_missing
    )


def _controls(given: argparse.Namespace) -> tuple[str, ...]:
    """The controls that the command line names, in the order of reports.

    Raises:
      UsageError: one is unknown.
    """
    if given.controls == NO_CONTROLS:
        return ()
    named = given.controls.split(",")
    if unknown := [name for name in named if name not in asking.CONTROLS]:
        raise UsageError(
            f"--controls={given.controls}: there is no "
            f"{unknown[0] or 'control without name'}; choose among "
            f"{', '.join(asking.CONTROLS)}, or {NO_CONTROLS}"
        )
    return tuple(name for name in asking.CONTROLS if name in named)


def _items(benchmark: Benchmark, given: argparse.Namespace) -> list[Item]:
    """The questions; those of `--limit` if it is given.

    Raises:
      UserError: there are none, or as in `Benchmark.read`.
    """
    path = as_on_disk(Path(given.data))
    if not path.exists():
        raise UserError(f"--data={path}: there is no such file: name {benchmark.data}")
    items = benchmark.read(path, Reading(given.seed, given.shuffles))
    if not items:
        raise UserError(f"--data={path}: has no questions: name {benchmark.data}")
    if given.limit is None or given.limit >= len(items):
        return items
    print_note(f"--limit: {given.limit} of {len(items):,} questions")
    return items[: given.limit]


def _wording(items: Sequence[Item], given: argparse.Namespace) -> WordingModels | None:
    """What scores of captions need; None if no question wants a caption.

    Raises:
      UsageError: a model is named though there are no captions.
      UserError: the model cannot be used.
    """
    if any(item.is_caption for item in items):
        return WordingModels.require(given.bertscore, None)
    if given.bertscore is not None:
        raise UsageError(f"--bertscore is for captions: {given.name} asks for none")
    return None


def _write(
    folder: epath.Path,
    about: About,
    lines: Sequence[Line],
    told: Sequence[Told],
    answers: Iterable[Mapping[str, Any]],
) -> None:
    """Writes everything that is made of all rows.

    Raises:
      UserError: a file cannot be written.
    """
    files = about.benchmark.files(told)
    about = dataclasses.replace(about, files=tuple(files))
    all_rows.write(folder / ANSWERS, answers)
    with storage.writing(folder, again="run the same command again"):
        for name, text in files.items():
            storage.write_text(folder / name, text)
        storage.write_text(folder / "report.json", report.as_json(about, lines))
        storage.write_text(folder / "report.md", report.markdown(about, lines))


def _tell(folder: epath.Path, lines: Sequence[Line]) -> None:
    """Says the scores over all questions."""
    for line in lines:
        if not line.group:
            print(f"{100 * line.own.value:5.1f} %  {line.score.label}")
    print(f"{folder / 'report.md'}: with intervals, controls and published scores")


if __name__ == "__main__":
    cli.run(main, parser())

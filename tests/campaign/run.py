"""Attacks every program with damaged inputs, kills and faults of the machine.

    python tests/campaign/run.py                              everything, an hour
    python tests/campaign/run.py --part=inputs --scale=0.02   one part, a sample
    python tests/campaign/run.py --only='songs.jsonl/0/17'    one attempt again
    python tests/campaign/run.py --again                      what failed, again

Each attempt is a fork of one of two warmed processes, and is a function of the seed and
its number. Outcomes are appended to `<out>/<part>.jsonl`: a campaign that was stopped
continues where it was. Prints counts by kind and outcome, and exits with 1 if there is
a fault; `outcomes.py` says what is one.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
# Programs that were compiled once are compiled for all attempts and all campaigns.
COMPILED = ROOT / ".pytest_cache" / "compiled"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(COMPILED))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from campaign import (  # noqa: E402
    inputs,
    kills,
    launch,
    machine,
    neighbours,
    processes,
    workspace,
)
from campaign.record import Record, read_all  # noqa: E402
from campaign.report import faults, report  # noqa: E402

Job = tuple[str, Callable[[], dict[str, Any]]]
"""The id of an attempt, and what makes it and returns its row."""


def jobs_of(part: str, folder: Path, out: Path, seed: int, scale: float) -> list[Job]:
    """All attempts of a part."""
    match part:
        case "inputs":
            return [
                (
                    inputs.identity(subject, number, seed),
                    lambda s=subject, n=number: inputs.try_one(
                        s, n, seed=seed, workspace=folder, out=out
                    ),
                )
                for subject, number in inputs.planned(scale)
            ]
        case "kills":
            return [
                (
                    kills.identity(journey, number, seed),
                    lambda j=journey, n=number: kills.try_one(
                        j, n, seed=seed, workspace=folder
                    ),
                )
                for journey, number in kills.planned(scale)
            ]
        case "machine":
            return [
                (
                    machine.identity(*planned, seed),
                    lambda planned=planned: machine.try_one(
                        *planned, seed=seed, workspace=folder
                    ),
                )
                for planned in machine.planned(scale)
            ]
        case "neighbours":
            return [
                (
                    neighbours.identity(number, seed),
                    lambda n=number: neighbours.try_one(n, seed=seed, workspace=folder),
                )
                for number in neighbours.planned(scale)
            ]
        case "launch":
            return [
                (
                    launch.identity(number, seed),
                    lambda n=number: launch.try_one(n, seed=seed),
                )
                for number in launch.planned(scale)
            ]
        case "processes":
            return [
                (
                    processes.identity(number, seed),
                    lambda n=number: processes.try_one(n, seed=seed, workspace=folder),
                )
                for number in processes.planned(scale)
            ]
    raise ValueError(part)


PARTS = ("inputs", "kills", "machine", "neighbours", "launch", "processes")


def run_part(
    part: str,
    *,
    out: Path,
    seed: int = 0,
    scale: float = 1.0,
    workers: int = 2,
    only: str = "",
    again: bool = False,
    minutes: float = float("inf"),
) -> list[dict[str, Any]]:
    """Does what is left of a part; the rows about it.

    Args:
      part: one of `PARTS`.
      out: folder of the record.
      seed: of all random choices.
      scale: how many attempts, as a share of the whole campaign.
      workers: how many at the same time.
      only: the id, or the beginning of the ids, of the attempts to be made, even if
        they are done.
      again: whether to try again what ended in a fault.
      minutes: after which no attempt starts.
    """
    folder = out / "workspace"
    if not folder.exists():
        made = out / "workspace.unfinished"
        if made.exists():
            subprocess.run(["rm", "-rf", str(made)], check=True)
        workspace.make(made)
        made.rename(folder)
    record = Record(out / f"{part}.jsonl")
    if again:
        record.forget_faults()
    jobs = jobs_of(part, folder, out, seed, scale)
    if only:
        jobs = [job for job in jobs if job[0] == only] or [
            job for job in jobs if job[0].startswith(only)
        ]
    else:
        jobs = [job for job in jobs if job[0] not in record.rows]
    deadline = time.monotonic() + 60 * minutes

    def do(job: Job) -> None:
        if time.monotonic() < deadline:
            row = job[1]()
            record.add(row)
            if only:
                print(report([row]))

    with ThreadPoolExecutor(workers) as pool:
        for done, _ in enumerate(pool.map(do, jobs), start=1):
            if done % 50 == 0:
                print(f"{part}: {done} of {len(jobs)}", file=sys.stderr, flush=True)
    return list(record.rows.values())


def main() -> None:
    """Runs the parts that are asked for, and reports all that were ever run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "campaign")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--only", default="")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--report", action="store_true", help="run nothing")
    given = vars(parser.parse_args())
    parts, just_report = given.pop("part") or PARTS, given.pop("report")
    started = time.monotonic()
    for part in () if just_report else parts:
        run_part(part, **given)
    rows = read_all(given["out"])
    print(report(rows))
    print(f"{time.monotonic() - started:.0f} s")
    sys.exit(bool(faults(rows)))


if __name__ == "__main__":
    main()

"""Faults of the machine: a full disk, folders that are read-only, little memory, and
the same program twice at once.

Each attempt is followed by the same command on a machine without the fault, whose
result must be that of an undisturbed run.
"""

import os
import random
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers.programs import Done

from campaign import attempt, inside, kills, outcomes, results
from campaign.kills import Journey

MIB = 2**20
_of_thread = threading.local()
# Fault → attempts of each journey in the whole campaign.
FAULTS = {
    "full disk": 6,
    "largest file": 4,
    "read-only": 1,
    "little memory": 3,
    "twice at once": 2,
}


def planned(scale: float, at_least: int = 1) -> list[tuple[str, Journey, int]]:
    """The numbered attempts."""
    return [
        (fault, journey, number)
        for fault, count in FAULTS.items()
        for journey in kills.JOURNEYS
        if journey.quick
        for number in range(max(at_least, round(scale * count)))
    ]


def identity(fault: str, journey: Journey, number: int, seed: int) -> str:
    """The name of an attempt, from which all its random choices follow."""
    return f"{fault}, {journey.name}/{seed}/{number}"


def try_one(
    fault: str, journey: Journey, number: int, *, seed: int, workspace: Path
) -> dict[str, Any]:
    """Runs a program on a faulty machine, then on a good one; the row about it."""
    id = identity(fault, journey, number, seed)
    rng = random.Random(id)
    expected, *_ = kills.undisturbed(journey, workspace)
    with _disk(workspace) as place:
        how, done = _run(fault, journey, place, rng)
        outcome = _judge(fault, journey, place, done, expected)
        said = done.stderr
        # A program that has done its work may refuse to do it again.
        if outcome in outcomes.GOOD and outcome != "same":
            again = attempt.run(journey.attempt(place))
            found = results.equal(journey.result, place, again, expected)
            if again.returncode or not found:
                outcome, how = "different", f"{how}, then {again.returncode}"
                said += again.stderr + results.difference(
                    journey.result, place, again, expected
                )
    return {
        "part": "machine",
        "kind": fault,
        "id": id,
        "how": how,
        "outcome": outcome,
        "said": said[-600:],
    }


def _run(
    fault: str, journey: Journey, place: Path, rng: random.Random
) -> tuple[str, Done]:
    made = journey.attempt(place)
    match fault:
        case "full disk":
            kib = rng.choice((0, 4, 12, 40, 100, 300))
            if not _is_mounted(place):
                return "not root: not tried", Done(0, "", "")
            with _remounted(place, f"size={_used_kib(place) + kib}k"):
                return f"{kib} KiB left", attempt.run(made)
        case "largest file":
            # What the program prints goes to files, too, and must have room.
            size = rng.choice((20_000, 40_000, 80_000, 140_000))
            made.prelude = inside.fail_writes(size)
            return f"files of at most {size} bytes", attempt.run(made)
        case "read-only":
            if not _is_mounted(place):
                return "not root: not tried", Done(0, "", "")
            with _remounted(place, "ro"):
                return "read-only", attempt.run(made)
        case "little memory":
            memory = rng.choice((20, 60, 150, 400, 1000)) * MIB
            return f"{memory // MIB} MiB", attempt.run(made, memory=memory)
        case "twice at once":
            other = _partner().submit(attempt.run, made)
            both = attempt.run(made), other.result()
            failed = [done for done in both if done.returncode]
            how = f"statuses {both[0].returncode}, {both[1].returncode}"
            return how, (failed or both)[-1]
    raise ValueError(fault)


def _partner() -> ThreadPoolExecutor:
    """A second thread for each one, which keeps its own server of programs."""
    if not hasattr(_of_thread, "partner"):
        _of_thread.partner = ThreadPoolExecutor(1)
    return _of_thread.partner


def _judge(fault: str, journey: Journey, place: Path, done: Done, expected: str) -> str:
    if done.returncode == 0 and not done.stdout + done.stderr:
        return "same"  # Not tried.
    same = results.equal(journey.result, place, done, expected)
    if fault == "twice at once" and same:
        return "same"  # One of the two may have been refused.
    if fault == "little memory" and done.returncode:
        # Whoever has no memory need not find words, and libraries that cannot even be
        # loaded have none; nothing may be damaged.
        words = done.stderr.rstrip().rpartition("\n")[2]
        return "traceback" if "MemoryError" in words else "ended"
    return outcomes.classify(
        done,
        same=same and done.returncode == 0,
        guarded=True,
        names=("",),
        place=place,
        usual=done.stderr,
    )


@contextmanager
def _disk(workspace: Path) -> Iterator[Path]:
    """A copy of the workspace, on a small disk of its own where root may mount one."""
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
        mounted = os.geteuid() == 0 and not _mount(folder, "-t", "tmpfs", "none")
        try:
            with attempt.place_of(workspace, inside=Path(folder)) as place:
                yield place
        finally:
            if mounted:
                subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def _remounted(place: Path, option: str) -> Iterator[None]:
    disk = str(place.parent.parent)
    _mount(disk, "-o", f"remount,{option}")
    try:
        yield
    finally:
        _mount(disk, "-o", "remount,rw,size=100%")


def _mount(folder: str, *options: str) -> int:
    command = ["mount", *options, folder]
    return subprocess.run(command, capture_output=True).returncode


def _is_mounted(place: Path) -> bool:
    return os.path.ismount(place.parent.parent)


def _used_kib(place: Path) -> int:
    disk = os.statvfs(place)
    return (disk.f_blocks - disk.f_bfree) * disk.f_frsize // 1024

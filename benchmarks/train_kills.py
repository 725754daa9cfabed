"""Kills a training run 30 times, then moves it between numbers of processes.

    python benchmarks/train_kills.py --kills=30

Trains an adapter for small random models (`tests/helpers/small_run.py`), with
validation: once without interruption; then in processes that are killed with SIGKILL at
random, seeded moments until `--kills` were killed, and in one that may finish. Final
and best adapter must be equal, byte for byte, and so must every loss in metrics.jsonl.
Every second kill waits until a checkpoint is being written (Orbax's temporary folder
exists), so that it interrupts the write; the others come at any time. A process that
finishes before it is killed does not count: its run is compared, and the next process
starts a new one.

Then trains the same run in 1, 2, 4, 2 and 1 processes with 8 simulated devices in
total, where SIGTERM stops all but the last. All losses must be within 1e-5 of those of
the first run.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from absl import app, flags

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from helpers import small_run  # noqa: E402

STEPS = {"stage1": 40, "stage2": 60}
ADAPTERS = ("adapter", "adapter-best")


def start(place: Path, run: str, *arguments: str) -> subprocess.Popen:
    """Starts `launch/local.sh`, which with one process becomes the program itself."""
    numbers = {"checkpoint_every": 5, "validate_every": 10, "keep": 3}
    numbers |= {"validation_examples": 4, "log_every": 1}
    overrides = [
        f"--config.{stage}.{key}={value}"
        for stage, steps in STEPS.items()
        for key, value in (numbers | {"steps": steps}).items()
    ]
    return subprocess.Popen(
        [
            ROOT / "launch/local.sh",
            *small_run.small_flags(place, run),
            "--config.corpus.validation_split=test",
            *overrides,
            *arguments,
        ],
        env=os.environ
        | {
            "PYTHON": sys.executable,
            "JAX_COMPILATION_CACHE_DIR": str(place / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def finish(process: subprocess.Popen) -> None:
    """Waits for a process, which must succeed."""
    if process.wait():
        sys.exit(f"a run ended with status {process.returncode}")


def losses(folder: Path) -> dict[tuple[str, int, str], float]:
    """(stage, update, kind) → loss; an incomplete row is skipped."""
    found, path = {}, folder / "metrics.jsonl"
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        for kind in ("loss", "validation_loss"):
            if kind in row:
                found[row["stage"], row["step"], kind] = row[kind]
    return found


def results(folder: Path) -> tuple[list[bytes], dict]:
    """The adapters and losses of a run, which no interruption may change."""
    names = (f"{name}/model.safetensors" for name in ADAPTERS)
    return [(folder / name).read_bytes() for name in names], losses(folder)


def writing(folder: Path) -> list[Path]:
    """Checkpoints that are being written."""
    return list(folder.glob("stage*/checkpoints/*orbax-checkpoint-tmp*"))


def until(moment: Callable[[], bool], process: subprocess.Popen, pause: float) -> bool:
    """Waits until `moment()` is true; False if the process ends before."""
    while process.poll() is None:
        if moment():
            return True
        time.sleep(pause)
    return False


def kill_again_and_again(place: Path, whole: tuple, seconds: float) -> None:
    """Kills a run `--kills` times, and compares every run that finished."""
    moments, folder = random.Random(flags.FLAGS.seed), place / "killed"
    kills = inside = 0
    equal: list[bool] = []
    while kills < flags.FLAGS.kills:
        left = set(writing(folder))  # By the last kill, if it interrupted a write.
        process = start(place, "killed", "--devices=1")
        deadline = time.monotonic() + moments.uniform(0.1, 1.0) * seconds
        wait_for_write = kills % 2 == 1
        skip = moments.randrange(8)  # So that it is not always the first checkpoint.
        seen: set[Path] = set()

        def now(
            seen: set[Path] = seen,
            left: set[Path] = left,
            skip: int = skip,
            deadline: float = deadline,
            wait_for_write: bool = wait_for_write,
        ) -> bool:
            if not wait_for_write:
                return time.monotonic() > deadline
            here = set(writing(folder)) - left
            seen.update(here)
            return len(seen) > skip and bool(here)

        if not until(now, process, 0.0005):
            finish(process)
            equal.append(results(folder) == whole)
            shutil.rmtree(folder)
            continue
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        inside += bool(set(writing(folder)) - left)
        print(f"{kills} of {flags.FLAGS.kills} kills", file=sys.stderr)
    finish(start(place, "killed", "--devices=1"))
    equal.append(results(folder) == whole)
    print(
        f"{kills} kills, {inside} of them while a checkpoint was being written; "
        f"{len(equal)} finished runs: adapters and losses "
        f"{'equal' if all(equal) else 'DIFFERENT'}"
    )


def move(place: Path, whole: tuple) -> None:
    """Trains a run in 1, 2, 4, 2 and 1 processes, and compares its losses."""
    folder, counts = place / "moved", (1, 2, 4, 2, 1)
    stops, total = [], sum(STEPS.values())
    for part, processes in enumerate(counts, start=1):
        process = start(
            place,
            "moved",
            f"--processes={processes}",
            f"--devices={8 // processes}",
            "--config.mesh.data=2",
            "--config.mesh.fsdp=2",
            "--config.mesh.tensor=2",
        )
        if part < len(counts):
            enough = total * part // len(counts)

            def far_enough(enough: int = enough) -> bool:
                return sum(kind == "loss" for *_, kind in losses(folder)) >= enough

            if not until(far_enough, process, 0.01):
                sys.exit(f"a run ended with status {process.returncode}")
            process.send_signal(signal.SIGTERM)
            if process.wait() != 143:
                sys.exit(f"SIGTERM: it ended with status {process.returncode}")
            stops.append(sum(kind == "loss" for *_, kind in losses(folder)))
        else:
            finish(process)
    expected, found = whole[1], losses(folder)
    if list(expected) != list(found):
        sys.exit("the moved run has other updates than that of one process")
    worst = max(abs(expected[key] - found[key]) for key in expected)
    print(
        f"{' → '.join(map(str, counts))} processes, stopped after updates "
        f"{', '.join(map(str, stops))} of {total}: largest difference of a loss from "
        f"one device's {worst:.1e}, {'within' if worst <= 1e-5 else 'ABOVE'} 1e-5"
    )


def main(argv: list[str]) -> None:
    """Kills and moves runs."""
    del argv
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        small_run.make_models(place)
        small_run.make_corpus(place / "corpus")
        finish(start(place, "warm", "--devices=1"))  # Compiles.
        started = time.monotonic()
        finish(start(place, "whole", "--devices=1"))
        seconds = time.monotonic() - started
        whole = results(place / "whole")
        print(f"one process, uninterrupted: {len(whole[1])} losses in {seconds:.1f} s")
        kill_again_and_again(place, whole, seconds)
        move(place, whole)


if __name__ == "__main__":
    flags.DEFINE_integer("kills", 30, "processes to kill")
    flags.DEFINE_integer("seed", 0, "seed of the moments")
    app.run(main)

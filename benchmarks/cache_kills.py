"""Compares caches filled by one process, by several, and by one that is killed.

    python benchmarks/cache_kills.py --kills=20

Fills a cache with the features of the embedded corpus: once without interruption; then
by 2 and by 4 tasks at the same time; then by processes that are killed with SIGKILL at
random, seeded moments until `--kills` were killed, and by one that may finish. All
files of the four caches must be equal, byte for byte. Prints what existed at each kill.
A process that finishes before it is killed does not count: its cache is compared, and
the next process starts from nothing.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags

ROOT = Path(__file__).parent.parent


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    """Starts the program, which fills the cache in `folder`."""
    command = [sys.executable, "-m", "musilingo_jax.cache"]
    command += ["--config=configs/features/tiny.py", "--config.features.shard_clips=4"]
    command += [f"--config.features.cache={folder}", *arguments]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **quiet)


def finish(*processes: subprocess.Popen) -> None:
    """Waits for processes, which must succeed."""
    for process in processes:
        if process.wait():
            sys.exit(f"a run ended with status {process.returncode}")


def files(folder: Path) -> dict[str, bytes]:
    """All files of a cache but its locks, by name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("lock")
    }


def main(argv: list[str]) -> None:
    """Fills the four caches and compares them."""
    del argv
    moments = random.Random(flags.FLAGS.seed)
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        finish(start(place / "warm"))  # Compiles.
        started = time.monotonic()
        finish(start(place / "one"))
        took = time.monotonic() - started
        one = files(place / "one")
        print(f"one process: {len(one)} files in {took:.1f} s")
        for tasks in (2, 4):
            folder = place / str(tasks)
            finish(
                *(
                    start(folder, f"--task={i}", f"--tasks={tasks}")
                    for i in range(tasks)
                )
            )
            print(f"{tasks} tasks: {'equal' if files(folder) == one else 'DIFFERENT'}")
        folder, kills, done, equal = place / "killed", 0, [], []
        while kills < flags.FLAGS.kills:
            process = start(folder)
            moment = moments.uniform(0.2, 1.2) * took
            started = time.monotonic()
            try:
                process.wait(moment)
                took = min(took, time.monotonic() - started)
                equal.append(files(folder) == one)
                shutil.rmtree(folder)
                done.append("all, restarted")
                continue
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
            kills += 1
            notes = len(list(folder.glob("0*.json")))
            partial = len(list(folder.rglob("*.partial")))
            done.append(f"{notes}" + " and a partial file" * bool(partial))
        finish(start(folder))
        equal.append(files(folder) == one)
        print(
            f"{kills} kills, {len(equal)} completed caches: "
            f"{'equal' if all(equal) else 'DIFFERENT'}"
        )
        print(f"shards that existed at each kill: {'; '.join(done)}")


if __name__ == "__main__":
    flags.DEFINE_integer("kills", 20, "processes to kill")
    flags.DEFINE_integer("seed", 0, "seed of the moments")
    app.run(main)

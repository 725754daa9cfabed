r"""Compares a job done by one process with shared, killed and lost ones.

    python benchmarks/job_kills.py -- \
      cache --config=configs/features/tiny.py --config.features.shard_clips=4 \
      --config.features.cache={}
    python benchmarks/job_kills.py --tasks=4 --ray -- caption songs/ --out={}

What follows `--` is a program of `docs/jobs.md` and its arguments; `{}` stands for a
new folder each time. The job is done once without interruption; then by 2 and by
`--tasks` tasks at the same time; with `--ray`, by a Ray cluster of two nodes with two
processes each, of which one node is killed when a shard was made; then by processes
that are killed with SIGKILL at random, seeded moments until `--kills` were killed, and
by one that may finish. All files must be equal, byte for byte, without locks and the
journal, which say who did what. Printed are the times, and how many shards existed at
each kill. A process that finishes before it is killed does not count: its files are
compared, and the next process starts from nothing.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from absl import app, flags

ROOT = Path(__file__).parent.parent
KILLS = flags.DEFINE_integer("kills", 20, "processes to kill")
LONGEST = flags.DEFINE_float(
    "longest", 1.2, "latest moment of a kill, as a share of the undisturbed job's time"
)
TASKS = flags.DEFINE_integer("tasks", 4, "tasks of the larger job array")
RAY = flags.DEFINE_bool("ray", False, "whether a Ray cluster does the job, too")
SEED = flags.DEFINE_integer("seed", 0, "seed of the moments")
WORK = flags.DEFINE_string("work", None, "folder of all jobs; default: a temporary one")
# Shards, whatever their kind, and what says that a plan was written.
_SHARDS = "0*.json*"


def start(
    command: list[str], folder: Path, *more: str, log: Path
) -> subprocess.Popen[bytes]:
    """Starts the job in a folder."""
    program, *arguments = [word.replace("{}", str(folder)) for word in command]
    line = [sys.executable, "-m", f"musilingo_jax.{program}", *arguments, *more]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    with log.open("ab") as output:
        return subprocess.Popen(
            line, cwd=ROOT, env=environment, stdout=output, stderr=output
        )


def finish(*processes: subprocess.Popen[bytes], log: Path) -> None:
    """Waits for processes, which must succeed."""
    for process in processes:
        if process.wait():
            sys.exit(f"a run ended with status {process.returncode}: {log}")


def files(folder: Path) -> dict[str, bytes]:
    """All files of a job but its locks and journal, by name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and not path.name.startswith("lock")
        and path.parent.name != "journal"
    }


def compared(found: dict[str, bytes], expected: dict[str, bytes]) -> str:
    """Whether two jobs made the same files; else which differ."""
    names = sorted(found.keys() | expected.keys())
    other = [name for name in names if found.get(name) != expected.get(name)]
    return f"DIFFERENT: {', '.join(other[:5])}" if other else "equal"


def on_ray(command: list[str], folder: Path, log: Path) -> None:
    """Does the job on a cluster of two nodes on this machine, and kills one of them."""
    from ray.cluster_utils import Cluster  # type: ignore

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    second = cluster.add_node(num_cpus=2)
    ended = threading.Event()
    killed = []

    def kill() -> None:
        while not ended.wait(0.2):
            if list(folder.glob(_SHARDS)):
                cluster.remove_node(second, allow_graceful=False)
                killed.append(len(list(folder.glob(_SHARDS))))
                return

    watching = threading.Thread(target=kill)
    watching.start()
    try:
        flags_of_ray = ("--engine=ray", f"--address={cluster.address}", "--actors=4")
        finish(start(command, folder, *flags_of_ray, log=log), log=log)
    finally:
        ended.set()
        watching.join()
        cluster.shutdown()
    if not killed:
        sys.exit("no node was killed: the job has too few shards")
    print(f"Ray: one node of two killed when {killed[0]} shards were made")


def main(argv: list[str]) -> None:
    """Does the job in each way, and compares."""
    command = argv[1:]
    if not any("{}" in word for word in command):
        sys.exit("give a program and its arguments after --, with {} for its folder")
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(WORK.value or temporary)
        place.mkdir(parents=True, exist_ok=True)
        log = place / "log.txt"

        def whole(name: str, *more: str) -> float:
            started = time.monotonic()
            finish(start(command, place / name, *more, log=log), log=log)
            return time.monotonic() - started

        took = whole("one")
        one = files(place / "one")
        print(f"one process: {len(one)} files in {took:.1f} s", flush=True)
        for tasks in sorted({2, TASKS.value}):
            folder, started = place / str(tasks), time.monotonic()
            shares = [(f"--task={i}", f"--tasks={tasks}") for i in range(tasks)]
            finish(
                *(start(command, folder, *share, log=log) for share in shares), log=log
            )
            # Reports and joined files are written by whoever finds all shards made.
            whole(str(tasks))
            result = compared(files(folder), one)
            seconds = time.monotonic() - started
            print(f"{tasks} tasks: {result}, {seconds:.1f} s", flush=True)
        if RAY.value:
            on_ray(command, place / "ray", log)
            print(f"Ray: {compared(files(place / 'ray'), one)}", flush=True)
        kill_often(command, place / "killed", one, took, log)


def kill_often(
    command: list[str], folder: Path, one: dict[str, bytes], took: float, log: Path
) -> None:
    """Kills processes at random moments until enough were killed; prints the result."""
    moments = random.Random(SEED.value)
    kills, done, results = 0, [], []
    while kills < KILLS.value:
        process = start(command, folder, log=log)
        moment = moments.uniform(0.08, 1.0) * LONGEST.value * took
        started = time.monotonic()
        try:
            process.wait(moment)
            took = min(took, time.monotonic() - started)
            results.append(compared(files(folder), one))
            shutil.rmtree(folder)
            done.append("all, restarted")
            continue
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        kills += 1
        shards = len(list(folder.glob(_SHARDS)))
        partial = any(folder.rglob("*.partial"))
        done.append(f"{shards}" + " and a partial file" * partial)
    finish(start(command, folder, log=log), log=log)
    results.append(compared(files(folder), one))
    others = [result for result in results if result != "equal"]
    print(
        f"{kills} kills, {len(results)} finished jobs: {'; '.join(others) or 'equal'}"
    )
    print(f"shards that existed at each kill: {'; '.join(done)}")


if __name__ == "__main__":
    app.run(main)

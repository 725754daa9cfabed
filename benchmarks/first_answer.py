"""How long the first answer of a new process takes, and what the time goes to.

    python benchmarks/first_answer.py

Asks the embedded model about a song in a new process: with an empty cache of compiled
programs, then `--rounds` times with what the first has left there. Printed are median
wall-clock seconds of the parts, as `musilingo ask` goes through them, and of that
command itself, with the start of Python and its end. Needs an idle machine.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags

ASSETS = Path(__file__).parents[1] / "musilingo_jax/assets"
ROUNDS = flags.DEFINE_integer("rounds", 5, "starts with compiled programs at hand")
SONG = flags.DEFINE_string(
    "song", str(ASSETS / "musilingo-tiny-corpus/clips/00002.ogg"), "a sound file"
)
WORKER = flags.DEFINE_float("worker", None, "internal: when this process was started")
QUESTION = "Are there drums?"


def parts(started: float) -> dict[str, float]:
    """Seconds of each part in this process, which was started at that time."""
    found, since = {}, started

    def until_now(name: str) -> None:
        nonlocal since
        now = time.time()
        found[name], since = now - since, now

    from musilingo_jax.answering.model import EMBEDDED, Model
    from musilingo_jax.runtime.compilation_cache import keep_compiled_programs

    keep_compiled_programs()
    until_now("Python, JAX and this package")
    with Model.load(EMBEDDED, rows=1) as model:
        until_now("the weights")
        heard = model.hear(SONG.value)
        until_now("the song: read, encoded")
        model.ask(heard, QUESTION)
        until_now("the answer")
        model.ask(heard, "Is it calm?")
        until_now("a further answer")
    return found


def start(cache: str) -> dict[str, float]:
    """The parts in a new process, and the whole command in another."""
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
    line = [sys.executable, *sys.argv, f"--worker={time.time()}"]
    done = subprocess.run(
        line, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def command(cache: str) -> float:
    """Seconds of `musilingo ask`."""
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
    line = [sys.executable, "-m", "musilingo_jax.command", "ask", SONG.value, QUESTION]
    started = time.perf_counter()
    subprocess.run(line, env=environment, capture_output=True, check=True)
    return time.perf_counter() - started


def main(argv: list[str]) -> None:
    """Prints the table, or measures one start in a worker process."""
    del argv
    if WORKER.value is not None:
        print(json.dumps(parts(WORKER.value)))
        return
    with tempfile.TemporaryDirectory() as cache:
        cold, cold_command = start(cache), command(f"{cache}/other")
        starts = [start(cache) for _ in range(ROUNDS.value)]
        commands = [command(cache) for _ in range(ROUNDS.value)]
    print(f"{'':36}compiled before  first time")
    for name, seconds in cold.items():
        warm = statistics.median(one[name] for one in starts)
        print(f"{name:36}{warm:15.2f}  {seconds:10.2f}")
    warm = statistics.median(commands)
    print(f"{'musilingo ask, in all':36}{warm:15.2f}  {cold_command:10.2f}")


if __name__ == "__main__":
    app.run(main)

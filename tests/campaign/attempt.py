"""One input of the campaign: a folder of files, and the programs that read it."""

import dataclasses
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from helpers import programs

from campaign import inside

GIB = 2**30
# So that a machine with one device runs what a machine with many runs, and programs are
# compiled once.
ENVIRONMENT = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_NUM_CPU_DEVICES": "1",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "COLUMNS": "100",
}
CPU_SECONDS = 120
IDLE_SECONDS = 90.0
# A last resort, far above what the other limits allow on any machine.
WALL_SECONDS = 3600


@dataclasses.dataclass
class Attempt:
    """What is tried.

    Attributes:
      place: a folder of its own, in which the programs run.
      commands: (program, arguments…), run one after the other until one fails.
      target: the file that is damaged, relative to `place`.
      prelude: Python that each process executes first.
      harmless: whether the damaged file says the same as before, to every reader.
    """

    place: Path
    commands: list[tuple[str, ...]]
    target: Path
    prelude: str = ""
    harmless: bool = False

    @property
    def path(self) -> Path:
        """The file that is damaged."""
        return self.place / self.target


Mutator = Callable[[random.Random, Attempt], str]
"""Damages an attempt, and says in a few words how."""


@contextmanager
def place_of(template: Path, *, inside: Path | None = None) -> Iterator[Path]:
    """A copy of a folder, in a new folder that is removed at the end."""
    with TemporaryDirectory(
        prefix="campaign-", dir=inside, ignore_cleanup_errors=True
    ) as folder:
        place = Path(folder) / "place"
        shutil.copytree(template, place, symlinks=True)
        yield place


def run(
    attempt: Attempt,
    *,
    cpu: int = CPU_SECONDS,
    idle: float = IDLE_SECONDS,
    memory: int = 8 * GIB,
) -> programs.Done:
    """Runs the commands; the status of the last one, and the output of all.

    Raises:
      TimeoutError: it ran on beyond all limits.
    """
    out, err, status = [], [], 0
    limits = inside.limits(cpu=cpu, memory=memory, idle=idle)
    for program, *arguments in attempt.commands:
        start = programs.run_script if program.endswith(".py") else programs.run
        done = start(
            program,
            *arguments,
            cwd=attempt.place,
            env=ENVIRONMENT,
            timeout=WALL_SECONDS,
            prelude=limits + attempt.prelude,
        )
        out.append(done.stdout)
        err.append(done.stderr)
        status = done.returncode
        if status:
            break
    return programs.Done(status, "".join(out), "".join(err))

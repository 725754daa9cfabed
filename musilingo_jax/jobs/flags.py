"""The flags by which every job is shared out.

--task=3 --tasks=16                            one task of a job array
--engine=ray --address=auto --actors=8         the processes of a Ray cluster
"""

import argparse
from typing import Any

from musilingo_jax.jobs.engine import LOCAL, NAMES, RAY, Engine
from musilingo_jax.jobs.share import Share
from musilingo_jax.runtime import command_line
from musilingo_jax.runtime.errors import UsageError


def add(parser: Any) -> None:
    """Adds the flags to a parser, or to a group of one."""
    parser.add_argument(
        "--task",
        metavar="N",
        type=int,
        default=0,
        help="the number of this task, from 0",
    )
    parser.add_argument(
        "--tasks",
        metavar="N",
        type=command_line.positive,
        default=1,
        help="how many tasks of a job array share the work",
    )
    parser.add_argument(
        "--engine",
        choices=NAMES,
        default=LOCAL,
        help="this process, or those of a Ray cluster (default: local)",
    )
    parser.add_argument(
        "--address",
        type=command_line.nonempty,
        help="of the Ray cluster; default: the one that this machine is in",
    )
    parser.add_argument(
        "--actors",
        metavar="N",
        type=command_line.positive,
        help="processes on the cluster; default: one for each accelerator, or CPU",
    )
    parser.add_argument(
        "--cpus",
        metavar="N",
        type=command_line.positive,
        help="CPUs of each of them, on a cluster without accelerators (default: 1)",
    )


def share(given: argparse.Namespace) -> Share:
    """Which part of the work the command line names.

    Raises:
      UsageError: there is no such task, or `--retry` is given to several.
    """
    if not 0 <= given.task < given.tasks:
        raise UsageError(
            f"--task={given.task} --tasks={given.tasks}: tasks are counted from 0, so "
            f"--task must be from 0 to {given.tasks - 1}"
        )
    if given.tasks > 1 and given.retry:
        raise UsageError(
            "--retry makes a new plan, which depends on what failed: start it once, "
            "without --tasks"
        )
    return Share(given.task, given.tasks)


def engine(given: argparse.Namespace) -> Engine:
    """The engine that the command line names.

    Raises:
      UsageError: a flag of Ray without Ray, or Ray for a part of the work.
    """
    if given.engine == LOCAL:
        for name in ("address", "actors", "cpus"):
            if getattr(given, name) is not None:
                raise UsageError(f"--{name} is for --engine={RAY}")
    elif given.tasks > 1:
        raise UsageError(
            f"--engine={RAY} shares the work itself: start it once, without --tasks"
        )
    return Engine(
        given.engine, given.address or "auto", given.actors or 0, given.cpus or 1
    )

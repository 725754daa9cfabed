"""Memory of an update by arithmetic: without a compiler, for devices of any kind.

    v5e-8      a TPU slice, by its name
    8x80       8 devices with 80 GiB each, such as GPUs

Weights, what learns, its gradient and its moments are counted from the shapes and the
shardings of the very arrays that training makes (`jax.eval_shape`). What is computed in
between is estimated as `--search` does before it compiles (`search.temporary`); XLA may
need more or less. So near the limit only a compiled plan, or a run, can tell.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jax.sharding import AbstractMesh

from musilingo_jax.plan.compile import gib
from musilingo_jax.plan.job import held
from musilingo_jax.plan.search import temporary
from musilingo_jax.plan.tpu_slices import GIB, Chip, Topology
from musilingo_jax.plan.train_program import TrainJob
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.sharding import MESH_AXES

_NAMES = {
    "weights": "frozen weights",
    "learning": "what learns",
    "gradient": "its gradient",
    "optimiser": "optimiser",
    "batch": "batch",
    "temporary": "temporary, about",
}


def parse(name: str) -> Topology:
    """Reads "v5e-8", or "8x80": devices of which nothing but their memory is known.

    Raises:
      UserError: it is neither.
    """
    if found := re.fullmatch(r"([1-9]\d*)x([1-9]\d*(?:\.\d+)?)", name):
        kind = f"{float(found[2]):g} GiB"
        chip = Chip(kind, kind, float(found[2]) * GIB, 0.0, 0.0, 1, {})
        return Topology(chip, (int(found[1]),))
    try:
        return Topology.parse(name)
    except UserError as error:
        raise UserError(
            f"--estimate={name}: name a TPU slice, such as v5e-8, or devices and the "
            "GiB of each, such as 8x80"
        ) from error


@dataclass(frozen=True)
class Estimate:
    """The memory of an update on one device, in bytes by part."""

    job: TrainJob
    memory: Mapping[str, float]

    @property
    def available(self) -> float:
        """What a program may use."""
        return self.job.topology.chip.memory

    @property
    def devices(self) -> str:
        """The devices, for people."""
        topology = self.job.topology
        known = topology.chip.bandwidth > 0
        return topology.sold_as if known else f"{topology.size} × {topology.chip.name}"

    @property
    def total(self) -> float:
        """Of all parts."""
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        """Whether there is as much."""
        return self.total <= self.available

    def to_dict(self) -> dict[str, Any]:
        """The estimate for scripts."""
        return {
            "devices": self.devices,
            "mesh": dict(self.job.mesh),
            **self.job.to_dict(),
            "memory": dict(self.memory),
            "total": self.total,
            "available": self.available,
            "fits": self.fits,
        }


def estimate(job: TrainJob, mesh: Mapping[str, int]) -> Estimate:
    """The memory of an update.

    Args:
      job: the update; its mesh is not read.
      mesh: sizes of the axes; one may be −1.

    Raises:
      UserError: the mesh does not use all devices, or rows do not divide over it.
    """
    sizes = _sizes(mesh, job.topology.size)
    abstract = AbstractMesh(tuple(sizes.values()), MESH_AXES)
    job = replace(job, mesh=sizes)
    job.stage.check_rows(job.name, abstract)
    state, frozen, batch = job.arguments(abstract)
    learning = held(state.learning)
    # The sum over several batches, and the gradient of the next one.
    gradients = 1 if job.stage.accumulate == 1 else 2
    return Estimate(
        job,
        {
            "weights": held(frozen),
            "learning": learning,
            "gradient": gradients * learning,
            "optimiser": held(state.optimiser),
            "batch": held(batch),
            "temporary": temporary(job),
        },
    )


def describe(found: Estimate) -> str:
    """One estimate in full."""
    mesh = " ".join(f"{axis}={size}" for axis, size in found.job.mesh.items())
    lines = [
        f"{found.devices}: mesh {mesh}, by arithmetic alone",
        *found.job.heading(),
        "",
        "memory per device",
        *(f"  {_NAMES[part]:22} {gib(n):>12}" for part, n in found.memory.items()),
        f"  {'total':22} {gib(found.total):>12}   "
        f"{'fits' if found.fits else 'DOES NOT FIT'}: "
        f"{found.total / found.available:.0%} of {gib(found.available)}",
    ]
    return "\n".join(lines)


def markdown(estimates: Sequence[Estimate]) -> str:
    """A table with a row for each estimate."""
    head = ["devices", "weights", "mesh", "one update", *_NAMES.values(), "total"]
    rows = [head, ["---"] * len(head)]
    for found in estimates:
        job = found.job
        rows.append(
            [
                found.devices,
                job.weights,
                " × ".join(str(size) for size in job.mesh.values()),
                job.size,
                *(gib(size) for size in found.memory.values()),
                f"{gib(found.total)} of {gib(found.available)}"
                + ("" if found.fits else ": too much"),
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def as_json(estimates: Sequence[Estimate]) -> str:
    """A line of JSON for each estimate."""
    return "\n".join(json.dumps(found.to_dict()) for found in estimates)


def _sizes(mesh: Mapping[str, int], devices: int) -> dict[str, int]:
    """The sizes of the axes, with −1 resolved.

    Raises:
      UserError: their product is not the number of devices.
    """
    sizes = {axis: int(mesh[axis]) for axis in MESH_AXES}
    free = [axis for axis, size in sizes.items() if size == -1]
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if len(free) == 1 and fixed > 0:
        sizes[free[0]] = devices // fixed
    if min(sizes.values()) < 1 or math.prod(sizes.values()) != devices:
        asked = ", ".join(f"{axis}={mesh[axis]}" for axis in MESH_AXES)
        raise UserError(
            f"mesh {asked}: there are {devices} devices; make the product of the sizes "
            "as many, or one of them -1"
        )
    return sizes

"""What a plan compiles: a program, its arguments, and the chips that it is to run on.

    train     an update of the adapter                          train_program.py
    encode    a batch of clips becomes features                 encode_program.py
    read      a batch of prompts is read into a cache           read_program.py
    decode    one more token in each row                        decode_program.py

Each is the jitted function that the other commands run, lowered for abstract arguments:
shapes, types and shardings without values.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh

from musilingo_jax.plan.program_costs import ProgramCosts
from musilingo_jax.plan.tpu_slices import Topology
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.sharding import make_mesh

PROGRAMS = ("train", "encode", "read", "decode")


@dataclass(frozen=True)
class Lowered:
    """A program that is ready to be compiled.

    Attributes:
      program: for the devices of its arguments.
      memory: bytes of its arguments on one device, by part.
      idle: the same of what is in memory while it runs, and which it does not read.
    """

    program: jax.stages.Lowered
    memory: Mapping[str, float]
    idle: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Job(Protocol):
    """A program to compile. Its sizes are those of one run, over all devices."""

    @property
    def program(self) -> str:
        """One of `PROGRAMS`."""
        ...

    @property
    def run(self) -> str:
        """What one run of it is called: "update", "batch", "step"."""
        ...

    @property
    def is_loop(self) -> bool:
        """Whether the program is a loop without a known end, whose iteration counts."""
        ...

    @property
    def mesh(self) -> Mapping[str, int]:
        """Sizes of the axes, none of them −1."""
        ...

    @property
    def topology(self) -> Topology:
        """The slice."""
        ...

    @property
    def weights(self) -> str:
        """The type of the frozen weights: the quantization, or else the dtype."""
        ...

    @property
    def size(self) -> str:
        """What a run handles, in a few words."""
        ...

    @property
    def model_flops(self) -> float:
        """Operations of a run that the mathematics asks for."""
        ...

    def lower(self, mesh: Mesh) -> Lowered:
        """The program, for a mesh of the slice's devices.

        Raises:
          UserError: the sizes do not divide over the mesh.
        """
        ...

    def heading(self) -> list[str]:
        """Lines for people: the model, and what a run handles."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The settings that are this program's own, for scripts."""
        ...

    def figures(
        self, costs: ProgramCosts, memory: Mapping[str, float], seconds: float
    ) -> dict[str, float]:
        """What a run of `seconds` comes to, in the units of its users.

        Args:
          costs: of the compiled program, per device.
          memory: bytes by part, per device.
          seconds: of a run.
        """
        ...

    def summary(self, figures: Mapping[str, float]) -> str:
        """The figures in a line."""
        ...


def mesh_sizes(mesh: Mapping[str, int], topology: Topology) -> dict[str, int]:
    """The sizes of a config's mesh on a topology, with −1 resolved.

    Raises:
      UserError: the mesh does not use all devices.
    """
    sizes = dict(make_mesh(**mesh, devices=topology.devices()).shape)
    if math.prod(sizes.values()) != topology.size:
        asked = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
        raise UserError(
            f"mesh {asked}: {topology.sold_as} has {topology.described_size}; make the "
            "product of the sizes as many, or one of them -1"
        )
    return sizes


def held(tree: Any) -> float:
    """Bytes of an abstract tree's arrays on one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(tree)
    )

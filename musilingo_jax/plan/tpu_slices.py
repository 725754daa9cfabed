"""TPU slices by the names that people pay for, and what their chips can do.

A slice's name counts cores on v4 and v5p, whose chips have two of them, and chips on
v5e and v6e; JAX shows a chip as one device on all four. So v4-32 and v5p-32 are 16
devices, v5e-32 and v6e-32 are 32. (cloud.google.com/tpu/docs/v4, /v5e, /v5p, /v6e)
"""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import jax

from musilingo_jax.runtime.errors import UserError

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One TPU chip, which is one JAX device.

    Attributes:
      name: as in the names of slices.
      device_kind: as JAX calls it.
      memory: bytes of HBM that the compiler lets a program use: what it says is
        available when it refuses one that is too large. The data sheets say 32 GB
        (v4), 16 GB (v5e), 95 GB (v5p) and 32 GB (v6e); the rest is the system's.
      bandwidth: bytes per second of HBM.
      link: bytes per second that a link to a neighbour carries, one way: the published
        bandwidth between chips by the number of its links and by both directions.
      cores: it has; two work as one device.
      slices: of these names, the shape of the chips.
    """

    name: str
    device_kind: str
    memory: float
    bandwidth: float
    link: float
    cores: int
    slices: dict[int, tuple[int, ...]]


_PLANE = {
    1: (1, 1),
    4: (2, 2),
    8: (2, 4),
    16: (4, 4),
    32: (4, 8),
    64: (8, 8),
    128: (8, 16),
    256: (16, 16),
}
_SPACE = {
    8: (2, 2, 1),
    16: (2, 2, 2),
    32: (2, 2, 4),
    64: (2, 4, 4),
    128: (4, 4, 4),
    256: (4, 4, 8),
    512: (4, 8, 8),
    1024: (8, 8, 8),
    2048: (8, 8, 16),
    4096: (8, 16, 16),
}

# HBM and links: "HBM bandwidth per chip" and "Bidirectional inter-chip interconnect
# bandwidth per chip" of the pages named above (v5e 400, v5p 1200, v6e 800 GB/s, over 4,
# 6 and 4 links); v4's links, 50 GB/s each way, are in Jouppi et al. 2023, "TPU v4".
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", "TPU v4", 30.75 * GIB, 1200e9, 50e9, 2, _SPACE),
        Chip("v5e", "TPU v5 lite", 15.75 * GIB, 819e9, 50e9, 1, _PLANE),
        Chip("v5p", "TPU v5", 95.74 * GIB, 2765e9, 100e9, 2, _SPACE),
        Chip("v6e", "TPU v6 lite", 31.25 * GIB, 1638e9, 100e9, 1, _PLANE),
    )
}


@dataclass(frozen=True)
class Topology:
    """A slice: chips of one kind, in a grid.

    Attributes:
      chip: of which kind.
      shape: of the grid, two sizes or three.
    """

    chip: Chip
    shape: tuple[int, ...]

    @property
    def chips(self) -> int:
        """How many there are, and so how many devices JAX shows."""
        return math.prod(self.shape)

    @property
    def name(self) -> str:
        """As the compiler calls it, e.g. "v5e:2x4"."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def sold_as(self) -> str:
        """As it is rented, e.g. "v5e-8"; the compiler's name if it is none of those."""
        for number, shape in self.chip.slices.items():
            if shape == self.shape:
                return f"{self.chip.name}-{number}"
        return self.name

    @property
    def exchange(self) -> float:
        """Bytes per second that a chip can send at most, over all its links.

        A grid that is 2 long joins two chips by one link; a longer one may be closed to
        a ring, so that a chip has two.
        """
        links = sum(min(size - 1, 2) for size in self.shape)
        return links * self.chip.link

    @classmethod
    def parse(cls, name: str) -> "Topology":
        """Reads "v5e-8", "v5e:2x4" or "v5litepod-8".

        Raises:
          UserError: it is none that is known.
        """
        said = name.strip().lower().replace("v5litepod", "v5e")
        if found := re.fullmatch(r"(v\d\w?)-(\d+)", said):
            chip = CHIPS.get(found.group(1))
            if chip and (shape := chip.slices.get(int(found.group(2)))):
                return cls(chip, shape)
        elif found := re.fullmatch(r"(v\d\w?):(\d+(?:x\d+){1,2})", said):
            chip = CHIPS.get(found.group(1))
            shape = tuple(int(size) for size in found.group(2).split("x"))
            if chip and all(shape):
                rank = len(next(iter(chip.slices.values())))
                shape += (1,) * (rank - len(shape))
                if len(shape) == rank:
                    return cls(chip, shape)
        known = "; ".join(
            f"{chip.name}-" + "|".join(map(str, chip.slices)) for chip in CHIPS.values()
        )
        raise UserError(
            f"--topology={name}: no such TPU slice is known; choose one of {known} (v4 "
            "and v5p count cores, two a chip), or a grid of chips such as v5e:2x4 or "
            "v5p:2x2x4"
        )

    def devices(self) -> Sequence[jax.Device]:
        """Stand-ins for its chips, for which programs can be compiled.

        `prepare` must have been called before JAX was first used.

        Raises:
          UserError: the TPU compiler is not installed, or knows no such grid.
        """
        from jax.experimental import topologies

        # A host has 2 × 2 chips, or is a part of one that has a single chip.
        host = {"chips_per_host_bounds": (1, 1, 1)} if self.chips == 1 else {}
        cores = {"chip_config_name": "megacore"} if self.chip.cores == 2 else {}
        try:
            described = topologies.get_topology_desc(
                platform="tpu", topology_name=self.name, **host, **cores
            )
        except Exception as error:
            if not compiler_is_installed():
                raise UserError(
                    "planning needs the TPU compiler, which is not installed: "
                    "`pip install -e '.[plan]'` (it needs no TPU)"
                ) from error
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"--topology: the TPU compiler knows no {self.name} ({reason})"
            ) from error
        return described.devices


def prepare() -> None:
    """Lets the TPU compiler run where there is no TPU; to be called before JAX starts.

    JAX itself is told to stay on the CPU, and the compiler not to ask the cloud's
    metadata service what machine this is, which off the cloud takes minutes to fail.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    # Several programs may plan at once, for none of them takes hold of a TPU.
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    # Or else it says on stderr that it does not know on which machine it is.
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")
    jax.config.update("jax_platforms", "cpu")


def compiler_is_installed() -> bool:
    """Whether `libtpu` can be imported."""
    from importlib.util import find_spec

    return find_spec("libtpu") is not None

"""TPU slices by the names that they are sold under, and what their chips can do.

The name of a slice counts cores on v4, v5p and tpu7x, whose chips have two, and chips
on v5e and v6e. JAX shows a chip as one device, except on tpu7x, where each of the two
cores is a device with half of the memory. So v4-32 and v5p-32 are 16 devices, v5e-32,
v6e-32 and tpu7x-32 are 32. (cloud.google.com/tpu/docs/v4, /v5e, /v5p, /v6e, /tpu7x)

To add a TPU type: a line in `CHIPS` here, and one in `PEAK_FLOPS` of training/flops.py.
"""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import jax

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.training import flops

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One TPU chip: one JAX device, or several.

    Attributes:
      name: as in the names of slices.
      device_kind: as JAX calls it.
      memory: bytes of HBM that the compiler lets a program use on a device, from its
        message when a program is too large. The data sheets say 32 GB (v4), 16 GB
        (v5e), 95 GB (v5p), 32 GB (v6e) and 192 GB for the two of a tpu7x; the system
        uses the rest.
      bandwidth: bytes per second of a device's HBM.
      link: bytes per second of a chip's link to a neighbour, one way: the published
        bandwidth between chips, divided by the number of links and the two directions.
      cores: number of cores.
      slices: number in the name of a slice → its grid of chips.
      devices: JAX devices of a chip, which share its cores, memory and links evenly.
      inside: bytes per second from a device to the others of its chip.
    """

    name: str
    device_kind: str
    memory: float
    bandwidth: float
    link: float
    cores: int
    slices: dict[int, tuple[int, ...]]
    devices: int = 1
    inside: float = 0.0

    @property
    def peak_flops(self) -> float:
        """bfloat16 operations per second of a device."""
        peak = flops.peak_flops(self.device_kind)
        if peak is None:
            raise LookupError(f"training/flops.py has no peak of a {self.device_kind}")
        return peak

    @property
    def ridge(self) -> float:
        """Operations per byte at which HBM and arithmetic take equally long."""
        return self.peak_flops / self.bandwidth


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

# To add a TPU type, write a line below. As v6e was added, from left to right:
#
#   name         "v6e", as in "v6e-8" and in the compiler's "v6e:2x4"
#   device_kind  "TPU v6 lite": what `jax.devices()[0].device_kind` is on such a chip
#   memory       31.25 GiB: compiled a program that is too large; the error says it
#   bandwidth    1638 GB/s: "HBM bandwidth per chip" of the page named above
#   link         100 GB/s: "Bidirectional inter-chip interconnect bandwidth per chip",
#                800 GB/s, over 4 links and both directions (v5e: 400 over 4; v5p: 1200
#                over 6; v4: 50 GB/s each way in Jouppi et al. 2023, "TPU v4")
#   cores        1: the 8 in "v6e-8" counts chips; 2 where it counts cores
#   devices      1, which need not be written: JAX shows a chip as one device. On tpu7x
#                it shows two, so that memory and bandwidth are halves of 192 GB and
#                7380 GB/s; their own link, "six times faster than a 1D ICI link", is
#                `inside`
#   slices       `_PLANE`: grids of two dimensions; `_SPACE` where they have three
#
# and a line in `PEAK_FLOPS` of training/flops.py. `pytest tests/plan` checks both; with
# the `plan` extra installed, also that the compiler knows the slices by these names.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", "TPU v4", 30.75 * GIB, 1200e9, 50e9, 2, _SPACE),
        Chip("v5e", "TPU v5 lite", 15.75 * GIB, 819e9, 50e9, 1, _PLANE),
        Chip("v5p", "TPU v5", 95.74 * GIB, 2765e9, 100e9, 2, _SPACE),
        Chip("v6e", "TPU v6 lite", 31.25 * GIB, 1638e9, 100e9, 1, _PLANE),
        Chip("tpu7x", "TPU7x", 94.75 * GIB, 3690e9, 100e9, 2, _SPACE, 2, 600e9),
    )
}


@dataclass(frozen=True)
class Topology:
    """A slice: chips of one kind, in a grid.

    Attributes:
      chip: the kind of chip.
      shape: of the grid, two or three sizes.
    """

    chip: Chip
    shape: tuple[int, ...]

    @property
    def chips(self) -> int:
        """The number of chips."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """The number of JAX devices."""
        return self.chips * self.chip.devices

    @property
    def described_size(self) -> str:
        """E.g. "8 chips", or "4 chips of 2 devices"."""
        devices = f" of {self.chip.devices} devices" * (self.chip.devices > 1)
        return f"{self.chips} chips{devices}"

    @property
    def unit(self) -> str:
        """What memory, operations and bytes are counted for: a "chip" or a "device"."""
        return "chip" if self.chip.devices == 1 else "device"

    @property
    def name(self) -> str:
        """The compiler's name for it, e.g. "v5e:2x4"."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def sold_as(self) -> str:
        """The name that it is sold under, e.g. "v5e-8"; if none, the compiler's."""
        for number, shape in self.chip.slices.items():
            if shape == self.shape:
                return f"{self.chip.name}-{number}"
        return self.name

    @property
    def exchange(self) -> float:
        """The most bytes per second that a device can send, over all its links.

        Along a side of 2 chips, a chip has one link. A longer side may be closed to a
        ring, in which each chip has two.
        """
        links = sum(min(size - 1, 2) for size in self.shape)
        return links * self.chip.link / self.chip.devices + self.chip.inside

    @classmethod
    def parse(cls, name: str) -> "Topology":
        """Reads "v5e-8", "v5e:2x4" or "v5litepod-8".

        Raises:
          UserError: the name is not that of a known slice.
        """
        lowered = name.strip().lower().replace("v5litepod", "v5e")
        if found := re.fullmatch(r"(\w+)-(\d+)", lowered):
            chip = CHIPS.get(found.group(1))
            if chip and (shape := chip.slices.get(int(found.group(2)))):
                return cls(chip, shape)
        elif found := re.fullmatch(r"(\w+):(\d+(?:x\d+){1,2})", lowered):
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
            f"--topology={name}: this is not a known TPU slice; choose one of {known} "
            "(v4, v5p and tpu7x count cores, two to a chip), or a grid of chips such "
            "as v5e:2x4 or v5p:2x2x4"
        )

    def devices(
        self,
    ) -> Sequence[jax.Device]:  # pyright: ignore[reportInvalidTypeForm]: a variable
        """Descriptions of its devices, for which programs can be compiled.

        `prepare` must have been called before JAX was first used.

        Raises:
          UserError: the TPU compiler is not installed, or does not know the grid.
        """
        from jax.experimental import topologies

        # A host has 2 × 2 chips, or is a virtual machine with a single one.
        host = {"chips_per_host_bounds": (1, 1, 1)} if self.chips == 1 else {}
        merged = self.chip.cores > self.chip.devices
        cores = {"chip_config_name": "megacore"} if merged else {}
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
                f"--topology: the TPU compiler does not know {self.name} ({reason})"
            ) from error
        return described.devices


def prepare() -> None:
    """Lets the TPU compiler run on a machine without a TPU. Call it before JAX starts.

    JAX itself stays on the CPU, and the compiler does not ask the cloud's metadata
    service for the type of this machine, which outside the cloud fails after minutes.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    # Several programs may plan at the same time, because none uses a TPU.
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    # Otherwise the compiler warns on stderr that it does not know the machine.
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")
    jax.config.update("jax_platforms", "cpu")


def compiler_is_installed() -> bool:
    """Whether `libtpu` can be imported."""
    from importlib.util import find_spec

    return find_spec("libtpu") is not None

"""The least time of a program: what must be computed, moved and sent, at full rate.

Three things must happen, each at the published rate or slower (Williams et al.
2009, "Roofline", with the exchange as a third roof). The longest of them is a lower
bound of the time:

    compute     operations of the program ÷ bfloat16 operations per second
    memory      bytes that it moves to and from HBM ÷ bandwidth of HBM
    exchange    bytes that a device must send ÷ bandwidth of all its links
"""

from dataclasses import dataclass

from musilingo_jax.plan.program_costs import ProgramCosts
from musilingo_jax.plan.tpu_slices import Topology


@dataclass(frozen=True)
class Roofline:
    """Lower bounds for one run of a program on a slice.

    Attributes:
      costs: of the program, per device.
      topology: the slice.
    """

    costs: ProgramCosts
    topology: Topology

    @property
    def sent(self) -> float:
        """Bytes that a device sends."""
        return sum(exchange.bytes for exchange in self.costs.exchanges)

    @property
    def seconds(self) -> dict[str, float]:
        """The least time for each of compute, memory and exchange."""
        chip = self.topology.chip
        return {
            "compute": self.costs.flops / chip.peak_flops,
            "memory": self.costs.traffic / chip.bandwidth,
            "exchange": self.sent / self.topology.exchange if self.sent else 0.0,
        }

    @property
    def bound(self) -> str:
        """What takes longest: a key of `seconds`."""
        seconds = self.seconds
        return max(seconds, key=lambda part: seconds[part])

    @property
    def least_seconds(self) -> float:
        """The lower bound: the three at the same time."""
        return max(self.seconds.values())

    @property
    def apart_seconds(self) -> float:
        """The three one after another, at the same rates."""
        return sum(self.seconds.values())

    @property
    def intensity(self) -> float:
        """Operations per byte to or from HBM; from its `ridge` on, a device is busy."""
        return self.costs.flops / self.costs.traffic

"""One more token in each row: an iteration of `decoding.decode`, at full size."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from musilingo_jax.answering.decoding import decode
from musilingo_jax.answering.padded_prompts import round_up
from musilingo_jax.models import cached_attention
from musilingo_jax.plan.answerer import AbstractAnswerer, answer_memory, read_weights
from musilingo_jax.plan.job import Lowered, held
from musilingo_jax.plan.program_costs import ProgramCosts
from musilingo_jax.plan.tpu_slices import Topology
from musilingo_jax.runtime.sharding import make_mesh, replicated, row_shares


@dataclass(frozen=True)
class DecodeJob:
    """A step of decoding; a `Job`. All rows are live, and their caches full.

    Attributes:
      answerer: the model.
      batch: rows that are decoded together.
      context: slots of each row's cache.
      mesh: sizes of the axes, none of them −1.
      topology: the slice.
    """

    answerer: AbstractAnswerer
    batch: int
    context: int
    mesh: Mapping[str, int]
    topology: Topology

    program = "decode"
    run = "step"
    is_loop = True

    @property
    def weights(self) -> str:
        """The type of the frozen weights."""
        return self.answerer.weights

    @property
    def rows(self) -> int:
        """Rows, with those that make them divisible over the devices."""
        return round_up(self.batch, row_shares(self.mesh))

    @property
    def size(self) -> str:
        """E.g. "64 rows of 1,280"."""
        return f"{self.rows} rows of {self.context:,}"

    @property
    def model_flops(self) -> float:
        """Operations of a step."""
        return self.answerer.model_flops(
            tokens=self.rows, pairs=self.rows * self.context, scored=self.rows
        )

    def lower(self, mesh: Mesh) -> Lowered:
        """The loop; see `Job.lower`."""
        reader = self.answerer.reader(mesh)
        rows = self.answerer.rows(mesh, rows=self.rows, slots=self.context)
        number = jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated(mesh))
        rule = self.answerer.rule(mesh)
        return Lowered(
            program=decode.lower(reader, rule, rows, number, number),
            memory=answer_memory(reader, rows),
            idle={"adapter": held(reader.bridge)},
        )

    def heading(self) -> list[str]:
        """The model, and the rows."""
        return [
            self.answerer.shapes.heading(self.weights),
            f"  step              a token in each of {self.rows} rows, whose caches "
            f"of {self.context:,} slots are full",
        ]

    def to_dict(self) -> dict[str, Any]:
        """The rows and their caches."""
        sizes = {"batch": self.rows, "context": self.context}
        return sizes | self.answerer.to_dict()

    def figures(
        self, costs: ProgramCosts, memory: Mapping[str, float], seconds: float
    ) -> dict[str, float]:
        """Tokens per second, and the bytes of a step against those that it needs.

        The bytes twice: of full caches, and of rows whose texts have 1 to `context`
        tokens, evenly spread, of which only the text is needed.
        """
        devices = self.topology.devices()
        reader = self.answerer.reader(make_mesh(**self.mesh, devices=devices))
        read, cache = read_weights(reader.llama), memory["cache"]
        ends = np.linspace(0, self.context - 1, self.rows, dtype=np.int32)
        slots = self.rows * self.context
        spared = 0.0
        if any(kernel.name == cached_attention.NAME for kernel in costs.kernels):
            spared = 1 - cached_attention.slots_read(ends, slots=self.context) / slots
        ragged = read + cache * (ends + 1).sum() / slots
        return {
            "tokens_per_second": self.rows / seconds,
            "needed_bytes": read + cache,
            "bytes_over_needed": costs.traffic / (read + cache),
            "ragged_bytes_over_needed": (costs.traffic - spared * cache) / ragged,
        }

    def summary(self, figures: Mapping[str, float]) -> str:
        """Tokens per second, and the bytes of a step against those that it needs."""
        return (
            f"{figures['tokens_per_second']:,.0f} tokens/s; bytes "
            f"{figures['bytes_over_needed']:.2f} × (weights + cache), of rows of 1 to "
            f"{self.context:,} tokens {figures['ragged_bytes_over_needed']:.2f} ×"
        )

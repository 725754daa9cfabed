"""A batch of prompts is read into a cache: `decoding.admit`, at full size."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import DTypeLike

from musilingo_jax.answering.decoding import Admission, admit
from musilingo_jax.answering.padded_prompts import PaddedPrompts, round_up
from musilingo_jax.plan.answerer import AbstractAnswerer, answer_memory
from musilingo_jax.plan.job import Lowered, held
from musilingo_jax.plan.program_costs import ProgramCosts
from musilingo_jax.plan.tpu_slices import Topology
from musilingo_jax.runtime.sharding import batch_sharding, replicated, row_shares

PREFIX_SLOTS = 16
"""Tokens of a prompt that were read before, with others that begin alike: the least."""


@dataclass(frozen=True)
class ReadJob:
    """Prompts to read; a `Job`.

    Attributes:
      answerer: the model.
      batch: prompts that are read together, each into a row of its own.
      length: tokens of each, audio included, besides `PREFIX_SLOTS`.
      windows: audio vectors of each.
      context: slots of each row's cache.
      mesh: sizes of the axes, none of them −1.
      topology: the slice.
    """

    answerer: AbstractAnswerer
    batch: int
    length: int
    windows: int
    context: int
    mesh: Mapping[str, int]
    topology: Topology

    program = "read"
    run = "batch"
    is_loop = False

    @property
    def weights(self) -> str:
        """The type of the frozen weights."""
        return self.answerer.weights

    @property
    def rows(self) -> int:
        """Prompts, with those that make them divisible over the devices."""
        return round_up(self.batch, row_shares(self.mesh))

    @property
    def tokens(self) -> int:
        """Tokens that are read."""
        return self.rows * self.length

    @property
    def size(self) -> str:
        """E.g. "8 prompts of 960"."""
        return f"{self.rows} prompts of {self.length:,}"

    @property
    def model_flops(self) -> float:
        """Operations of a batch; a token attends to those before it, and itself."""
        before = PREFIX_SLOTS + (self.length + 1) / 2
        return self.answerer.model_flops(
            tokens=self.tokens, pairs=round(self.tokens * before), scored=self.rows
        )

    def lower(self, mesh: Mesh) -> Lowered:
        """The batch; see `Job.lower`."""
        reader = self.answerer.reader(mesh)
        rows = self.answerer.rows(mesh, rows=self.rows, slots=self.context)
        bank = self.answerer.cache(
            mesh, rows=self.rows, slots=PREFIX_SLOTS, spread=False
        )
        admission = self._admission(mesh)
        program = admit.lower(reader, self.answerer.rule(mesh), rows, bank, admission)
        memory = {
            **answer_memory(reader, rows),
            "bank": held(bank),
            "batch": held(admission),
            "adapter": held(reader.bridge),
        }
        return Lowered(program, memory)

    def _admission(self, mesh: Mesh) -> Admission:
        def array(dtype: DTypeLike, *tail: int, spread: bool = True) -> Any:
            place = batch_sharding(mesh) if spread else replicated(mesh)
            return jax.ShapeDtypeStruct(
                (self.rows, *tail), jnp.dtype(dtype), sharding=place
            )

        width = self.answerer.shapes.encoder_width
        return Admission(
            prompts=PaddedPrompts(
                features=array(jnp.float32, self.windows, width),
                tokens=array(jnp.int32, self.length),
                audio_slot=array(jnp.int32, self.length),
                lengths=array(jnp.int32),
            ),
            prefixes=array(jnp.int32, spread=False),
            held=None,
            places=array(jnp.int32, spread=False),
            seeds=array(jnp.uint32, spread=False),
            limits=array(jnp.int32, spread=False),
            stop_states=array(jnp.int32, spread=False),
        )

    def heading(self) -> list[str]:
        """The model, and the prompts."""
        return [
            self.answerer.shapes.heading(self.weights),
            f"  batch             {self.rows} prompts of {self.length:,} tokens, "
            f"{self.windows} of them audio, behind {PREFIX_SLOTS} that were read "
            f"before; caches of {self.context:,} slots",
        ]

    def to_dict(self) -> dict[str, Any]:
        """The prompts and their caches."""
        return {
            "batch": self.rows,
            "length": self.length,
            "windows": self.windows,
            "context": self.context,
        } | self.answerer.to_dict()

    def figures(
        self, costs: ProgramCosts, memory: Mapping[str, float], seconds: float
    ) -> dict[str, float]:
        """Tokens per second."""
        return {"tokens_per_second": self.tokens / seconds}

    def summary(self, figures: Mapping[str, float]) -> str:
        """Tokens per second."""
        return f"{figures['tokens_per_second']:,.0f} tokens/s"

"""The update to plan: its stage, its rows, and the chips that it is to run on."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from musilingo_jax.plan.model_shapes import Shapes
from musilingo_jax.plan.tpu_slices import Topology
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.sharding import make_mesh
from musilingo_jax.training import flops
from musilingo_jax.training.packing import RowShape
from musilingo_jax.training.stage_config import StageConfig


@dataclass(frozen=True)
class Job:
    """An update to compile.

    Attributes:
      name: of the stage, for messages.
      stage: its configuration.
      row: size of a row of tokens.
      shapes: of the models.
      dtype: of the frozen weights.
      quantization: of the frozen weights; "" for none.
      mesh: sizes of the axes, none of them −1.
      topology: the slice.
    """

    name: str
    stage: StageConfig
    row: RowShape
    shapes: Shapes
    dtype: str
    quantization: str
    mesh: Mapping[str, int]
    topology: Topology

    @property
    def rows(self) -> int:
        """Rows of tokens in an update."""
        return self.stage.rows * self.stage.accumulate

    @property
    def tokens(self) -> int:
        """Positions for tokens in an update."""
        return self.rows * self.row.length

    @property
    def model_flops(self) -> float:
        """Model FLOPs of an update on all chips, its rows full of equal examples."""
        examples = self.stage.batch_size * self.stage.accumulate
        length = self.tokens / examples
        return self.step_flops(attended=examples * length * (length + 1) / 2)

    def step_flops(self, *, attended: float) -> float:
        """Model FLOPs with `attended` pairs of attention; see `flops.step_flops`."""
        return flops.step_flops(
            self.shapes.language_model,
            encoder_width=self.shapes.encoder_width,
            windows=self.rows * self.row.windows,
            tokens=self.tokens,
            targets=self.rows * self.row.answers,
            attended=attended,
        )


def largest_row(stage: StageConfig) -> RowShape:
    """The largest row of tokens that a batch of the stage can have.

    Lengths depend on the data, but a row is never longer than the number of examples
    that share it, times the longest example.
    """
    examples = -(-stage.batch_size // stage.rows)
    answer = min(stage.prompt.max_answer_tokens, stage.max_tokens)
    return RowShape(
        length=examples * stage.max_tokens,
        windows=examples * stage.max_windows,
        answers=examples * answer,
    ).rounded()


def mesh_sizes(mesh: Mapping[str, int], topology: Topology) -> dict[str, int]:
    """The sizes of a config's mesh on a topology, with −1 resolved.

    Raises:
      UserError: the mesh does not use all chips.
    """
    sizes = dict(make_mesh(**mesh, devices=topology.devices()).shape)
    if math.prod(sizes.values()) != topology.chips:
        asked = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
        raise UserError(
            f"mesh {asked}: {topology.sold_as} has {topology.chips} chips; make the "
            "product of the sizes as many, or one of them -1"
        )
    return sizes


def resized(
    job: Job, *, mesh: Mapping[str, int], accumulate: int, examples_per_row: int
) -> Job:
    """The same update of the same examples, split into other batches and rows.

    Args:
      job: the update.
      mesh: sizes of the axes.
      accumulate: batches per update, a divisor of its examples.
      examples_per_row: a divisor of a batch's examples.
    """
    stage, row = job.stage, job.row
    batch_size = stage.batch_size * stage.accumulate // accumulate
    before = -(-stage.batch_size // stage.rows)

    def scaled(size: int) -> int:
        return -(-size * examples_per_row // before)

    return replace(
        job,
        mesh=mesh,
        stage=replace(
            stage,
            batch_size=batch_size,
            accumulate=accumulate,
            rows=batch_size // examples_per_row,
        ),
        row=RowShape(
            length=scaled(row.length),
            windows=scaled(row.windows),
            answers=scaled(row.answers),
        ).rounded(),
    )

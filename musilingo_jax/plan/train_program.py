"""An update of what learns: `train_step.make_update`, at full size."""

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import AbstractMesh, Mesh
from ml_collections import ConfigDict

from musilingo_jax.models.answer_loss import Batch
from musilingo_jax.models.lora import MapSizes, Tuning
from musilingo_jax.models.parts import Parts, divided
from musilingo_jax.plan.job import Lowered, held
from musilingo_jax.plan.model_shapes import Shapes
from musilingo_jax.plan.program_costs import ProgramCosts
from musilingo_jax.plan.tpu_slices import Topology
from musilingo_jax.pretrained import weights
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.sharding import placed
from musilingo_jax.training import flops, starting
from musilingo_jax.training.packing import RowShape
from musilingo_jax.training.stage_config import StageConfig
from musilingo_jax.training.train_step import (
    TrainState,
    abstract_batch,
    abstract_state,
    make_update,
)


@dataclass(frozen=True)
class TrainJob:
    """An update to compile; a `Job`.

    Attributes:
      name: of the stage, for messages.
      stage: its configuration.
      row: size of a row of tokens.
      shapes: of the models.
      dtype: of the frozen weights.
      quantization: of the frozen weights; "" for none.
      mesh: sizes of the axes, none of them −1.
      topology: the slice.
      bridge: the section `bridge` of the config; None if it has none.
    """

    name: str
    stage: StageConfig
    row: RowShape
    shapes: Shapes
    dtype: str
    quantization: str
    mesh: Mapping[str, int]
    topology: Topology
    bridge: Mapping[str, Any] | None = None

    program = "train"
    run = "update"
    is_loop = False

    @property
    def weights(self) -> str:
        """The type of the frozen weights."""
        return self.quantization or self.dtype

    @property
    def rows(self) -> int:
        """Rows of tokens in an update."""
        return self.stage.rows * self.stage.accumulate

    @property
    def tokens(self) -> int:
        """Positions for tokens in an update."""
        return self.rows * self.row.length

    @property
    def size(self) -> str:
        """E.g. "8 × 4 rows of 1,024": 4 batches of 8 rows of 1,024 tokens."""
        stage = self.stage
        rows = f"{stage.rows} × {stage.accumulate} rows of {self.row.length:,}"
        return f"{rows}, remat {stage.remat}"

    @property
    def model_flops(self) -> float:
        """Model FLOPs of an update on all chips, its rows full of equal examples."""
        examples = self.stage.batch_size * self.stage.accumulate
        length = self.tokens / examples
        return self.step_flops(attended=examples * length * (length + 1) / 2)

    def step_flops(self, *, attended: float) -> float:
        """Model FLOPs with `attended` pairs of attention; see `flops.step_flops`."""
        stage = self.stage
        multiplied = flops.Multiplied.by(
            self._parts(),
            bridge_learns=stage.learns_bridge,
            layers_learn=stage.learns_layers,
        )
        return flops.step_flops(
            self.shapes.language_model,
            multiplied,
            examples=stage.batch_size * stage.accumulate,
            windows=self.rows * self.row.windows,
            tokens=self.tokens,
            targets=self.rows * self.row.answers,
            attended=attended,
        )

    def lower(self, mesh: Mesh) -> Lowered:
        """The update; see `Job.lower`."""
        self.stage.check_rows(self.name, mesh)
        state, frozen, batch = self.arguments(mesh)
        placement = jax.tree.map(lambda leaf: leaf.sharding, state)
        update = make_update(self.stage, self.stage.optimiser(), placement)
        # The type of an update does not say that it is jitted.
        jitted: Any = update
        return Lowered(
            program=jitted.lower(state, frozen, batch),
            memory={
                "weights": held(frozen),
                "adapter": held(state.learning),
                "optimiser": held(state.optimiser),
                "batch": held(batch),
            },
        )

    @property
    def _described(self) -> ConfigDict:
        """The config's section `bridge`, alone."""
        return ConfigDict({starting.BRIDGE: dict(self.bridge or {})})

    @property
    def _adds(self) -> bool:
        """Whether the bridge adds to the layers, and puts nothing into the text."""
        return not starting.described(self._described).splices

    def _parts(self) -> Parts:
        """Bridge and what is trained beside the weights, as shapes.

        Raises:
          UserError: the bridge does not fit the models.
        """
        shapes, stage = self.shapes, self.stage
        if self._adds and not shapes.encoder_states:
            raise UserError(
                "--encoder_width does not say how many states the encoder has, which "
                "config.bridge needs: leave it out, or name an encoder"
            )
        rows = shapes.encoder_states if self._adds else self.row.windows
        make = starting.random_bridge(
            self._described, (rows, shapes.encoder_width), shapes.language_model
        )
        parts = Parts(bridge=jax.eval_shape(lambda: make(rngs=nnx.Rngs(0))))
        if not stage.tuning.anything:
            return parts
        fresh = functools.partial(
            Tuning.fresh, MapSizes.of(shapes.language_model), stage.tuning
        )
        tuning = jax.eval_shape(lambda: fresh(rngs=nnx.Rngs(0)))
        return replace(parts, tuning=tuning)

    def arguments(self, mesh: Mesh | AbstractMesh) -> tuple[TrainState, Parts, Batch]:
        """State, frozen parts and batch of an update, as shapes and shardings.

        Raises:
          UserError: the bridge does not fit the models.
        """
        parts = self._parts()
        learning = parts.only(*self.stage.learns)
        frozen = placed(parts.without(*self.stage.learns), mesh)
        llama = weights.abstract_language_model(
            self.shapes.language_model,
            dtype=self.dtype,
            quantization=self.quantization,
            mesh=mesh,
        )
        if self.stage.learns_layers:
            layers, llama = divided(llama)
            learning = replace(learning, llama=_in_float32(layers))
        state = abstract_state(self.stage.optimiser(), learning, mesh)
        batch = abstract_batch(
            self.stage, width=self.shapes.encoder_width, mesh=mesh, **asdict(self.row)
        )
        return state, replace(frozen, llama=llama), batch

    def heading(self) -> list[str]:
        """The model, and the rows of an update."""
        stage, row = self.stage, self.row
        audio = "" if self._adds else f"{row.windows} of them audio, "
        return [
            self.shapes.heading(self.weights),
            f"  update of {self.name}  {stage.batch_size * stage.accumulate} examples "
            f"in {stage.accumulate} × {stage.rows} rows of {row.length:,} tokens, "
            f"{audio}{row.answers} of answers",
        ]

    def to_dict(self) -> dict[str, Any]:
        """The stage, its batch and its rows."""
        return {
            "stage": self.name,
            "batch_size": self.stage.batch_size,
            "rows": self.stage.rows,
            "accumulate": self.stage.accumulate,
            "remat": self.stage.remat,
            "query_block": self.stage.query_block,
            "key_block": self.stage.key_block,
            "row": asdict(self.row),
            "dtype": self.dtype,
            "quantization": self.quantization,
        }

    def figures(
        self, costs: ProgramCosts, memory: Mapping[str, float], seconds: float
    ) -> dict[str, float]:
        """Tokens per second."""
        return {"tokens_per_second": self.tokens / seconds}

    def summary(self, figures: Mapping[str, float]) -> str:
        """Tokens per second."""
        return f"{figures['tokens_per_second']:,.0f} tokens/s"


def _in_float32(tree: Any) -> Any:
    """An abstract tree with other types."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32), tree
    )


def largest_row(stage: StageConfig, *, states: int = 0) -> RowShape:
    """The largest row of tokens that a batch of the stage can have.

    Lengths depend on the data, but a row is never longer than the number of examples
    that share it, times the longest example.

    Args:
      stage: its settings.
      states: of the encoder, of which a bridge that adds reads all; 0 for a bridge that
        splices windows.
    """
    examples = -(-stage.batch_size // stage.rows)
    answer = min(stage.prompt.max_answer_tokens, stage.max_tokens)
    return RowShape(
        length=examples * stage.max_tokens,
        windows=examples * (states or stage.max_windows),
        answers=examples * answer,
    ).rounded()


def resized(
    job: TrainJob, *, mesh: Mapping[str, int], accumulate: int, examples_per_row: int
) -> TrainJob:
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

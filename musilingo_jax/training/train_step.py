"""One update of the adapter: what it changes, what it computes, what it tells.

Nothing here knows of files, songs or processes: `train.py` runs it, `plan.py` compiles
it for machines that are not there.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from musilingo_jax.models.adapter import Adapter
from musilingo_jax.models.llama import Llama
from musilingo_jax.models.musilingo import Batch, answer_loss
from musilingo_jax.runtime.sharding import batch_sharding
from musilingo_jax.training.stage_config import StageConfig


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """The state of the training loop.

    Attributes:
      adapter: what learns, in float32.
      optimiser: AdamW's moments, shaped and sharded like the adapter, and its count.
    """

    adapter: Adapter
    optimiser: optax.OptState


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StepReport:
    """What an update tells of itself.

    Attributes:
      loss: float32[], nats per target token, before the update.
      gradient_norm: float32[].
      finite: bool[], whether the new adapter and its moments are all numbers.
    """

    loss: jax.Array
    gradient_norm: jax.Array
    finite: jax.Array


def make_update(
    stage: StageConfig, optimiser: optax.GradientTransformation, placement: TrainState
) -> Callable[[TrainState, Llama, Batch], tuple[TrainState, StepReport]]:
    """Compiles one update of the adapter; the old state's memory holds the new one.

    The loss is the cross entropy of all target tokens of the update, summed and then
    divided by their number, whatever device or accumulated batch they are in. So 2
    batches of 8 give the same gradient as 1 of 16, and a long answer counts for more
    than a short one, as it would in one batch.
    """

    def split(array: jax.Array) -> jax.Array:
        """[rows, …] → [accumulate, rows, …], neighbours in different batches.

        A device's rows stay on it: of rows a b c d | e f g h on two devices,
        accumulate = 2 makes the batches a c | e g and b d | f h.
        """
        parts = array.reshape(stage.rows, stage.accumulate, *array.shape[1:])
        return parts.swapaxes(0, 1)

    def loss_of(
        adapter: Adapter, llama: Llama, batch: Batch
    ) -> tuple[jax.Array, jax.Array]:
        return answer_loss(adapter, llama, batch, remat=stage.remat)

    @functools.partial(jax.jit, donate_argnums=0, out_shardings=(placement, None))
    def update(
        state: TrainState, llama: Llama, batch: Batch
    ) -> tuple[TrainState, StepReport]:
        def add(total, part):
            (loss, count), gradient = jax.value_and_grad(loss_of, has_aux=True)(
                state.adapter, llama, part
            )
            return jax.tree.map(jnp.add, total, (loss, count, gradient)), None

        zeros = jax.tree.map(jnp.zeros_like, state.adapter)
        none = (jnp.zeros(()), jnp.zeros((), jnp.int32), zeros)
        (loss, count, gradient), _ = jax.lax.scan(add, none, jax.tree.map(split, batch))
        gradient = jax.tree.map(lambda total: total / count, gradient)
        change, moments = optimiser.update(gradient, state.optimiser, state.adapter)
        adapter = optax.apply_updates(state.adapter, change)
        new = TrainState(adapter=adapter, optimiser=moments)
        report = StepReport(
            loss=loss / count,
            gradient_norm=optax.tree.norm(gradient),
            finite=jnp.all(
                jnp.asarray([jnp.isfinite(x).all() for x in jax.tree.leaves(new)])
            ),
        )
        return new, report

    return update


def make_validation(
    stage: StageConfig,
) -> Callable[[Adapter, Llama, Batch], tuple[jax.Array, jax.Array]]:
    """Compiles a look at a batch: the loss summed over its target tokens, their count.

    So that batches can be added up before dividing, as in the update.
    """

    @jax.jit
    def look(
        adapter: Adapter, llama: Llama, batch: Batch
    ) -> tuple[jax.Array, jax.Array]:
        return answer_loss(adapter, llama, batch, remat=stage.remat)

    return look


def abstract_batch(
    stage: StageConfig,
    *,
    width: int,
    mesh: Mesh,
    length: int,
    windows: int,
    answers: int,
) -> Batch:
    """The shapes and shardings of what an update reads, to compile it without data.

    Args:
      stage: says how many rows there are.
      width: of the encoder's features.
      mesh: where the batch would go.
      length: tokens per row, audio included.
      windows: audio vectors per row.
      answers: tokens to be said per row.
    """
    rows, sharding = stage.rows * stage.accumulate, batch_sharding(mesh)

    def array(dtype: jnp.dtype, *tail: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *tail), dtype, sharding=sharding)

    return Batch(
        features=array(jnp.float32, windows, width),
        tokens=array(jnp.int32, length),
        audio_slot=array(jnp.int32, length),
        segments=array(jnp.int32, length),
        positions=array(jnp.int32, length),
        targets=array(jnp.int32, answers),
    )

"""One update of what learns: its state, its program and its report.

Nothing here knows of files, songs or processes: `train.py` runs the program, and
`plan/` compiles it for machines that it does not run on.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AbstractMesh, Mesh
from jaxtyping import Array, Bool, Float, Int

from musilingo_jax.models.answer_loss import Batch, answer_loss
from musilingo_jax.models.parts import Parts
from musilingo_jax.runtime.sharding import batch_sharding, placed
from musilingo_jax.training.stage_config import StageConfig


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """The state of the training loop.

    Attributes:
      learning: the parts that learn, in float32.
      optimiser: AdamW's moments, shaped and sharded like what learns, and its counts.
    """

    learning: Parts
    optimiser: optax.OptState

    def stored(self) -> Any:
        """The tree that a checkpoint holds.

        Where the bridge alone learns, it is called the adapter, as it was when nothing
        else could learn.
        """
        learning = self.learning
        if learning.llama is not None or learning.tuning is not None:
            return self
        optimiser = jax.tree.map(
            lambda node: node.bridge if isinstance(node, Parts) else node,
            self.optimiser,
            is_leaf=lambda node: isinstance(node, Parts),
        )
        return {"adapter": learning.bridge, "optimiser": optimiser}

    def from_stored(self, tree: Any) -> "TrainState":
        """The state whose `stored` is `tree`, with the structure of this one."""
        return jax.tree.unflatten(jax.tree.structure(self), jax.tree.leaves(tree))


def fresh_state(optimiser: optax.GradientTransformation, learning: Parts) -> TrainState:
    """The state before the first update."""
    # Optax takes any pytree, but its annotations know containers of arrays only.
    parameters: Any = learning
    return TrainState(learning=learning, optimiser=optimiser.init(parameters))


def abstract_state(
    optimiser: optax.GradientTransformation,
    learning: Parts,
    mesh: Mesh | AbstractMesh,
) -> TrainState:
    """The state's shapes, types and shardings, as `jax.ShapeDtypeStruct`s."""
    fresh = functools.partial(fresh_state, optimiser)
    return placed(jax.eval_shape(fresh, learning), mesh)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StepReport:
    """What an update returns besides the new state.

    Attributes:
      loss: nats per target token, before the update.
      gradient_norm: Euclidean norm of the gradient.
      finite: whether the new state contains neither NaN nor infinity.
    """

    loss: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    finite: Bool[Array, ""]


Update = Callable[[TrainState, Parts, Batch], tuple[TrainState, StepReport]]
BatchLoss = Callable[[Parts, Parts, Batch], tuple[Float[Array, ""], Int[Array, ""]]]


def make_update(
    stage: StageConfig, optimiser: optax.GradientTransformation, placement: TrainState
) -> Update:
    """Compiles one update of what learns. It donates the memory of the old state.

    The loss is the cross entropy of all target tokens of the update, summed and then
    divided by their number, whichever device or accumulated batch they are in. So 2
    batches of 8 give the same gradient as 1 of 16, and a long answer weighs more than
    a short one, as it does within a batch.

    Args:
      stage: its settings.
      optimiser: of what learns.
      placement: a sharding for each array of the state.
    """

    def split(array: jax.Array) -> jax.Array:
        """[rows, …] → [accumulate, rows, …], with neighbours in different batches.

        Each row stays on its device. Of the rows a b c d | e f g h on two devices,
        accumulate = 2 makes the batches a c | e g and b d | f h.
        """
        parts = array.reshape(stage.rows, stage.accumulate, *array.shape[1:])
        return parts.swapaxes(0, 1)

    def loss_of(
        learning: Parts, frozen: Parts, batch: Batch
    ) -> tuple[jax.Array, jax.Array]:
        return answer_loss(
            learning, frozen, batch, remat=stage.remat, blocks=stage.blocks
        )

    @functools.partial(jax.jit, donate_argnums=0, out_shardings=(placement, None))
    def update(
        state: TrainState, frozen: Parts, batch: Batch
    ) -> tuple[TrainState, StepReport]:
        def add(total: Any, part: Batch) -> tuple[Any, None]:
            (loss, count), gradient = jax.value_and_grad(loss_of, has_aux=True)(
                state.learning, frozen, part
            )
            return jax.tree.map(jnp.add, total, (loss, count, gradient)), None

        # Optax takes any pytree, but its annotations know containers of arrays only.
        old: Any = state.learning
        zeros = jax.tree.map(jnp.zeros_like, old)
        none = (jnp.zeros(()), jnp.zeros((), jnp.int32), zeros)
        (loss, count, gradient), _ = jax.lax.scan(add, none, jax.tree.map(split, batch))
        gradient = jax.tree.map(lambda total: total / count, gradient)
        change, moments = optimiser.update(gradient, state.optimiser, old)
        learning: Any = optax.apply_updates(old, change)
        new = TrainState(learning=learning, optimiser=moments)
        report = StepReport(
            loss=loss / count,
            gradient_norm=optax.tree.norm(gradient),
            finite=jnp.all(
                jnp.asarray([jnp.isfinite(x).all() for x in jax.tree.leaves(new)])
            ),
        )
        return new, report

    return update


def make_validation(stage: StageConfig) -> BatchLoss:
    """Compiles the loss of a batch: summed over its target tokens, and their number.

    Sums, so that batches can be added up before dividing, as in the update.
    """

    @jax.jit
    def batch_loss(
        learning: Parts, frozen: Parts, batch: Batch
    ) -> tuple[jax.Array, jax.Array]:
        return answer_loss(
            learning, frozen, batch, remat=stage.remat, blocks=stage.blocks
        )

    return batch_loss


def mean_loss(
    batch_loss: BatchLoss, learning: Parts, frozen: Parts, batches: Iterable[Batch]
) -> float:
    """Nats per target token, over all examples of the batches together."""
    # All are started before the first is waited for.
    started = [batch_loss(learning, frozen, batch) for batch in batches]
    sums, counts = zip(*jax.device_get(started), strict=True)
    return float(np.sum(sums, dtype=np.float64) / np.sum(counts))


def abstract_batch(
    stage: StageConfig,
    *,
    width: int,
    mesh: Mesh | AbstractMesh,
    length: int,
    windows: int,
    answers: int,
) -> Batch:
    """The shapes and shardings of an update's batch, to compile it without data.

    Args:
      stage: its settings, which give the number of rows.
      width: of the encoder's features.
      mesh: that the batch would be put on.
      length: tokens per row, audio included.
      windows: audio vectors per row.
      answers: target tokens per row.

    Returns:
      A batch of `jax.ShapeDtypeStruct`s.
    """
    rows, sharding = stage.rows * stage.accumulate, batch_sharding(mesh)

    def array(dtype: Any, *tail: int) -> Any:
        return jax.ShapeDtypeStruct((rows, *tail), dtype, sharding=sharding)

    return Batch(
        features=array(jnp.float32, windows, width),
        tokens=array(jnp.int32, length),
        audio_slot=array(jnp.int32, length),
        segments=array(jnp.int32, length),
        positions=array(jnp.int32, length),
        targets=array(jnp.int32, answers),
    )

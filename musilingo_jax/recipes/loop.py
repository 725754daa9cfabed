"""The loop that trains the encoder and the language model: resume, report, save.

The step number is the whole data state: the batch of update `i` is a pure function of
`i`. So a training that is stopped at any moment and started again ends with the same
bits as one that was not.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import jax
import optax
from flax import nnx

from musilingo_jax.runtime import cli
from musilingo_jax.training.checkpoints import Checkpoints

Model = TypeVar("Model", bound=nnx.Module)

SHOW_EVERY = 20  # updates between two looks at the loss, for which the loop must wait


def train(
    model: Model,
    loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]],
    batch: Callable[[int], tuple],
    *,
    optimiser: optax.GradientTransformation,
    steps: int,
    checkpoint_every: int,
    folder: Path,
    settings: dict[str, Any],
    label: str,
    examine: Callable[[Model], Mapping[str, Mapping[str, float]]],
) -> Model:
    """Makes the updates that the newest checkpoint in `folder` has not seen.

    Args:
      model: all of it learns.
      loss: (model, *batch) → the loss and other numbers to show, by name.
      batch: the number of an update, counted from 0 → the other arguments of `loss`.
      optimiser: gradients → updates.
      steps: updates in all.
      checkpoint_every: updates between checkpoints; there is one at the end, too.
      folder: of the checkpoints.
      settings: what the training depends on, to be saved with each checkpoint.
      label: what to call the training.
      examine: measures the model at each checkpoint; what is measured → name → value.

    Returns:
      The model after the last update.
    """

    @functools.partial(jax.jit, donate_argnums=0)
    def update(state, *batch):
        model, moments = state
        (value, numbers), gradient = jax.value_and_grad(loss, has_aux=True)(
            model, *batch
        )
        updates, moments = optimiser.update(gradient, moments, model)
        return (optax.apply_updates(model, updates), moments), value, numbers

    with Checkpoints(folder, keep=1) as saved:
        done, state = newest(saved, (model, jax.jit(optimiser.init)(model)))
        with cli.progress(total=steps, initial=done, unit="step", label=label) as bar:
            for index, made in enumerate(_ahead(batch, done, steps), done):
                state, value, numbers = update(state, *made)
                bar.update()
                if index % SHOW_EVERY == 0:
                    shown: dict[str, Any] = {"loss": f"{float(value):.3f}"}
                    shown |= {name: f"{float(x):.2f}" for name, x in numbers.items()}
                    bar.set_postfix(shown)
                done = index + 1
                if done % checkpoint_every == 0 or done == steps:
                    saved.save(done, state, settings, validation=None)
                    bar.write(f"{label} step {done}: loss {float(value):.4f}")
                    for name, measured in examine(state[0]).items():
                        text = "  ".join(
                            f"{key} {x:.3f}" for key, x in measured.items()
                        )
                        bar.write(f"{label} step {done}, {name}: {text}")
    return state[0]


def _ahead(batch: Callable[[int], tuple], begin: int, end: int) -> Iterator[tuple]:
    """The batches of updates, each made while the one before is learnt from."""
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(batch, begin) if begin < end else None
        for index in range(begin, end):
            assert following is not None
            made = following.result()
            if index + 1 < end:
                following = thread.submit(batch, index + 1)
            yield made


def newest(saved: Checkpoints, state: Any) -> tuple[int, Any]:
    """The updates that the newest checkpoint has seen, and its state.

    Args:
      saved: where to look.
      state: the state before the first update, a pytree of arrays; it is returned, with
        0, if there is no checkpoint.
    """
    step = saved.latest()
    if step is None:
        return 0, state
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    return step, saved.restore(step, like)


def adamw(
    *,
    learning_rate: float,
    final_learning_rate: float,
    warmup_steps: int,
    steps: int,
    weight_decay: float,
    gradient_norm: float,
) -> optax.GradientTransformation:
    """AdamW after clipped gradients; a linear warm-up from 0, then a cosine.

    Args:
      learning_rate: the highest.
      final_learning_rate: the one after the last update.
      warmup_steps: updates until the highest.
      steps: updates in all.
      weight_decay: of matrices; vectors do not decay.
      gradient_norm: the global norm to which gradients are clipped.
    """
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, warmup_steps, steps, end_value=final_learning_rate
    )
    return optax.chain(
        optax.clip_by_global_norm(gradient_norm),
        optax.adamw(
            schedule,
            b2=0.98,
            weight_decay=weight_decay,
            mask=functools.partial(jax.tree.map, lambda x: x.ndim > 1),
        ),
    )

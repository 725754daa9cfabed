"""The loop that both learners share: what it visits, keeps, resumes and prints."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from musilingo_jax.recipes import loop
from musilingo_jax.runtime.errors import UserError

STEPS = 12
pytestmark = pytest.mark.usefixtures("quick_to_compile")


class Line(nnx.Module):
    """A line through points."""

    def __init__(self):
        self.kernel = nnx.Param(jnp.zeros((2, 1)))
        self.bias = nnx.Param(jnp.zeros(1))


def loss(line, x, y):
    error = x @ line.kernel[...] + line.bias[...] - y
    return jnp.mean(error**2), {"largest": jnp.max(jnp.abs(error))}


def batch(step):
    x = np.random.default_rng(step).normal(size=(8, 2)).astype(np.float32)
    return x, x @ np.array([[2.0], [-1.0]], np.float32) + 0.5


def train(folder, batch=batch, examine=lambda line: {}):
    return loop.train(
        Line(),
        loss,
        batch,
        optimiser=loop.adamw(
            learning_rate=0.3,
            final_learning_rate=0.1,
            warmup_steps=2,
            steps=STEPS,
            weight_decay=0.01,
            gradient_norm=1.0,
        ),
        steps=STEPS,
        checkpoint_every=5,
        folder=folder,
        settings={"steps": STEPS},
        label="line",
        examine=examine,
    )


def test_a_stopped_training_ends_with_the_same_bits(tmp_path):
    whole = train(tmp_path / "whole")

    def until(last):
        def stopping(step):
            if step > last:
                raise UserError
            asked.append(step)
            return batch(step)

        return stopping

    asked = []
    for last in (6, 11):
        with pytest.raises(UserError):
            train(tmp_path / "stopped", until(last - 1))
    resumed = train(tmp_path / "stopped", until(STEPS))
    # From the newest checkpoint, after 5 and 10 updates; nothing else is done again.
    assert asked == [*range(6), *range(5, 11), *range(10, 12)]
    for one, other in zip(*map(jax.tree.leaves, (whole, resumed)), strict=True):
        np.testing.assert_array_equal(one, other)
    # What is finished is only read.
    again = train(tmp_path / "stopped", until(-1))
    for one, other in zip(*map(jax.tree.leaves, (whole, again)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_model_is_measured_at_each_checkpoint(tmp_path, capsys):
    def examine(line):
        return {"held out": {"bias": float(line.bias[...][0])}}

    line = train(tmp_path, examine=examine)
    printed = capsys.readouterr().out.splitlines()
    begins = [text.rsplit(" ", 1)[0] for text in printed]
    assert begins == [
        text
        for step in (5, 10, 12)
        for text in (f"line step {step}: loss", f"line step {step}, held out: bias")
    ]
    assert printed[-1].endswith(f" {float(line.bias[...][0]):.3f}")


def test_matrices_decay_and_vectors_do_not():
    optimiser = loop.adamw(
        learning_rate=1.0,
        final_learning_rate=0.1,
        warmup_steps=1,
        steps=4,
        weight_decay=0.5,
        gradient_norm=1.0,
    )
    weights = {"matrix": jnp.ones((2, 2)), "vector": jnp.ones(2)}
    state, still = optimiser.init(weights), jax.tree.map(jnp.zeros_like, weights)
    update = jax.jit(optimiser.update)
    rates = []
    for _ in range(5):
        updates, state = update(still, state, weights)
        rates.append(float(-updates["matrix"][0, 0] / 0.5))
        assert not updates["vector"].any()
    # A warm-up from 0 to the highest rate, then a cosine down to the final one.
    assert rates[:2] == [0, 1] and rates[2] > rates[3] > rates[4]
    assert rates[4] == pytest.approx(0.1)


def test_gradients_are_clipped_to_their_norm():
    optimiser = loop.adamw(
        learning_rate=1.0,
        final_learning_rate=1.0,
        warmup_steps=0,
        steps=4,
        weight_decay=0.0,
        gradient_norm=2.0,
    )
    clipped, _ = optax.clip_by_global_norm(2.0).update([jnp.full(4, 30.0)], ())
    update = jax.jit(optimiser.update)
    for gradient in ([jnp.full(4, 30.0)], clipped):
        state = optimiser.init([jnp.ones(4)])
        _, state = update(gradient, state, [jnp.ones(4)])
        (moment,) = optax.tree.get(state, "mu")
        np.testing.assert_allclose(moment, 0.1, rtol=1e-5)  # (1 - b1) · 2 / √4

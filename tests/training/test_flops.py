"""Operations by formula against operations counted in a compiled program."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from musilingo_jax.models.answer_loss import Batch, answer_loss
from musilingo_jax.models.bridges.linear import LinearBridge
from musilingo_jax.models.llama import Llama
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.lora import MapSizes, Tuning, TuningConfig
from musilingo_jax.models.parts import Parts, divided
from musilingo_jax.plan import program_costs
from musilingo_jax.plan.hlo import Program
from musilingo_jax.training import flops

pytestmark = pytest.mark.medium

ROWS, TIME, WINDOWS, ANSWERS, ENCODER_WIDTH = 3, 10, 2, 4, 24
SMALL = LlamaConfig(
    vocab=52,
    width=32,
    depth=2,
    heads=4,
    key_heads=2,
    head_dim=12,
    mlp_width=40,
    norm_eps=1e-6,
    rope_theta=10_000.0,
    rope_scaling=None,
    tied=False,
)


def compiled_gradient(
    config: LlamaConfig,
    *,
    remat: str,
    layers_learn: bool = False,
    tuned: TuningConfig | None = None,
) -> Program:
    """The program of an update's gradient, with a full batch of the sizes above."""

    def array(*shape: int, dtype: jnp.dtype = jnp.int32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype)

    batch = Batch(
        features=array(ROWS, WINDOWS, ENCODER_WIDTH, dtype=jnp.float32),
        tokens=array(ROWS, TIME),
        audio_slot=array(ROWS, TIME),
        segments=array(ROWS, TIME),
        positions=array(ROWS, TIME),
        targets=array(ROWS, ANSWERS),
    )
    adapter = jax.eval_shape(
        lambda: LinearBridge(ENCODER_WIDTH, config.width, rngs=nnx.Rngs(0))
    )
    llama = jax.eval_shape(lambda: Llama(config, rngs=nnx.Rngs(0)))
    learning, frozen = Parts(bridge=adapter), Parts(llama=llama)
    if layers_learn:
        layers, ends = divided(llama)
        learning, frozen = replace(learning, llama=layers), Parts(llama=ends)
    if tuned is not None:
        sizes = MapSizes.of(config)
        tuning = jax.eval_shape(lambda: Tuning.fresh(sizes, tuned, rngs=nnx.Rngs(0)))
        learning = replace(learning, tuning=tuning)
    loss = lambda *arguments: answer_loss(*arguments, remat=remat)[0]  # noqa: E731
    gradient = jax.jit(jax.value_and_grad(loss))
    return Program(gradient.lower(learning, frozen, batch).compile().as_text())


def by_formula(
    config: LlamaConfig,
    *,
    attended: float,
    layers_learn: bool = False,
    tuned: TuningConfig | None = None,
) -> float:
    rngs = nnx.Rngs(0)
    bridge = LinearBridge(ENCODER_WIDTH, config.width, rngs=rngs)
    beside = tuned and Tuning.fresh(MapSizes.of(config), tuned, rngs=rngs)
    return flops.step_flops(
        config,
        flops.Multiplied.by(
            Parts(bridge=bridge, tuning=beside),
            bridge_learns=True,
            layers_learn=layers_learn,
        ),
        examples=ROWS,
        windows=ROWS * WINDOWS,
        tokens=ROWS * TIME,
        targets=ROWS * ANSWERS,
        attended=attended,
    )


@pytest.mark.parametrize("layers_learn", [False, True])
def test_formula_counts_what_the_program_multiplies(layers_learn):
    program = compiled_gradient(SMALL, remat="everything", layers_learn=layers_learn)
    # A program multiplies masked pairs, too: each position with each.
    assert program_costs.flops(program) == by_formula(
        SMALL, attended=ROWS * TIME**2, layers_learn=layers_learn
    )


def test_what_is_tuned_beside_the_layers_is_counted():
    """Factors multiply every token; biases and the scales of norms multiply nothing."""
    tuned = TuningConfig(
        rank=3, alpha=8.0, targets=("query", "down"), biases=("out",), norms=True
    )
    program = compiled_gradient(SMALL, remat="everything", tuned=tuned)
    expected = by_formula(SMALL, attended=ROWS * TIME**2, tuned=tuned)
    assert program_costs.flops(program) == expected
    alone = by_formula(SMALL, attended=ROWS * TIME**2)
    factors = 3 * ((32 + 4 * 12) + (40 + 32))
    assert expected - alone == 6 * factors * SMALL.depth * ROWS * TIME


def test_a_bridge_that_adds_is_counted_once_an_example():
    work = flops.Multiplied(example=100)
    numbers = {"windows": 9.0, "tokens": 0.0, "targets": 0.0, "attended": 0.0}
    assert flops.step_flops(SMALL, work, examples=5, **numbers) == 6 * 100 * 5
    frozen = replace(work, bridge_learns=False)
    assert flops.step_flops(SMALL, frozen, examples=5, **numbers) == 2 * 100 * 5


def test_recomputed_layers_are_in_the_program_and_not_in_the_formula():
    counted = program_costs.flops(compiled_gradient(SMALL, remat="nothing"))
    mathematics = by_formula(SMALL, attended=ROWS * TIME**2)
    # All of a layer's products but the last, whose result nothing needs again.
    layer = 2 * ROWS * TIME * (flops.layer_weights(SMALL) - 40 * 32)
    pairs = 4 * ROWS * TIME**2 * SMALL.heads * SMALL.head_dim
    assert counted == mathematics + SMALL.depth * (layer + pairs)


def test_weights_of_a_layer():
    layers = jax.eval_shape(lambda: Llama(SMALL, rngs=nnx.Rngs(0))).layers
    kernels = [leaf.size for leaf in jax.tree.leaves(layers) if leaf.ndim == 3]
    assert flops.layer_weights(SMALL) == sum(kernels) / SMALL.depth


def test_a_causal_example_attends_half():
    square = by_formula(SMALL, attended=ROWS * TIME**2)
    causal = by_formula(SMALL, attended=ROWS * TIME * (TIME + 1) / 2)
    pairs = ROWS * TIME * (TIME - 1) / 2
    assert square - causal == 12 * SMALL.heads * SMALL.head_dim * SMALL.depth * pairs


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5", 459e12),
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("TPU v4 lite", None),
        ("TPU v55", None),
        ("cpu", None),
    ],
)
def test_peak(kind: str, expected: float | None):
    assert flops.peak_flops(kind) == expected


def test_peak_of_this_machine_is_unknown():
    assert flops.peak_flops(jax.devices()[0].device_kind) is None
    assert np.isfinite(list(flops.PEAK_FLOPS.values())).all()

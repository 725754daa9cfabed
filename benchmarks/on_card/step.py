"""An update of the adapter through a frozen language model, its rows packed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import one_stage
from flax import nnx
from jax.sharding import Mesh

from musilingo_jax.answering.prompts import PromptConfig
from musilingo_jax.models.answer_loss import Batch
from musilingo_jax.models.bridges.linear import LinearBridge
from musilingo_jax.models.llama import Llama
from musilingo_jax.models.parts import Parts
from musilingo_jax.runtime.sharding import make_mesh, shardings
from musilingo_jax.training import flops
from musilingo_jax.training.stage_config import StageConfig
from musilingo_jax.training.train_step import abstract_batch, fresh_state, make_update
from on_card.ceilings import Ceilings
from on_card.part import Part, times
from on_card.sizes import AUDIO_AT, Sizes
from on_card.weights import random_llama

# The text plays no part: tokens are random.
_PROMPT = PromptConfig(
    template="{}", instruction="<AudioHere>{}", end_sign="###", max_answer_tokens=160
)


def measure_step(sizes: Sizes, ceilings: Ceilings, part: Part) -> None:
    """Each type of weights, number of rows and choice of recomputation."""
    mesh = make_mesh(1, 1, 1)
    for still, quantization in ((2, ""), (1, "int8")):
        part.begin(still)
        name = quantization or "bfloat16"
        held: list[Llama] = []

        def make(held: list[Llama] = held, quantization: str = quantization) -> dict:
            llama = random_llama(sizes.llama, quantization=quantization, mesh=mesh)
            held.append(jax.block_until_ready(llama))
            return {"gigabytes": sum(x.nbytes for x in jax.tree.leaves(llama)) / 1e9}

        if part.measure(f"{name}, weights", make) is None:
            continue
        for rows, remat in sizes.updates:
            measure = functools.partial(
                update_figures, sizes, ceilings, held[0], mesh, rows=rows, remat=remat
            )
            part.measure(
                f"{name}, {rows} × {sizes.row_length} tokens, remat {remat}",
                measure,
                weights=name,
                rows=rows,
                remat=remat,
            )


def update_figures(
    sizes: Sizes,
    ceilings: Ceilings,
    llama: Llama,
    mesh: Mesh,
    *,
    rows: int,
    remat: str,
) -> dict[str, float | None]:
    """The time of an update of so many rows, and its rates.

    Utilisation is of the measured peak, in two conventions. `mfu` counts what the
    mathematics of a frozen model asks for (`training/flops.py`): 4 operations per
    weight and token, and attention. `mfu_6n` is the common 6 per weight and token of a
    model that learns, without attention, though no gradient of a weight is computed.
    """
    stage = one_stage.stage_of(
        _PROMPT,
        batch_size=rows * sizes.examples,
        rows=rows,
        accumulate=1,
        max_tokens=sizes.example_length,
        max_windows=sizes.windows,
        remat=remat,
    )
    optimiser = stage.optimiser()
    width = sizes.mert.hidden_size
    bridge = LinearBridge(width, llama.config.width, rngs=nnx.Rngs(0))
    state = fresh_state(optimiser, Parts(bridge=bridge))
    places = shardings(state, mesh)
    state = jax.device_put(state, places)
    update = make_update(stage, optimiser, places)
    batch = full_batch(sizes, stage, mesh)

    def run() -> None:
        nonlocal state
        state, report = update(state, Parts(llama=llama), batch)
        jax.block_until_ready(report.loss)

    found = times(run)
    length, examples = sizes.example_length, rows * sizes.examples
    tokens = examples * length
    frozen = flops.step_flops(
        llama.config,
        flops.Multiplied(window=width * llama.config.width),
        examples=examples,
        windows=examples * sizes.windows,
        tokens=tokens,
        targets=examples * sizes.answer,
        attended=examples * length * (length + 1) / 2,
    )
    config = llama.config
    weights = flops.layer_weights(config) * config.depth + config.width * config.vocab
    rate = 1 / found["seconds"]
    return found | {
        "tokens_per_second": tokens * rate,
        "tflop_per_second": frozen * rate / 1e12,
        "mfu": ceilings.share_of_flops(frozen * rate),
        "mfu_6n": ceilings.share_of_flops(6 * weights * tokens * rate),
    }


def full_batch(sizes: Sizes, stage: StageConfig, mesh: Mesh) -> Batch:
    """Rows of equal examples without padding: text, audio, text, the answer."""
    rows, length, examples = stage.rows, sizes.example_length, sizes.examples
    windows = examples * sizes.windows
    described = abstract_batch(
        stage,
        width=sizes.mert.hidden_size,
        mesh=mesh,
        length=sizes.row_length,
        windows=windows,
        answers=examples * sizes.answer,
    )
    random = np.random.default_rng(0)
    example = np.repeat(np.arange(examples), length)
    place = np.tile(np.arange(length), examples)
    heard = (place >= AUDIO_AT) & (place < AUDIO_AT + sizes.windows)
    slot = np.where(heard, example * sizes.windows + place - AUDIO_AT, -1)
    target = np.flatnonzero(place >= length - sizes.answer)
    shape = rows, sizes.row_length
    batch = Batch(
        features=random.normal(size=(rows, windows, sizes.mert.hidden_size)),
        tokens=random.integers(3, sizes.llama.vocab, shape),
        audio_slot=np.tile(slot, (rows, 1)),
        segments=np.tile(example + 1, (rows, 1)),
        positions=np.tile(place, (rows, 1)),
        targets=np.tile(target, (rows, 1)),
    )
    return jax.tree.map(
        lambda leaf, values: jax.device_put(
            jnp.asarray(values, leaf.dtype).reshape(leaf.shape), leaf.sharding
        ),
        described,
        batch,
    )

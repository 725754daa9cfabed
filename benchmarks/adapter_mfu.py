r"""Model FLOP utilisation of training the adapter on an accelerator, by batch size.

    python benchmarks/adapter_mfu.py                                      (7B, one GPU)
    python benchmarks/adapter_mfu.py --quantization=int8 --rows=1,2,4
    python benchmarks/adapter_mfu.py --width=256 --depth=2 --heads=4 --mlp=688 \
        --vocab=512 --length=64 --answers=24 --product=512                (a quick try)

Random weights in the shape of LLaMA-7B, an adapter of MERT-330M's width, and full rows.
For each number of rows, with and without recomputation (`remat`), it prints the time of
an update, tokens per second, and the model FLOP utilisation: the operations that the
mathematics asks for (`musilingo_jax.training.flops`), divided by the time, and by the
rate that one large bfloat16 product reaches in the same run. Sizes that do not fit in
memory are reported as such.
"""

import in_turn
import jax
import llama_shape
import numpy as np
import one_stage
import optax
from absl import app, flags
from flax import nnx
from on_device import product_rate, random_llama

from musilingo_jax.answering import released
from musilingo_jax.models.adapter import Adapter
from musilingo_jax.models.int8 import quantize_language_model
from musilingo_jax.models.llama import Llama
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.musilingo import Batch
from musilingo_jax.runtime.sharding import make_mesh, shardings
from musilingo_jax.training import flops as costs
from musilingo_jax.training.train_step import TrainState, make_update

llama_shape.define(width=4096, depth=32, heads=32, mlp=11008)
QUANTIZATION = flags.DEFINE_enum(
    "quantization", "", ["", "int8"], "of the language model's kernels"
)
LENGTH = flags.DEFINE_integer("length", 640, "tokens of a row, audio included")
ANSWERS = flags.DEFINE_integer("answers", 320, "answer tokens of a row")
ROWS = flags.DEFINE_list("rows", ["1", "2", "4", "8", "16", "32"], "rows to try")
PRODUCT = flags.DEFINE_integer("product", 8192, "rows of the large product's matrices")

ENCODER_WIDTH, WINDOWS = 1024, released.MAX_WINDOWS


def full_rows(rows: int) -> Batch:
    """Audio, then random tokens, the last of which are the answer."""
    length = LENGTH.value
    shape = rows, length
    slots = np.full(shape, -1, np.int32)
    slots[:, :WINDOWS] = np.arange(WINDOWS)
    random = np.random.default_rng(0)
    features = random.normal(size=(rows, WINDOWS, ENCODER_WIDTH)).astype(np.float32)
    answer = np.arange(length - ANSWERS.value, length, dtype=np.int32)
    return jax.device_put(
        Batch(
            features=features,
            tokens=random.integers(3, flags.FLAGS.vocab, shape).astype(np.int32),
            audio_slot=slots,
            segments=np.ones(shape, np.int32),
            positions=np.tile(np.arange(length, dtype=np.int32), (rows, 1)),
            targets=np.tile(answer, (rows, 1)),
        )
    )


def seconds_of(llama: Llama, rows: int, *, remat: bool) -> float:
    """The median time of an update."""
    mesh = make_mesh(1, 1, 1)
    stage = one_stage.stage_of(
        released.PROMPT,
        batch_size=rows,
        rows=rows,
        accumulate=1,
        max_tokens=LENGTH.value,
        max_windows=WINDOWS,
        remat=remat,
    )
    optimiser: optax.GradientTransformation = stage.optimiser()
    adapter = Adapter(ENCODER_WIDTH, flags.FLAGS.width, rngs=nnx.Rngs(0))
    state = TrainState(adapter=adapter, optimiser=optimiser.init(adapter))
    state = jax.device_put(state, shardings(state, mesh))
    update = make_update(stage, optimiser, shardings(state, mesh))
    batch = full_rows(rows)

    def run() -> None:
        nonlocal state
        state, report = update(state, llama, batch)
        jax.block_until_ready(report.loss)

    return in_turn.measure(run, warm_up=2, repeats=in_turn.ROUNDS.value).clock


def main(argv: list[str]) -> None:
    """Measures each number of rows, with and without recomputation."""
    del argv
    config = LlamaConfig.from_dict(llama_shape.config_json())
    peak = product_rate(PRODUCT.value)
    print(f"{jax.devices()[0].device_kind}: a product of {PRODUCT.value} rows runs at")
    print(f"{peak / 1e12:.1f} TFLOP/s in bfloat16", flush=True)
    llama = random_llama(config)
    if QUANTIZATION.value:
        llama = jax.jit(quantize_language_model, donate_argnums=0)(llama)
    length, best = LENGTH.value, (0.0, "nothing fits")
    for rows in map(int, ROWS.value):
        flops = costs.step_flops(
            config,
            encoder_width=ENCODER_WIDTH,
            windows=rows * WINDOWS,
            tokens=rows * length,
            targets=rows * ANSWERS.value,
            attended=rows * length * (length + 1) / 2,
        )
        for remat in (False, True):
            name = f"{rows:4} rows of {length}{', remat' if remat else '':7}"
            try:
                seconds = seconds_of(llama, rows, remat=remat)
            except jax.errors.JaxRuntimeError as error:
                print(f"{name}: {str(error).splitlines()[0][:80]}", flush=True)
                continue
            share = flops / seconds / peak
            best = max(best, (share, name.strip()))
            print(
                f"{name}: {seconds * 1000:9.1f} ms {rows * length / seconds:10,.0f} "
                f"tokens/s  {share:6.1%} of the product's rate",
                flush=True,
            )
    print(f"best: {best[0]:.1%}, {best[1]}")


if __name__ == "__main__":
    app.run(main)

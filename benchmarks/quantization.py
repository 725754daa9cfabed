r"""Loss and speed of int8 weights, compared with bfloat16 and float32.

    python benchmarks/quantization.py --folder=/tmp/scratch
    python benchmarks/quantization.py --speed --rounds=5

The first prints, for each type of the language model's weights, the loss of the
embedded model on answers about clips that it was not trained on, in nats per token, and
the share of the answers' tokens to which it gives the highest probability, given the
true tokens before them. For the effect on generated answers, run

    python -m musilingo_jax.evaluate --config=configs/tiny.py \
        --adapter=musilingo-tiny/adapter --config.model.quantization=int8 --out=DIR

The second multiplies rows by kernels in the shapes of LLaMA-7B and of a model of 100M
parameters, as a step of decoding does: in ours with bfloat16 and int8, and in PyTorch
with float32 (which needs the `test` extra), in turn, each in its own process. Printed
are the median times of a product in milliseconds, and the medians of the ratios.
"""

import importlib.util
import json
import statistics
from pathlib import Path

import in_turn
import numpy as np
from absl import app, flags

from musilingo_jax.runtime import processor

SPEED = flags.DEFINE_bool("speed", False, "measure times instead of losses")
FOLDER = flags.DEFINE_string("folder", None, "folder for the cache of features")

ADAPTER = "musilingo-tiny/adapter"
TYPES = {
    "float32": ("float32", ""),
    "bfloat16": ("bfloat16", ""),
    "int8": ("bfloat16", "int8"),
}
SHAPES = ((4096, 4096), (1024, 2752))
ROWS = (1, 2, 16)
SIDES = ("torch float32", "our bfloat16", "our int8")
REPEATS = 9
# Together larger than a processor's cache, as the kernels of a model are.
BYTES_OF_FLOAT32 = 256 * 2**20


def losses(folder: str) -> dict[str, tuple[float, float, int]]:
    """For each type: nats per token, share of tokens predicted, number of tokens."""
    import jax
    import jax.numpy as jnp

    from musilingo_jax.audio.cache import feature_cache
    from musilingo_jax.corpora import mixture
    from musilingo_jax.models.answer_loss import splice
    from musilingo_jax.pretrained import weights
    from musilingo_jax.runtime.sharding import make_mesh
    from musilingo_jax.training.batches import ValidationBatches
    from musilingo_jax.training.examples import Examples
    from musilingo_jax.training.stage_config import StageConfig

    @jax.jit
    def look(adapter, llama, batch):
        """Sums over the answers: cross entropy, tokens predicted, tokens."""
        heard = adapter(batch.features, llama)
        hidden = llama(
            splice(llama.embed(batch.tokens), heard.spliced, batch.audio_slot),
            positions=batch.positions,
            segments=batch.segments,
            remat="everything",
        )
        used = batch.targets >= 0
        before = jnp.maximum(batch.targets - 1, 0)
        logits = llama.logits(jnp.take_along_axis(hidden, before[..., None], axis=1))
        answer = jnp.take_along_axis(
            batch.tokens, jnp.maximum(batch.targets, 0), axis=1
        )
        score = jnp.take_along_axis(logits, answer[..., None], axis=-1)[..., 0]
        entropy = jax.nn.logsumexp(logits, axis=-1) - score
        right = jnp.argmax(logits, axis=-1) == answer
        return [jnp.sum(jnp.where(used, x, 0)) for x in (entropy, right, used)]

    path = Path(__file__).parent.parent / "configs/tiny.py"
    spec = importlib.util.spec_from_file_location("tiny", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    config.run = folder
    mesh = make_mesh(1, 1, 1)
    records = mixture.split(config.corpus, config.corpus.test_split, answered=True)
    features = feature_cache.prepare(config, records, mesh)
    tokenizer = weights.load_tokenizer("musilingo-tiny/language_model")
    adapter = weights.load_adapter(ADAPTER, mesh=mesh).bridge
    stage = StageConfig.from_config(config, "stage2")
    chosen = stage.choose(records)
    examples = Examples(
        chosen,
        features,
        tokenizer,
        stage.prompt,
        max_tokens=stage.max_tokens,
        max_windows=stage.max_windows,
        bridge=type(adapter),
    )
    batches = ValidationBatches(
        examples,
        most=len(chosen),
        batch_size=stage.batch_size,
        rows=stage.rows,
        seed=config.seed,
        mesh=mesh,
    )
    found = {}
    for name, (dtype, quantization) in TYPES.items():
        llama = weights.load_language_model(
            "musilingo-tiny/language_model",
            dtype=dtype,
            quantization=quantization,
            mesh=mesh,
        )
        sums = [look(adapter, llama, batch) for batch in batches]
        nats, right, count = np.sum(np.array(sums, np.float64), axis=0)
        found[name] = nats / count, right / count, int(count)
    return found


def products_of_torch(shape: tuple[int, int], rows: int, count: int):
    """A function that multiplies the same rows by `count` kernels with PyTorch."""
    import torch

    kernels = [torch.randn(shape[::-1]) for _ in range(count)]
    x = torch.randn(rows, shape[0])

    def run() -> None:
        with torch.inference_mode():
            for kernel in kernels:
                torch.nn.functional.linear(x, kernel)

    return run


def products_of_ours(shape: tuple[int, int], rows: int, count: int, dtype: str):
    """The same with `linear`."""
    import jax
    import jax.numpy as jnp

    from musilingo_jax.models.int8 import quantize
    from musilingo_jax.models.layers import linear

    def make(key: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        if dtype == "int8":
            return quantize(jax.random.normal(key, shape[::-1]))
        return jax.random.normal(key, shape, jnp.bfloat16), None

    kernels = [jax.jit(make)(key) for key in jax.random.split(jax.random.key(0), count)]
    x = jax.random.normal(jax.random.key(1), (rows, 1, shape[0]))

    @jax.jit
    def multiply(x, kernels):
        return [linear(x, kernel, None, scale) for kernel, scale in kernels]

    return lambda: jax.block_until_ready(multiply(x, kernels))


def measure(side: str) -> list[float]:
    """Milliseconds of a product, for each shape and number of rows."""
    whose, dtype = side.split()
    found = []
    for shape in SHAPES:
        count = BYTES_OF_FLOAT32 // (4 * shape[0] * shape[1])
        for rows in ROWS:
            if whose == "torch":
                run = products_of_torch(shape, rows, count)
            else:
                run = products_of_ours(shape, rows, count, dtype)
            times = in_turn.measure(run, warm_up=2, repeats=REPEATS)
            found.append(1000 * times.clock / count)
    return found


def speed() -> None:
    """Prints a line for each shape and number of rows."""
    found = in_turn.take_turns(SIDES)
    print(f"on {processor.described()}:")
    cases = [(shape, rows) for shape in SHAPES for rows in ROWS]
    for index, (shape, rows) in enumerate(cases):
        line = f"{rows:2} × {shape[0]} × {shape[1]}"
        for side, rounds in found.items():
            times = [one[index] for one in rounds]
            base = [one[index] for one in found[SIDES[0]]]
            line += f"   {side} {statistics.median(times):6.3f} ms, "
            line += in_turn.ratio(times, base)
        print(line)


def main(argv: list[str]) -> None:
    """Prints losses, or times with --speed."""
    del argv
    if in_turn.WORKER.value:
        print(json.dumps(measure(in_turn.WORKER.value)))
        return
    if SPEED.value:
        speed()
        return
    if FOLDER.value is None:
        raise app.UsageError(
            "give a folder for the cache of features, --folder=DIR, or --speed"
        )
    found = losses(FOLDER.value)
    loss, share, count = found["float32"]
    print(f"{count} tokens of held-out answers")
    for name, (nats, right, _) in found.items():
        print(
            f"{name:9} {nats:.5f} nats per token ({nats - loss:+.5f})"
            f"   {100 * right:.2f} % predicted ({100 * (right - share):+.2f})"
        )


if __name__ == "__main__":
    flags.adopt_module_key_flags(in_turn)
    app.run(main)

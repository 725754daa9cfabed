"""Speed of the encoder: compared with PyTorch on a CPU, or alone on an accelerator.

    python benchmarks/encoder.py --width=768 --depth=4 --clips=2 --seconds=10 --rounds=5
    python benchmarks/encoder.py --width=1024 --depth=24 --clips=1 --rounds=3    (330M)
    python benchmarks/encoder.py --width=1024 --depth=24 --batches=1,8,32,64,128

The first two compare ours with the same model in PyTorch. Both run a MERT with random
weights over the same noise. Ours averages its hidden states as they are computed;
PyTorch's (`transformers.HubertModel`) returns all of them, as the original MusiLingo
does. Each side runs in its own process, in turn (`in_turn.py`). Printed are median
wall-clock and processor times of a forward pass, and their ratios to PyTorch's. On a
busy machine set OMP_WAIT_POLICY=PASSIVE; otherwise processor times include the time
that PyTorch's threads wait. Needs the `test` extra.

With `--batches`, only ours runs, in bfloat16 on the device that JAX finds. Printed are,
for each batch size, the multiple of real time, and the share of the arithmetic rate
that one large product reaches in the same run. Does not need PyTorch.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import in_turn
import numpy as np
from absl import app, flags

WIDTH = flags.DEFINE_integer("width", 768, "width of the transformer")
DEPTH = flags.DEFINE_integer("depth", 4, "its layers")
CLIPS = flags.DEFINE_integer("clips", 2, "clips in a batch")
SECONDS = flags.DEFINE_float("seconds", 10.0, "length of a clip")
BATCHES = flags.DEFINE_list("batches", [], "batch sizes to try, without PyTorch")
PRODUCT = flags.DEFINE_integer("product", 8192, "rows of the large product's matrices")

REPEATS = 5
SAMPLE_RATE = 24_000
THEIRS = ("torch float32", "torch bfloat16")
OURS = ("our float32", "our bfloat16")


def architecture() -> dict:
    """What `transformers` is given of the model."""
    return {
        "hidden_size": WIDTH.value,
        "num_hidden_layers": DEPTH.value,
        "num_attention_heads": WIDTH.value // 64,
        "intermediate_size": 4 * WIDTH.value,
        "feat_extract_norm": "group",
        "do_stable_layer_norm": True,
    }


def write_model(folder: Path) -> None:
    """Saves a random model in the released layout."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.HubertConfig(**architecture())
    transformers.HubertModel(config).save_pretrained(folder)


def noise(clips: int) -> np.ndarray:
    """Waveforms [clips, samples]."""
    shape = (clips, int(SECONDS.value * SAMPLE_RATE))
    return np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)


def forward_torch(folder: str, dtype: str) -> Callable[[], None]:
    """A function that runs PyTorch's model once."""
    import torch
    import transformers

    kind = getattr(torch, dtype)
    model = transformers.HubertModel.from_pretrained(folder, dtype=kind).eval()
    waveform = torch.from_numpy(noise(CLIPS.value)).to(kind)

    def run() -> None:
        with torch.inference_mode():
            model(waveform, output_hidden_states=True)

    return run


def forward_ours(mert, clips: int) -> Callable[[], None]:
    """A function that runs our model once and waits for it."""
    import jax

    from musilingo_jax.models.adapter import pool

    waveform = noise(clips)
    lengths = np.full(clips, waveform.shape[1], np.int32)
    waveform, lengths = jax.device_put((waveform, lengths))

    @jax.jit
    def encode(mert, waveform, lengths):
        return mert(
            waveform, lengths, reduce=lambda x, v: pool(x, v, 325)[0], remat=False
        )

    return lambda: jax.block_until_ready(encode(mert, waveform, lengths))


def measure(run: Callable[[], None]) -> in_turn.Times:
    """The median times of a forward pass."""
    return in_turn.measure(run, warm_up=2, repeats=REPEATS)


def work(whose: str, dtype: str) -> None:
    """Prints the times of one of the four sides, in a worker process."""
    if whose == "torch":
        run = forward_torch(in_turn.FOLDER.value, dtype)
    else:
        from musilingo_jax.pretrained import weights

        mert = weights.load_encoder(in_turn.FOLDER.value, dtype=dtype, mesh=None)
        run = forward_ours(mert, CLIPS.value)
    print(json.dumps(measure(run)))


def compare() -> None:
    """Runs all four sides in turn and prints their times."""
    theirs = in_turn.worth_waiting(THEIRS)
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        printed = in_turn.take_turns((*theirs, *OURS), folder)
    found = {side: [in_turn.Times(*each) for each in printed[side]] for side in printed}
    in_turn.compare(found, theirs, f"ms for {CLIPS.value} × {SECONDS.value:g} s")


def forward_flops(config, samples: int) -> float:
    """Operations of a clip's products and convolutions, by their definitions."""
    total, frames, channels = 0, samples, 1
    for width, stride, features in zip(
        config.conv_kernel, config.conv_stride, config.conv_dim, strict=True
    ):
        frames = (frames - width) // stride + 1
        total += 2 * frames * width * channels * features
        channels = features
    width, inner = config.hidden_size, config.intermediate_size
    per_group = width // config.num_conv_pos_embedding_groups
    total += 2 * frames * width * channels
    total += 2 * frames * width * per_group * config.num_conv_pos_embeddings
    weights = 4 * width**2 + 2 * width * inner
    layer = 2 * frames * weights + 4 * frames**2 * width
    return total + config.num_hidden_layers * layer


def try_batches(sizes: list[int]) -> None:
    """Prints the multiple of real time at each batch size, and the best."""
    import jax
    import jax.numpy as jnp
    from flax import nnx
    from on_device import product_rate

    from musilingo_jax.models.mert import Mert, MertConfig

    released = architecture() | {
        "model_type": "hubert",
        "conv_dim": [512] * 7,
        "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
        "conv_stride": [5, 2, 2, 2, 2, 2, 2],
        "num_conv_pos_embeddings": 128,
        "num_conv_pos_embedding_groups": 16,
        "layer_norm_eps": 1e-5,
    }
    config = MertConfig.from_dict(released)

    @jax.jit
    def make() -> Mert:
        mert = Mert(config, rngs=nnx.Rngs(0))
        return jax.tree.map(lambda array: array.astype(jnp.bfloat16), mert)

    mert = make()
    flops = forward_flops(config, int(SECONDS.value * SAMPLE_RATE))
    peak = product_rate(PRODUCT.value)
    print(f"{jax.devices()[0].device_kind}: a product of {PRODUCT.value} rows runs at")
    print(f"{peak / 1e12:.1f} TFLOP/s; a clip needs {flops / 1e9:.0f} GFLOP")
    best = (0.0, 0)
    for size in sizes:
        try:
            wall = measure(forward_ours(mert, size)).clock
        except jax.errors.JaxRuntimeError as error:
            print(f"batch {size:5}: {str(error).splitlines()[0][:80]}")
            break
        speed = size * SECONDS.value / wall
        best = max(best, (speed, size))
        share = size * flops / wall / peak
        print(
            f"batch {size:5}: {wall * 1000:9.1f} ms  {speed:9.1f} × real time"
            f"  {share:5.1%} of that rate"
        )
    print(f"best: {best[0]:.1f} × real time at batch {best[1]}")


def main(argv: list[str]) -> None:
    """Compares both sides, or measures one."""
    del argv
    if in_turn.WORKER.value:
        work(*in_turn.WORKER.value.split())
    elif BATCHES.value:
        try_batches([int(size) for size in BATCHES.value])
    else:
        compare()


if __name__ == "__main__":
    app.run(main)

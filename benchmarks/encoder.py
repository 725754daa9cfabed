"""Our encoder against the same model in PyTorch, in turn, each in a process of its own.

    python benchmarks/encoder.py --width=768 --depth=4 --clips=2 --seconds=10 --rounds=5
    python benchmarks/encoder.py --width=1024 --depth=24 --clips=1 --rounds=3    (330M)

Both run a MERT of random weights with MERT's convolutions over the same noise; ours
averages its hidden states as they come, PyTorch's (`transformers.HubertModel`) returns
them all, as the original MusiLingo asks for. Printed are the median times of a forward
pass, and the medians of the rounds' ratios to PyTorch's. Needs the `test` extra. The
`Makefile` names the MALLOC settings that both run with.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags

WIDTH = flags.DEFINE_integer("width", 768, "width of the transformer")
DEPTH = flags.DEFINE_integer("depth", 4, "its layers")
CLIPS = flags.DEFINE_integer("clips", 2, "clips in a batch")
SECONDS = flags.DEFINE_float("seconds", 10.0, "length of a clip")
ROUNDS = flags.DEFINE_integer("rounds", 5, "measurements of each")
WORKER = flags.DEFINE_string("worker", None, "internal: what this process measures")
FOLDER = flags.DEFINE_string("folder", None, "internal: where the model lies")

REPEATS = 5
SAMPLE_RATE = 24_000
THEIRS = ("torch float32", "torch bfloat16")
OURS = ("our float32", "our bfloat16")
# Keeps glibc from handing large arrays back to the system, for all of them.
MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "67108864",
    "MALLOC_ARENA_MAX": "1",
}


def write_model(folder: Path) -> None:
    """Saves a random model in the released layout."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.HubertConfig(
        hidden_size=WIDTH.value,
        num_hidden_layers=DEPTH.value,
        num_attention_heads=WIDTH.value // 64,
        intermediate_size=4 * WIDTH.value,
        feat_extract_norm="group",
        do_stable_layer_norm=True,
    )
    transformers.HubertModel(config).save_pretrained(folder)


def noise() -> np.ndarray:
    shape = (CLIPS.value, int(SECONDS.value * SAMPLE_RATE))
    return np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)


def forward_torch(folder: str, dtype: str):
    """A function that runs PyTorch's model once."""
    import torch
    import transformers

    kind = getattr(torch, dtype)
    model = transformers.HubertModel.from_pretrained(folder, dtype=kind).eval()
    waveform = torch.from_numpy(noise()).to(kind)

    def run() -> None:
        with torch.inference_mode():
            model(waveform, output_hidden_states=True)

    return run


def forward_ours(folder: str, dtype: str):
    """A function that runs our model once and waits for it."""
    import jax

    from musilingo_jax import weights
    from musilingo_jax.models.adapter import pool

    mert = weights.load_encoder(folder, dtype=dtype, mesh=None)
    waveform = noise()
    lengths = np.full(len(waveform), waveform.shape[1], np.int32)

    @jax.jit
    def encode(mert, waveform, lengths):
        return mert(
            waveform, lengths, reduce=lambda x, v: pool(x, v, 325)[0], remat=False
        )

    return lambda: jax.block_until_ready(encode(mert, waveform, lengths))


def measure(run) -> float:
    """The median of some runs, in seconds, after two to warm up."""
    times = []
    for _ in range(REPEATS + 2):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


def main(argv: list[str]) -> None:
    del argv
    if WORKER.value:
        whose, dtype = WORKER.value.split()
        make = forward_torch if whose == "torch" else forward_ours
        print(json.dumps(measure(make(FOLDER.value, dtype))))
        return
    names = (*THEIRS, *OURS)
    found: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        for _ in range(ROUNDS.value):
            for name in names:
                worker = [sys.executable, __file__, *sys.argv[1:]]
                worker += [f"--worker={name}", f"--folder={folder}"]
                done = subprocess.run(
                    worker,
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                    env=os.environ | MALLOC,
                )
                found[name].append(json.loads(done.stdout.splitlines()[-1]))
    audio = CLIPS.value * SECONDS.value
    for name, times in found.items():
        middle = statistics.median(times)
        line = f"{name:14} {middle * 1000:8.0f} ms  {audio / middle:7.1f} × real time"
        for base in THEIRS:
            ratios = [t / b for t, b in zip(times, found[base], strict=True)]
            line += f"  / {base} {statistics.median(ratios):.2f}"
            line += f" ({min(ratios):.2f} to {max(ratios):.2f})"
        print(line)


if __name__ == "__main__":
    app.run(main)

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

With `--batches`, only ours runs, in bfloat16 on the device that JAX finds, and encodes
sound files as the feature cache does: threads decode and resample them ahead. Printed
are, for each batch size, the multiple of real time from files, that of a batch which is
on the device already, and the share of the time that the device waited: what the files
took beyond the time of their batches. On a CPU, decoding takes the cores from the
encoder, which counts as waiting. Does not need PyTorch. How well the device is used
meanwhile, `card.py --parts=encode` says.
"""

import contextlib
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import in_turn
import numpy as np
import soundfile
from absl import app, flags

WIDTH = flags.DEFINE_integer("width", 768, "width of the transformer")
DEPTH = flags.DEFINE_integer("depth", 4, "its layers")
CLIPS = flags.DEFINE_integer("clips", 2, "clips in a batch")
SECONDS = flags.DEFINE_float("seconds", 10.0, "length of a clip")
BATCHES = flags.DEFINE_list("batches", [], "batch sizes to try, without PyTorch")

REPEATS = 5
# Batches in a measurement of files.
WAVES = 6
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

    from musilingo_jax.models.pooling import pool

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


def write_songs(folder: Path, count: int) -> list[Path]:
    """Noise as people have music: stereo, 44,100 samples per second, 16 bits."""
    random, rate = np.random.default_rng(0), 44_100
    paths = [folder / f"{number}.wav" for number in range(count)]
    for path in paths:
        song = random.normal(0, 0.1, (int(SECONDS.value * rate), 2))
        soundfile.write(path, song, rate, subtype="PCM_16")
    return paths


def try_batches(sizes: list[int]) -> None:
    """Prints how fast files are encoded in batches, and the share of waiting."""
    import jax
    from on_card.encode import WINDOW, encoding
    from on_card.part import times
    from on_card.sizes import mert as mert_of
    from on_card.weights import random_mert

    from musilingo_jax.audio import waveforms
    from musilingo_jax.audio.features import FeatureConfig, encode
    from musilingo_jax.models.pooling import windows_of
    from musilingo_jax.runtime.sharding import make_mesh

    mesh = make_mesh(1, 1, 1)
    config = mert_of(WIDTH.value, DEPTH.value, WIDTH.value // 64, 512)
    mert = random_mert(config, mesh)
    rate = config.sample_rate
    windows = int(windows_of(config.frames(int(SECONDS.value * rate)), WINDOW))
    samples = config.samples_for_frames(windows * WINDOW + 1) - 1
    print(f"{jax.devices()[0].device_kind}: {WAVES} batches of {SECONDS.value:g} s")

    def from_files(paths: list[Path], settings: FeatureConfig) -> float:
        """Seconds from files to features."""
        started = time.perf_counter()
        songs = (waveforms.read(path, sample_rate=rate) for path in paths)
        with contextlib.closing(waveforms.read_ahead(songs)) as decoded:
            found = [result for _, result in encode(mert, decoded, settings, mesh)]
        assert all(isinstance(result, np.ndarray) for result in found)
        return time.perf_counter() - started

    with tempfile.TemporaryDirectory() as folder:
        paths = write_songs(Path(folder), max(sizes))
        for size in sizes:
            settings = FeatureConfig(WINDOW, windows, size, "pooled", 0.0)
            noise = np.zeros((size, samples), np.float32)
            try:
                alone = times(encoding(mert, noise, mesh))["seconds"]
                from_files(paths[:size], settings)
                wall = from_files(paths[:size] * WAVES, settings)
            except jax.errors.JaxRuntimeError as error:
                print(f"batch {size:5}: {str(error).splitlines()[0][:80]}")
                break
            seconds = size * SECONDS.value
            waited = max(0.0, 1 - WAVES * alone / wall)
            print(
                f"batch {size:5}: {seconds * WAVES / wall:9.1f} × real time from files"
                f"  {seconds / alone:9.1f} × if it never waited  waited {waited:6.1%}",
                flush=True,
            )


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
    flags.adopt_module_key_flags(in_turn)
    app.run(main)

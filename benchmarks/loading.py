"""Time and memory of loading a 7B model, and of merging one, compared with `cp`.

    python benchmarks/loading.py --folder=/big/disk/scratch
    python benchmarks/loading.py --folder=/big/disk/scratch --merge
    python benchmarks/loading.py --folder=/big/disk/scratch --small

Writes bfloat16 files of random numbers in the shape of Vicuna-7B v0 (13.5 GB), in
shards of 5 GB, and measures in turn, each in its own process: copying the files with
`cp`, loading them onto eight simulated devices, and loading them onto one. With
`--merge`, the files are a base and a delta in float16, and it measures `cp` of both and
`python -m musilingo_jax.convert merge` of the two. Before each measurement the files
are dropped from the page cache; times are those of whole processes. All files are
removed at the end. Needs 28 GB of disk, 41 GB with `--merge`.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from absl import app, flags

from musilingo_jax.runtime import processor

FOLDER = flags.DEFINE_string(
    "folder", None, "folder for temporary files", required=True
)
SMALL = flags.DEFINE_bool("small", False, "a model a hundredth of the size")
MERGE = flags.DEFINE_bool("merge", False, "merge a base and a delta")
ROUNDS = flags.DEFINE_integer("rounds", 1, "measurements of each")
MESH = flags.DEFINE_list("mesh", ["1", "4", "2"], "data, fsdp and tensor, of 8 devices")
WORKER = flags.DEFINE_enum("worker", None, ["write", "load"], "internal: what to do")
DEVICES = flags.DEFINE_integer("devices", 8, "internal: simulated devices")
ROWS = flags.DEFINE_integer("rows", 32_001, "internal: vocabulary")
DTYPE = flags.DEFINE_string("dtype", "bfloat16", "internal: of the files")
NORM = flags.DEFINE_float("norm", 1.0, "internal: mean of the norm scales")

SHARD_BYTES = 5 * 10**9
GIGABYTE = 10**9


def config() -> dict:
    """A `config.json` with the shape of the released model."""
    width, mlp, depth = (512, 1376, 4) if SMALL.value else (4096, 11008, 32)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_attention_heads": width // 128,
        "num_hidden_layers": depth,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "vocab_size": ROWS.value,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def write(folder: Path) -> None:
    """A model of random numbers in the released layout."""
    import numpy as np

    from musilingo_jax.pretrained import module_writer, weights
    from musilingo_jax.pretrained.safetensors_writer import SafetensorsWriter
    from musilingo_jax.pretrained.tensor_files import CONFIG

    blueprint = weights.language_model_blueprint(config())
    layout = module_writer.layout(blueprint.module, blueprint.names, dtype=DTYPE.value)
    random = np.random.default_rng(0)
    # Random signs and mantissas, and the exponent of 1/128.
    digits, exponent = {
        "bfloat16": (0x807F, 0x3C00),
        "float16": (0x83FF, 0x2000),
    }[DTYPE.value]
    with SafetensorsWriter(
        folder, layout, shard_bytes=SHARD_BYTES, metadata={}
    ) as writer:
        for name, (shape, dtype) in layout.items():
            size = int(np.prod(shape))
            bits = random.integers(0, 2**64, size // 4 + 1, np.uint64).view(np.uint16)
            bits &= np.uint16(digits)
            bits |= np.uint16(exponent)
            array = bits[:size].view(dtype).reshape(shape)
            if name.endswith("norm.weight"):
                array = (array.astype(np.float32) / 16 + NORM.value).astype(dtype)
            writer.write(name, array)
    (folder / CONFIG).write_text(json.dumps(config()))


def load(folder: Path) -> None:
    """Loads, compares a layer with the file, and prints the size of the arrays."""
    import jax

    jax.config.update("jax_num_cpu_devices", DEVICES.value)

    import numpy as np

    from musilingo_jax.pretrained import tensor_files, weights
    from musilingo_jax.runtime import sharding

    began = time.perf_counter()
    mesh = None
    if DEVICES.value > 1:
        mesh = sharding.make_mesh(*map(int, MESH.value))
    llama = weights.load_language_model(
        folder, dtype="bfloat16", quantization="", mesh=mesh
    )
    seconds = time.perf_counter() - began
    # Simulated devices that hold copies of a shard share its memory.
    buffers = {
        shard.data.unsafe_buffer_pointer(): shard.data.nbytes
        for leaf in jax.tree.leaves(llama)
        for shard in leaf.addressable_shards
    }
    name = "model.layers.1.mlp.up_proj.weight"
    theirs = tensor_files.open_tensors(folder)[name][...]
    for shard in llama.layers.up.kernel.addressable_shards:
        _, columns, rows = shard.index
        ours = np.asarray(shard.data)[1].T.view(np.uint16)
        assert np.array_equal(ours, theirs[rows, columns].view(np.uint16)), shard.index
    print(json.dumps({"load": seconds, "arrays": sum(buffers.values())}))


def measure(command: list[str]) -> dict:
    """Runs a command: its seconds, its peak memory in bytes, and the JSON it prints.

    `busy` is its processor time in seconds. `anonymous` is the highest sample of its
    memory that is not backed by a file.
    """
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    anonymous = 0
    while True:
        done, status, usage = os.wait4(process.pid, os.WNOHANG)
        if done:
            break
        try:
            status_text = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            status_text = ""
        for line in status_text.splitlines():
            if line.startswith("RssAnon:"):
                anonymous = max(anonymous, int(line.split()[1]) * 1024)
        time.sleep(0.02)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    output = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{output}")
    last = output.strip().splitlines()[-1:]
    found = json.loads(last[0]) if last and last[0].startswith("{") else {}
    return found | {
        "seconds": seconds,
        "busy": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss * 1024,
        "anonymous": anonymous,
    }


def forget(*folders: Path) -> None:
    """Waits for the disk, and drops the files from the page cache."""
    os.sync()
    for path in (path for folder in folders for path in folder.iterdir()):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def work(job: str, folder: Path, **options: object) -> list[str]:
    """The command for a job in another process."""
    command = [sys.executable, __file__, f"--folder={folder}", f"--worker={job}"]
    command += [
        f"--mesh={','.join(MESH.value)}",
        f"--{'' if SMALL.value else 'no'}small",
    ]
    return command + [f"--{name}={value}" for name, value in options.items()]


def copy(folder: Path, beside: Path) -> dict:
    """Measures `cp` of a folder, and removes the copy."""
    forget(folder)
    try:
        return measure(["cp", "-r", str(folder), str(beside)])
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def report(name: str, found: dict, copied: dict) -> None:
    """Prints a measurement, and its time as a multiple of that of `cp`."""
    line = (
        f"{name:22} {found['seconds']:7.1f} s ({found['busy']:.1f} s of processor time)"
    )
    line += f"  time / cp = {found['seconds'] / copied['seconds']:.2f}"
    if "peak" in found and found is not copied:
        line += f"  peak {found['peak'] / GIGABYTE:6.2f} GB"
        line += f", anonymous {found['anonymous'] / GIGABYTE:6.2f} GB"
    if "arrays" in found:
        line += f", arrays {found['arrays'] / GIGABYTE:6.2f} GB: "
        line += f"{(found['peak'] - found['arrays']) / GIGABYTE:.2f} GB more"
        line += f"; without start-up {found['load']:.1f} s"
    print(line, flush=True)


def compare_loading(scratch: Path) -> None:
    """Measures `cp` and loading."""
    model = scratch / "model"
    measure(work("write", model))
    for _ in range(ROUNDS.value):
        copied = copy(model, scratch / "copy")
        report("cp", copied, copied)
        for devices in (8, 1):
            forget(model)
            found = measure(work("load", model, devices=devices))
            report(f"load onto {devices} devices", found, copied)


def compare_merging(scratch: Path) -> None:
    """Measures `cp` and merging."""
    base, delta, merged = scratch / "base", scratch / "delta", scratch / "merged"
    measure(work("write", base, rows=32_000, dtype="float16"))
    measure(work("write", delta, dtype="float16", norm=0.0))
    command = [sys.executable, "-m", "musilingo_jax.convert", "merge"]
    command += [f"--base={base}", f"--delta={delta}", f"--out={merged}"]
    for _ in range(ROUNDS.value):
        # Copies what merging reads, one file set after the other.
        first, second = (copy(part, scratch / "copy") for part in (base, delta))
        both = {key: first[key] + second[key] for key in ("seconds", "busy")}
        report("cp of both", both, both)
        forget(base, delta)
        merge = measure(command)
        report("merge", merge, both)
        ratio = merge["seconds"] / first["seconds"]
        print(f"merge / cp of the base alone = {ratio:.2f}", flush=True)
        shutil.rmtree(merged)


def main(argv: list[str]) -> None:
    """Compares, or does one job in a worker process."""
    del argv
    folder = Path(FOLDER.value)
    if WORKER.value:
        {"write": write, "load": load}[WORKER.value](folder)
        return
    scratch = folder / f"loading-{os.getpid()}"
    scratch.mkdir(parents=True)
    print(f"on {processor.described()}:", flush=True)
    try:
        (compare_merging if MERGE.value else compare_loading)(scratch)
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    app.run(main)

"""Memory and time to encode a file of three hours, and one of half a minute.

    python benchmarks/long_file.py --seconds=10800 --suffix=flac

Writes a stereo file of tones and noise, decodes it on threads, resamples it, and
encodes it with the embedded encoder or another (`--encoder=m-a-p/MERT-v1-95M`); each
length in its own process. Prints the peaks of memory, their difference, and the times.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from absl import app, flags

SECONDS = flags.DEFINE_integer("seconds", 10_800, "length of the long file")
SHORT = flags.DEFINE_integer("short", 30, "length of the short file")
SUFFIX = flags.DEFINE_string("suffix", "flac", "format: flac, ogg, mp3 or wav")
ENCODER = flags.DEFINE_string("encoder", "musilingo-tiny", "encoder")
REDUCTION = flags.DEFINE_string("reduction", "pooled", "features to keep")
WORKER = flags.DEFINE_string("worker", None, "internal: the file to encode")

RATE = 44_100


def write_song(path: Path, seconds: int) -> None:
    """A chord that changes every second."""
    rng = np.random.default_rng(0)
    moments = np.arange(RATE)[:, None] / RATE
    with soundfile.SoundFile(path, "w", RATE, channels=2) as file:
        for _ in range(seconds):
            pitches = 110 * 2 ** (rng.integers(0, 36, (1, 6)) / 12)
            chord = 0.1 * np.sin(2 * np.pi * pitches * moments)
            sides = np.stack([chord[:, :4].sum(1), chord[:, 2:].sum(1)], axis=1)
            file.write((sides + rng.normal(0, 0.001, sides.shape)).astype(np.float32))


def encode(path: Path) -> dict[str, float]:
    """Peak memory in MiB before and after, and seconds."""
    from musilingo_jax.audio import features, waveforms
    from musilingo_jax.pretrained import weights
    from musilingo_jax.runtime.sharding import make_mesh

    mesh = make_mesh(data=1, fsdp=1, tensor=1)
    mert = weights.load_encoder(ENCODER.value, dtype="float32", mesh=mesh)
    # Chunks of 13 s, as for the embedded model.
    config = features.FeatureConfig(
        window_frames=round(mert.config.frames_per_second * 13 / 3),
        chunk_windows=3,
        batch_size=8,
        reduction=REDUCTION.value,
        level=0.0,
    )
    before, began = peak(), time.monotonic()
    song = waveforms.read(path, sample_rate=mert.config.sample_rate)
    songs = waveforms.read_ahead(iter([song]))
    ((_, found),) = features.encode(mert, songs, config, mesh)
    return {
        "vectors": len(found),
        "before": before,
        "peak": peak(),
        "seconds": time.monotonic() - began,
    }


def peak() -> float:
    """Peak memory of this process so far, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if "VmHWM" in line) / 1024


def main(argv: list[str]) -> None:
    """Encodes the short and the long file, each in a process."""
    del argv
    if WORKER.value:
        print(json.dumps(encode(Path(WORKER.value))))
        return
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for seconds in (SHORT.value, SECONDS.value):
            path = Path(folder, f"{seconds}.{SUFFIX.value}")
            write_song(path, seconds)
            done = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], f"--worker={path}"],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            found = json.loads(done.stdout.splitlines()[-1])
            peaks.append(found["peak"])
            print(
                f"{seconds:6} s, {path.stat().st_size / 1e6:8.1f} MB: "
                f"{found['vectors']} vectors in {found['seconds']:.1f} s "
                f"({seconds / found['seconds']:.0f} × real time), memory "
                f"{found['before']:.0f} MiB with the encoder, {found['peak']:.0f} MiB "
                "at its peak"
            )
            path.unlink()
    print(f"the long file takes {peaks[1] - peaks[0]:.0f} MiB more")


if __name__ == "__main__":
    app.run(main)

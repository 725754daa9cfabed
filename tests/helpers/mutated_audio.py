"""Damaged sound files by the thousand: each is decoded, or refused with one sentence.

    python tests/helpers/mutated_audio.py --count=1000

Short songs are written in every format that is available, and damaged: bits flipped,
ends cut off, impossible sizes in headers, pieces left out or repeated, heads exchanged.
A process of its own decodes them, so that hangs and crashes are detected, too.
"""

import argparse
import collections
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import soundfile

RATE = 22_050
SAMPLE_RATE = 24_000
FILE_SECONDS = 20.0  # A file is decoded in milliseconds.
START_SECONDS = 300.0  # A machine may be too busy to start Python.

# What libsndfile writes: suffix, format, subtype.
FORMATS = (
    ("wav", "WAV", "PCM_U8"),
    ("wav", "WAV", "PCM_16"),
    ("wav", "WAV", "PCM_24"),
    ("wav", "WAV", "PCM_32"),
    ("wav", "WAV", "FLOAT"),
    ("wav", "WAV", "DOUBLE"),
    ("wav", "WAV", "MS_ADPCM"),
    ("wav", "RF64", "PCM_16"),
    ("aiff", "AIFF", "PCM_16"),
    ("au", "AU", "FLOAT"),
    ("caf", "CAF", "PCM_16"),
    ("flac", "FLAC", "PCM_16"),
    ("flac", "FLAC", "PCM_24"),
    ("ogg", "OGG", "VORBIS"),
    ("opus", "OGG", "OPUS"),
    ("mp3", "MP3", "MPEG_LAYER_III"),
)
# What ffmpeg writes, if it is installed: suffix, encoder.
FFMPEG_FORMATS = (("m4a", "aac"), ("aac", "aac"), ("wma", "wmav2"), ("mka", "aac"))
KINDS = (
    "flip_head",
    "flip",
    "cut",
    "cut_head",
    "extreme",
    "zeros",
    "leave_out",
    "repeat",
    "other_head",
    "junk_head",
    "append",
    "nothing",
)
EXTREMES = (0, 1, 2, 255, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


def originals(folder: Path, seconds: float) -> list[Path]:
    """One song in all formats."""
    time_axis = np.arange(int(seconds * RATE)) / RATE
    rng = np.random.default_rng(0)
    sound = 0.3 * np.sin(2 * np.pi * 330 * time_axis[:, None])
    sound = (sound + rng.normal(0, 0.05, (len(time_axis), 2))).astype(np.float32)
    paths = []
    for suffix, kind, subtype in FORMATS:
        path = folder / f"{kind}_{subtype}.{suffix}"
        rate = 24_000 if subtype == "OPUS" else RATE
        soundfile.write(path, sound, rate, format=kind, subtype=subtype)
        paths.append(path)
    if shutil.which("ffmpeg"):
        for suffix, encoder in FFMPEG_FORMATS:
            path = folder / f"ffmpeg_{encoder}.{suffix}"
            command = ["ffmpeg", "-v", "error", "-i", paths[1], "-c:a", encoder, path]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
            paths.append(path)
    for dtype in ("float32", "int16"):
        path = folder / f"{dtype}.npy"
        scale = 1 if dtype == "float32" else 2**15 - 1
        np.save(path, (sound.T * scale).astype(dtype))
        paths.append(path)
    return paths


def mutate(content: bytes, other: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """The name of a kind of damage, and the content with it."""
    changed = bytearray(content)
    head = min(int(rng.choice([16, 64, 256, 4096])), len(changed))
    place = int(rng.integers(len(changed)))
    length = int(rng.integers(1, 2 + len(changed) // int(rng.choice([2, 20, 200]))))
    kind = rng.choice(KINDS)
    match kind:
        case "flip_head" | "flip":
            for _ in range(int(rng.choice([1, 2, 8, 64]))):
                at = rng.integers(head if kind == "flip_head" else len(changed))
                changed[at] ^= 1 << int(rng.integers(8))
        case "cut":
            del changed[place:]
        case "cut_head":
            del changed[: int(rng.integers(1, head + 1))]
        case "extreme":
            size, order = int(rng.choice([2, 4])), str(rng.choice(["little", "big"]))
            number = int(rng.choice(EXTREMES)) % 256**size
            at = int(rng.integers(max(1, head - size)))
            changed[at : at + size] = number.to_bytes(size, order)
        case "zeros":
            changed[place : place + length] = bytes(len(changed[place:][:length]))
        case "leave_out":
            del changed[place : place + length]
        case "repeat":
            changed[place:place] = changed[place : place + length]
        case "other_head":
            changed[:head] = other[:head]
        case "junk_head":
            changed[:head] = rng.bytes(head)
        case "append":
            changed += rng.bytes(length)
    return str(kind), bytes(changed)


def write_mutants(folder: Path, sources: list[Path], count: int, seed: int) -> None:
    """Files 00000_cut_WAV_PCM_16.wav and so on, each source in turn."""
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        source = sources[number % len(sources)]
        other = sources[int(rng.integers(len(sources)))]
        kind, content = mutate(source.read_bytes(), other.read_bytes(), rng)
        (folder / f"{number:05}_{kind}_{source.name}").write_bytes(content)


def decode(paths: list[Path]) -> None:
    """In the process that may die: a line before and after each file."""
    from musilingo_jax.audio import waveforms
    from musilingo_jax.audio.level import Meter
    from musilingo_jax.runtime.errors import UserError

    print("ready", flush=True)  # The time of imports is not part of any file's.
    for path in paths:
        began = time.monotonic()
        meter = Meter(waveforms.read(path, sample_rate=SAMPLE_RATE, npy_rate=RATE))
        try:
            for block in meter:
                assert block.dtype == np.float32 and np.isfinite(block).all()
            outcome, message = "decoded", f"{meter.samples / SAMPLE_RATE:.2f} s"
        except UserError as error:
            outcome, message = "refused", str(error)
            whole = "\n" not in message and len(message) <= 500
            if not whole or not message.startswith(f"{path}: "):
                outcome = "unclear"
        except Exception as error:
            outcome, message = "traceback", f"{type(error).__name__}: {error}"
        with open("/proc/self/status") as file:
            peak = next(line for line in file if line.startswith("VmHWM")).split()[1]
        found = (outcome, message, time.monotonic() - began, int(peak))
        print(json.dumps(found), flush=True)


def outcomes(folder: Path) -> dict[str, tuple[str, str, float, int]]:
    """Name → decoded, refused, unclear, traceback, hang or crash; the message;
    seconds; the process's peak memory in KiB so far."""
    waiting = sorted(folder.iterdir())
    found = {}
    while waiting:
        child = subprocess.Popen(
            [sys.executable, __file__, "--decode", *waiting],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # Decoders complain there.
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            text=True,
        )
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(
            target=lambda out=child.stdout, lines=lines: [
                lines.put(line) for line in (*out, "")
            ],
            daemon=True,
        ).start()
        assert lines.get(timeout=START_SECONDS) == "ready\n"
        while waiting:
            path = waiting.pop(0)
            try:
                line = lines.get(timeout=FILE_SECONDS)
            except queue.Empty:
                found[path.name] = ("hang", "", FILE_SECONDS, 0)
                break
            if not line:
                found[path.name] = ("crash", f"exit status {child.wait()}", 0.0, 0)
                break
            found[path.name] = tuple(json.loads(line))
        child.kill()
        child.wait()
    return found


def run(count: int, seed: int, songs: list[Path]) -> dict[str, tuple]:
    """Makes and decodes mutants of generated songs, and of `songs`."""
    with tempfile.TemporaryDirectory() as folder:
        whole, damaged = Path(folder, "whole"), Path(folder, "damaged")
        whole.mkdir()
        damaged.mkdir()
        sources = [*originals(whole, seconds=2.0), *songs]
        write_mutants(damaged, sources, count, seed)
        return outcomes(damaged)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--songs", type=Path, nargs="*", default=[])
    parser.add_argument("--list", action="store_true", help="print every file")
    parser.add_argument("--decode", type=Path, nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.decode is not None:
        decode(given.decode)
        return
    found = run(given.count, given.seed, given.songs)
    table = collections.defaultdict(collections.Counter)
    for name, (outcome, message, *_) in found.items():
        table[name.split("_", 1)[1].rsplit(".", 1)[1]][outcome] += 1
        if given.list or outcome not in ("decoded", "refused"):
            print(f"{outcome:9} {name}: {message}")
    for suffix, counts in sorted(table.items()):
        print(f"{suffix:5}", ", ".join(f"{n} {what}" for what, n in counts.items()))
    slowest = max(found, key=lambda name: found[name][2])
    print(f"{len(found)} files; the slowest took {found[slowest][2]:.2f} s ({slowest})")
    print(f"peak memory {max(peak for *_, peak in found.values()) / 1024:.0f} MiB")
    bad = {"unclear", "traceback", "hang", "crash"}
    sys.exit(any(outcome in bad for outcome, *_ in found.values()))


if __name__ == "__main__":
    main()

r"""Measures one accelerator card: a GPU, or a TPU chip; made for seven minutes.

    python benchmarks/card.py --out=card.json
    python benchmarks/card.py --parts=step,decode
    python benchmarks/card.py --small                       (any machine)

Random weights in the shapes of Vicuna 7B and MERT-330M are made on the device. Needs
jax for the device, flax, jaxtyping and absl-py, and nothing else; PyTorch and
`transformers` for the part `original` only. Tested with jax 0.10.2; untested with 0.11
and 0.12, for which it is written as well.

    peak       large products in bfloat16: the rate that utilisation is a share of
    copy       memory copied and read: the rate that decoding is a share of
    step       an update of the adapter, packed rows of 1,280 tokens, bfloat16 and int8
    encode     clips of 10 s: times real time
    decode     1, 16 and 64 rows with 1,000 tokens of context
    captions   30 s of music → 100 tokens, in batches (public record: 25.15 per second)
    original   the same work through `transformers` in PyTorch

A part that another needs is measured, too. Each part has a share of `--minutes`; what
would begin after its end, or does not fit into memory, is noted as not run, and the
others go on. After Ctrl-C, what was measured is written. The JSON holds every time
(median, least, most, compilation apart) and the device; printed at the end is the
table for docs/BENCHMARKS.md. On a CPU all shapes are small, which shows that it runs
and says nothing of speed.
"""

import dataclasses
import datetime
import functools
import gc
import importlib.metadata
import itertools
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

PARTS = {
    # Name: its share of the time, and the parts whose results it needs.
    "peak": (25, ()),
    "copy": (10, ()),
    "step": (110, ("peak",)),
    "encode": (45, ("peak",)),
    "decode": (100, ("copy",)),
    "captions": (60, ()),
    "original": (5, ("step", "encode", "decode")),
}
CHOSEN = flags.DEFINE_list(
    "parts", list(PARTS), "parts to measure, of " + ", ".join(PARTS)
)
OUT = flags.DEFINE_string("out", "card.json", "the JSON to write")
SMALL = flags.DEFINE_bool("small", False, "small shapes, as always on a CPU")
MINUTES = flags.DEFINE_float(
    "minutes", 6.5, "time within which every measurement must begin"
)
ROWS = flags.DEFINE_list(
    "rows", [], "rows of an update, each with and without recomputation"
)
THEIRS = flags.DEFINE_bool("theirs", False, "internal: measure PyTorch")
# JAX takes three quarters of a GPU's memory; a 7B with a cache needs more.
os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.95")
# What is measured is the checkout that this file is in; it need not be installed.
sys.path.insert(1, str(Path(__file__).parents[1]))
PACKAGES = ("jax", "jaxlib", "flax")


class Refused(Exception):
    """The command line is wrong; one sentence says how."""


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; a mistake ends the program with one sentence and status 2."""
    try:
        rest = flags.FLAGS(argv)
        check(rest[1:])
    except (flags.Error, Refused) as error:
        sentence = " ".join(str(error).split())
        print(f"error: {sentence} (try --help)", file=sys.stderr)
        sys.exit(2)
    return rest


def check(words: Sequence[str]) -> None:
    """Checks what was parsed.

    Raises:
      Refused: a value cannot be used.
    """
    if words:
        raise Refused(f"{words[0]!r} is not a flag")
    if unknown := [name for name in CHOSEN.value if name not in PARTS]:
        raise Refused(f"--parts: {unknown[0]!r} is not one of {', '.join(PARTS)}")
    if not CHOSEN.value:
        raise Refused(f"--parts is empty: name some of {', '.join(PARTS)}")
    if not 0 < MINUTES.value < float("inf"):
        raise Refused(f"--minutes={MINUTES.value} must be above 0")
    for rows in ROWS.value:
        if not rows.isdecimal() or int(rows) == 0:
            raise Refused(f"--rows: {rows!r} is not a positive whole number")
    folder = Path(OUT.value).parent
    if not folder.is_dir() or Path(OUT.value).is_dir():
        raise Refused(f"--out={OUT.value}: name a file in a folder that exists")


def needed(chosen: Sequence[str]) -> list[str]:
    """The chosen parts and those that they need, in the order of `PARTS`."""
    names = set(chosen)
    for name in reversed(PARTS):
        if name in names:
            names.update(PARTS[name][1])
    return [name for name in PARTS if name in names]


def describe(small: bool) -> dict[str, Any]:
    """The device, the versions and the date."""
    import jax

    import musilingo_jax

    device = jax.devices()[0]
    memory = (device.memory_stats() or {}).get("bytes_limit")
    return {
        "benchmark": "card",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": {
            "kind": device.device_kind,
            "platform": device.platform,
            "count": jax.device_count(),
            "memory_bytes": memory,
        },
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
            "musilingo_jax": musilingo_jax.__version__,
        },
        "small": small,
    }


def write(results: dict[str, Any]) -> None:
    """Writes the JSON, whole or not at all."""
    path = Path(OUT.value)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    new.replace(path)


def main(argv: list[str]) -> int:
    """Measures the parts; returns 1 if one failed and 130 after Ctrl-C."""
    del argv
    from on_card import original, sizes, theirs
    from on_card.part import Clock

    if THEIRS.value:
        large = None if SMALL.value else sizes.CARD
        print(json.dumps(theirs.measure_theirs(large, sizes.SMALL)))
        return 0
    clock, chosen = Clock(60 * MINUTES.value), needed(CHOSEN.value)
    if added := [name for name in chosen if name not in CHOSEN.value]:
        clock.say(f"measured, too, because others need it: {', '.join(added)}")
    found = None
    try:
        if "original" in chosen:
            # JAX takes most of a GPU's memory as soon as it starts.
            clock.say("original: PyTorch in another process …")
            found = original.measure_in_another_process(small=SMALL.value)
        return run(chosen, clock, found)
    except KeyboardInterrupt:
        print("stopped before a part began; nothing was written", file=sys.stderr)
        return 130


def run(chosen: Sequence[str], clock: Any, found: dict[str, Any] | None) -> int:
    """Measures the parts on the device that JAX finds, and writes what they give."""
    import jax
    from on_card import captions, ceilings, decode, encode, original, sizes, step, table
    from on_card.part import Part

    on_cpu = jax.default_backend() == "cpu"
    if on_cpu and not SMALL.value:
        clock.say("JAX finds no accelerator: small shapes, to show that all parts run")
    small = SMALL.value or on_cpu
    size = sizes.SMALL if small else sizes.CARD
    if ROWS.value:
        rows = map(int, ROWS.value)
        updates = tuple(itertools.product(rows, (False, True)))
        size = dataclasses.replace(size, updates=updates)
    functions: dict[str, Callable[..., None]] = {
        "peak": ceilings.measure_peak,
        "copy": ceilings.measure_copy,
        "step": step.measure_step,
        "encode": encode.measure_encode,
        "decode": decode.measure_decode,
        "captions": captions.measure_captions,
    }
    best, parts = ceilings.Ceilings(), {}
    results = describe(small) | {"stopped": False, "parts": {}}
    try:
        for place, name in enumerate(chosen):
            shares = sum(PARTS[other][0] for other in chosen[place:])
            part = Part(name, clock, clock.left * PARTS[name][0] / shares)
            parts[name] = part
            results["parts"][name] = {"measurements": part.measurements}
            began = clock.elapsed
            if name == "original":
                ours = {name: part.measurements for name, part in parts.items()}
                backend = jax.default_backend()
                original.compare(size, found or {}, ours, part, platform=backend)
            else:
                part.guard(functools.partial(functions[name], size, best, part))
            results["parts"][name]["seconds"] = clock.elapsed - began
            write(results)
            gc.collect()
            jax.clear_caches()
    except KeyboardInterrupt:
        results["stopped"] = True
        print("stopped; what was measured is written", file=sys.stderr)
    if found and "versions" in found:
        results["versions"] |= found["versions"]
    results["seconds"] = clock.elapsed
    results["table"] = table.markdown(results)
    write(results)
    print(f"\n{results['table']}\n\n{OUT.value}: all figures", flush=True)
    if results["stopped"]:
        return 130
    return 1 if any(part.failed for part in parts.values()) else 0


if __name__ == "__main__":
    app.run(main, flags_parser=parse)

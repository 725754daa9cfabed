"""The original's arithmetic in PyTorch, beside ours of the same run."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from on_card import theirs
from on_card.part import Measurement, Part
from on_card.sizes import Sizes

# Seconds that the other process may take.
LIMIT = 120
_CARD = Path(__file__).parents[1] / "card.py"


def measure_in_another_process(*, small: bool) -> dict[str, Any]:
    """What `theirs` finds; it must be called before JAX takes the device's memory.

    Args:
      small: whether to measure on the CPU.

    Returns:
      As `measure_theirs`.
    """
    command = [sys.executable, str(_CARD), "--theirs", f"--small={small}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {"not_run": f"PyTorch's process took longer than {LIMIT} s"}
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        return {"not_run": f"PyTorch's process ended with: {lines[-1][:200]}"}


def compare(
    sizes: Sizes,
    found: Mapping[str, Any],
    ours: Mapping[str, list[Measurement]],
    part: Part,
    *,
    platform: str,
) -> None:
    """Measurements of theirs, with ours of the same work in bfloat16.

    An update is compared per token, with the best of ours; the encoder at the same
    batch; decoding at one row.

    Args:
      sizes: of both.
      found: of the other process.
      ours: the measurements of parts of this run.
      part: gets the measurements.
      platform: that JAX computes on.
    """
    if "not_run" in found:
        part.not_run(found["not_run"])
        return
    if (found["device"] == "cuda") != (platform == "gpu"):
        part.not_run(f"PyTorch sees no {platform}, on which JAX computes")
        return
    works = {
        "encode": (sizes.encode_batches[0] * sizes.clip_seconds, "times_real_time"),
        "step": (
            theirs.BATCH_SIZE * theirs.ACCUMULATE * sizes.example_length,
            "tokens_per_second",
        ),
        "decode": (sizes.decode_steps, "tokens_per_second"),
    }
    for work, (amount, rate_name) in works.items():

        def figures(
            work: str = work, amount: float = amount, rate_name: str = rate_name
        ) -> dict[str, Any]:
            if work in found["failed"]:
                return {"not_run": found["failed"][work]}
            measured = found["times"][work]
            rate = amount / measured["seconds"]
            best = _our_rate(work, sizes, ours.get(work, []), rate_name)
            return {
                **measured,
                rate_name: rate,
                "ours_times_as_fast": best / rate if best else None,
            }

        part.measure(f"{work}, transformers, bfloat16", figures, work=work)


def _our_rate(
    work: str, sizes: Sizes, measured: list[Measurement], rate_name: str
) -> float | None:
    """Our best rate of the same work; None if it was not measured."""
    same = {
        "encode": {"clips": sizes.encode_batches[0]},
        "step": {"weights": "bfloat16"},
        "decode": {"weights": "bfloat16", "rows": 1},
    }[work]
    rates = [
        made[rate_name]
        for made in measured
        if rate_name in made and same.items() <= made.items()
    ]
    return max(rates, default=None)

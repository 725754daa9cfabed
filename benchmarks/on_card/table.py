"""The results as people read them: a line for each measurement, and one table."""

from collections.abc import Mapping
from typing import Any

# Figure: how it is written, in this order.
FORMATS = {
    "tflop_per_second": "{:.3g} TFLOP/s",
    "gb_per_second": "{:.4g} GB/s",
    "gigabytes": "{:.3g} GB",
    "captions_per_second": "{:.2f} captions/s",
    "tokens_per_second": "{:,.0f} tokens/s",
    "times_real_time": "{:,.0f} × real time",
    "mfu": "{:.1%} MFU",
    "mfu_6n": "{:.1%} MFU as 6N",
    "bandwidth_share": "{:.1%} of the bandwidth",
    "ours_times_as_fast": "ours {:.2f} times as fast",
}


def figures(made: Mapping[str, Any]) -> str:
    """The figures of a measurement, or why it has none."""
    if "failed" in made:
        return f"failed: {made['failed']}"
    if "not_run" in made:
        return f"not run: {made['not_run']}"
    written = [
        text.format(made[name])
        for name, text in FORMATS.items()
        if made.get(name) is not None
    ]
    return ", ".join([*_milliseconds(made), *written])


def markdown(results: Mapping[str, Any]) -> str:
    """The table for docs/BENCHMARKS.md.

    Args:
      results: what `card.py` writes as JSON.
    """
    device, versions = results["device"], results["versions"]
    lines = [
        f"{device['kind']} ({device['platform']}), {results['date'][:10]}, "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}"
        f"{'; small shapes, which say nothing of speed' if results['small'] else ''}:",
        "",
        "| part | what | time (least to most) | compiled in | result |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, part in results["parts"].items():
        for made in part["measurements"]:
            time = compiled = ""
            if "seconds" in made:
                time, *_ = _milliseconds(made)
            if "compile_seconds" in made:
                compiled = f"{made['compile_seconds']:.1f} s"
            untimed = {key: made[key] for key in made if key != "seconds"}
            result = figures(untimed).replace("|", "\\|")
            lines.append(
                f"| {name} | {made['what']} | {time} | {compiled} | {result} |"
            )
    return "\n".join(lines)


def _milliseconds(made: Mapping[str, Any]) -> list[str]:
    """The median time and its range, if it was measured."""
    if "seconds" not in made:
        return []
    median, least, most = (
        f"{1000 * made[name]:,.4g}"
        for name in ("seconds", "least_seconds", "most_seconds")
    )
    return [f"{median} ms ({least} to {most})"]

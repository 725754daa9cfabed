"""Writes plans as text for people."""

from collections.abc import Sequence

from musilingo_jax.plan.compile import CompiledPlan, gib
from musilingo_jax.plan.program_costs import ProgramCosts
from musilingo_jax.plan.roofline import Roofline

_ADVICE = {
    "train": "Spread the weights (--config.mesh.fsdp, .tensor), halve them "
    "(--config.model.quantization=int8), or take fewer rows at once and accumulate "
    "more; if it is vmem, take smaller blocks of attention (query_block, key_block); "
    "--search tries.",
    "encode": "Take fewer clips at once (--batch), or shorter ones (--seconds).",
    "read": "Spread the weights (--config.mesh.tensor), halve them "
    "(--config.model.quantization=int8), or take fewer prompts at once (--batch).",
    "decode": "Spread the weights (--config.mesh.tensor), halve them "
    "(--config.model.quantization=int8), or take fewer rows at once (--batch).",
}
_MEMORY = {
    "weights": "frozen weights",
    "adapter": "adapter",
    "optimiser": "optimiser",
    "cache": "cache",
    "rows": "answers so far",
    "bank": "prefixes",
    "batch": "batch",
    "layout": "padding of the above",
    "temporary": "temporary arrays",
    "program": "program",
}


def describe(plan: CompiledPlan) -> str:
    """One plan in full."""
    job, topology = plan.job, plan.job.topology
    chip = topology.chip
    mesh = " ".join(f"{axis}={size}" for axis, size in job.mesh.items())
    lines = [
        f"{topology.sold_as}: {topology.size} × {chip.device_kind} ({topology.name}), "
        f"mesh {mesh}",
        *job.heading(),
        "",
        f"memory per {topology.unit}",
    ]
    for part, size in plan.memory.items():
        line = f"  {_MEMORY[part]:22} {gib(size):>12}"
        if part == "temporary" and plan.peak is not None:
            line += f"   in use at once: {gib(plan.peak)}"
        lines.append(line)
    if not plan.fits:
        lines += [
            "",
            f"DOES NOT FIT into the {gib(chip.memory)} that a program may use: "
            f"{plan.refusal}.",
            _ADVICE[job.program],
        ]
        return "\n".join(lines)
    share = plan.total / chip.memory
    lines.append(
        f"  {'total':22} {gib(plan.total):>12}   fits: {share:.0%} of the "
        f"{gib(chip.memory)} that a program may use"
    )
    if plan.costs is None or plan.roofline is None:
        lines += ["", f"computation, exchange and time: unknown ({plan.unknown})"]
    else:
        lines += _costs(plan, plan.costs, plan.roofline)
    lines.append(f"(compiled in {plan.compile_seconds:.0f} s)")
    return "\n".join(lines)


def _costs(plan: CompiledPlan, costs: ProgramCosts, roofline: Roofline) -> list[str]:
    """The lines on computation, exchange and time."""
    job, ridge = plan.job, plan.job.topology.chip.ridge
    unit = job.topology.unit
    lines = [
        "",
        f"computation per {unit} and {job.run}",
        f"  {'model FLOPs':22} {_si(plan.model_flops, 'FLOP'):>12}   all {unit}s: "
        f"{_si(job.model_flops, 'FLOP')}",
        f"  {'executed FLOPs':22} {_si(costs.flops, 'FLOP'):>12}   "
        f"{costs.flops / plan.model_flops:.2f} × (recomputed, masked or padded)",
        f"  {'to and from HBM':22} {_si(costs.traffic, 'B'):>12}",
        *(
            f"    {kernel.name}: {_si(kernel.flops, 'FLOP')} and "
            f"{_si(kernel.bytes, 'B')} of these, in {kernel.times:,}"
            for kernel in costs.kernels
        ),
        f"  {'intensity':22} {roofline.intensity:>7,.0f} FLOP/B   the {unit}'s ridge "
        f"is at {ridge:,.0f}: "
        + ("compute-bound" if roofline.intensity >= ridge else "memory-bound"),
        "",
        f"exchange per {unit} and {job.run}",
    ]
    if not costs.exchanges:
        lines.append("  none")
    lines += [
        f"  {exchange.kind:22} {_si(exchange.bytes, 'B'):>12}   sent, in "
        f"{exchange.count:,}"
        for exchange in costs.exchanges
    ]
    lines += ["", f"time of a run, at least: one {job.run}"]
    lines += [
        f"  {name:22} {seconds * 1e3:>9,.1f} ms"
        + ("   ← the bound" * (name == roofline.bound))
        for name, seconds in roofline.seconds.items()
    ]
    lines += [
        f"  at most {job.summary(plan.figures or {})}; {plan.most_utilisation:.0%} of "
        "the peak in model FLOPs",
        "Time: a lower bound, the longest of the three at published rates; it takes "
        "longer.",
    ]
    if job.is_loop:
        lines.append(
            f"Counted is one {job.run}: one iteration of the program's loop, which "
            f"ends when its data say so. Besides, {_si(costs.outside, 'B')} move to "
            "and from HBM before and after the loop."
        )
    if costs.unknown_loops:
        lines.append(
            "Counted as one iteration, because their number is not in the program: "
            f"{', '.join(costs.unknown_loops)}"
        )
    return lines


def ranking(plans: Sequence[CompiledPlan]) -> str:
    """A table of the plans of a search, in their order.

    "update ≥" is the longest of the three times; "apart" is their sum, by which plans
    are ranked.
    """
    rows: list[tuple[str, ...]] = [
        (
            "mesh d×f×t",
            "weights",
            "rows × accumulate",
            "memory",
            "update ≥",
            "apart",
            "bound by",
        )
    ]
    for plan in plans:
        times = ("", "", "")
        if plan.roofline is not None:
            times = (
                f"{plan.roofline.least_seconds * 1e3:,.0f} ms",
                f"{plan.roofline.apart_seconds * 1e3:,.0f} ms",
                plan.roofline.bound,
            )
        elif plan.fits:
            times = ("unknown", "unknown", "unknown")
        rows.append(
            (
                "×".join(str(size) for size in plan.job.mesh.values()),
                plan.job.weights,
                plan.job.size,
                gib(plan.total) if plan.fits else "does not fit",
                *times,
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def markdown(plans: Sequence[CompiledPlan]) -> str:
    """A table with a line for each plan."""
    head = (
        "slice",
        "program",
        "weights",
        "mesh data × fsdp × tensor",
        "one run",
        "memory per device: weights + temporary, total of available",
        "executed FLOPs per device",
        "bytes to and from HBM",
        "FLOP/B (ridge)",
        "sent per device",
        "takes at least",
        "bound by",
        "so at most",
    )
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for plan in plans:
        job, chip = plan.job, plan.job.topology.chip
        cells = [
            job.topology.sold_as,
            job.program,
            job.weights,
            " × ".join(str(size) for size in job.mesh.values()),
            job.size,
        ]
        if plan.fits:
            cells.append(
                f"{gib(plan.memory['weights'])} + {gib(plan.memory['temporary'])}, "
                f"{gib(plan.total)} of {gib(chip.memory)}"
            )
        else:
            cells.append(f"does not fit: {plan.refusal}")
        if plan.costs is not None and plan.roofline is not None:
            sent = plan.roofline.sent
            cells += [
                _si(plan.costs.flops, "FLOP"),
                _si(plan.costs.traffic, "B"),
                f"{plan.roofline.intensity:,.0f} ({chip.ridge:,.0f})",
                _si(sent, "B") if sent else "nothing",
                _ms(plan.roofline.least_seconds),
                plan.roofline.bound,
                job.summary(plan.figures or {}),
            ]
        else:
            cells += ["unknown" if plan.fits else ""] * 7
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _ms(seconds: float) -> str:
    """Milliseconds for people: 253 ms, 16.5 ms."""
    size = seconds * 1e3
    return f"{size:,.0f} ms" if size >= 99.5 else f"{size:.3g} ms"


def _si(value: float, unit: str) -> str:
    """1.5e13, "FLOP" → "15.0 TFLOP"."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:,.1f} {prefix}{unit}"
    return f"{value:,.0f} {unit}"

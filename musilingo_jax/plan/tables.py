"""Writes plans as text for people."""

from collections.abc import Sequence

from musilingo_jax.plan.compile import CompiledPlan, gib
from musilingo_jax.plan.program_costs import ProgramCosts
from musilingo_jax.plan.roofline import Roofline

_MEMORY = {
    "weights": "frozen weights",
    "adapter": "adapter",
    "optimiser": "optimiser",
    "batch": "batch",
    "layout": "padding of the above",
    "temporary": "temporary arrays",
    "program": "program",
}
_NOTE = (
    "Time: a lower bound, the longest of the three at published rates; an update takes "
    "longer."
)


def describe(plan: CompiledPlan) -> str:
    """One plan in full."""
    job, chip = plan.job, plan.job.topology.chip
    topology, stage, llama = job.topology, job.stage, job.shapes.language_model
    mesh = " ".join(f"{axis}={size}" for axis, size in job.mesh.items())
    lines = [
        f"{topology.sold_as}: {topology.chips} × {chip.device_kind} ({topology.name}), "
        f"mesh {mesh}",
        f"  language model    {llama.depth} layers × {llama.width}, "
        f"{job.quantization or job.dtype} ({job.shapes.source})",
        f"  update of {job.name}  {stage.batch_size * stage.accumulate} examples in "
        f"{stage.accumulate} × {stage.rows} rows of {job.row.length:,} tokens, "
        f"{job.row.windows} of them audio, {job.row.answers} of answers",
        "",
        "memory per chip",
    ]
    lines += [
        f"  {_MEMORY[part]:22} {gib(size):>12}" for part, size in plan.memory.items()
    ]
    if not plan.fits:
        lines += [
            "",
            f"DOES NOT FIT into the {gib(chip.memory)} that a program may use: "
            f"{plan.refusal}.",
            "Spread the weights (--config.mesh.fsdp, .tensor), halve them "
            "(--config.model.quantization=int8), or take fewer rows at once and "
            "accumulate more; --search tries.",
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
    lines = [
        "",
        "computation per chip and update",
        f"  {'model FLOPs':22} {_si(plan.model_flops, 'FLOP'):>12}   all chips: "
        f"{_si(job.model_flops, 'FLOP')}",
        f"  {'executed FLOPs':22} {_si(costs.flops, 'FLOP'):>12}   "
        f"{costs.flops / plan.model_flops:.2f} × (recomputed layers, masked pairs)",
        *(
            f"    {kernel.name}: {_si(kernel.flops, 'FLOP')} and "
            f"{_si(kernel.bytes, 'B')} of these, in {kernel.times:,}"
            for kernel in costs.kernels
        ),
        f"  {'to and from HBM':22} {_si(costs.traffic, 'B'):>12}",
        f"  {'intensity':22} {roofline.intensity:>7,.0f} FLOP/B   the chip's ridge is "
        f"at {ridge:,.0f}: "
        + ("compute-bound" if roofline.intensity >= ridge else "memory-bound"),
        "",
        "exchange per chip and update",
    ]
    if not costs.exchanges:
        lines.append("  none")
    lines += [
        f"  {exchange.kind:22} {_si(exchange.bytes, 'B'):>12}   sent, in "
        f"{exchange.count:,}"
        for exchange in costs.exchanges
    ]
    lines += ["", "time of an update, at least"]
    lines += [
        f"  {name:22} {seconds * 1e3:>9,.1f} ms"
        + ("   ← the bound" * (name == roofline.bound))
        for name, seconds in roofline.seconds.items()
    ]
    lines += [
        f"  at most {job.tokens / roofline.least_seconds:,.0f} tokens/s and "
        f"{plan.most_utilisation:.0%} of the peak in model FLOPs",
        _NOTE,
    ]
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
            "rows × acc. of tokens",
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
                plan.job.quantization or plan.job.dtype,
                _rows(plan),
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
        "weights",
        "mesh data × fsdp × tensor",
        "rows × accumulate of tokens",
        "memory per chip: weights + temporary, total of available",
        "executed FLOPs per chip",
        "FLOP/B (ridge)",
        "sent per chip",
        "update takes at least",
        "bound by",
    )
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for plan in plans:
        job, chip = plan.job, plan.job.topology.chip
        cells = [
            job.topology.sold_as,
            job.quantization or job.dtype,
            " × ".join(str(size) for size in job.mesh.values()),
            _rows(plan),
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
                f"{plan.roofline.intensity:,.0f} ({chip.ridge:,.0f})",
                _si(sent, "B") if sent else "nothing",
                f"{plan.roofline.least_seconds * 1e3:,.0f} ms",
                plan.roofline.bound,
            ]
        else:
            cells += ["unknown" if plan.fits else ""] * 5
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _rows(plan: CompiledPlan) -> str:
    """E.g. "8 × 4 of 1,024": 4 batches of 8 rows of 1,024 tokens."""
    stage = plan.job.stage
    return f"{stage.rows} × {stage.accumulate} of {plan.job.row.length:,}"


def _si(value: float, unit: str) -> str:
    """1.5e13, "FLOP" → "15.0 TFLOP"."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:,.1f} {prefix}{unit}"
    return f"{value:,.0f} {unit}"

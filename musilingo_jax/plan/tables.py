"""Plans, written for people."""

from collections.abc import Sequence

from musilingo_jax.plan.compile import CompiledPlan, gib

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
    "Time: no update can be faster than the longest of the three, at published rates;"
    " it will be slower."
)


def describe(plan: CompiledPlan) -> str:
    """All that is known of one plan."""
    job, chip = plan.job, plan.job.topology.chip
    topology, stage, llama = job.topology, job.stage, job.shapes.language_model
    mesh = " ".join(f"{axis}={size}" for axis, size in job.mesh.items())
    lines = [
        f"{topology.sold_as}: {topology.chips} × {chip.device_kind} ({topology.name}), "
        f"mesh {mesh}",
        f"  language model    {llama.depth} layers × {llama.width}, "
        f"{job.quantization or job.dtype} ({job.shapes.told_by})",
        f"  update of {job.name}  {stage.batch_size * stage.accumulate} examples in "
        f"{stage.accumulate} × {stage.rows} rows of {job.row.length:,} tokens, "
        f"{job.row.windows} of them audio, {job.row.answers} to be said",
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
    part = plan.total / chip.memory
    lines += [
        f"  {'total':22} {gib(plan.total):>12}   fits: {part:.0%} of the "
        f"{gib(chip.memory)} that a program may use",
        "",
        "computation per chip and update",
        f"  {'model FLOPs':22} {_si(plan.model_flops, 'FLOP'):>12}   all chips: "
        f"{_si(job.model_flops, 'FLOP')}",
        f"  {'executed FLOPs':22} {_si(plan.flops, 'FLOP'):>12}   "
        f"{plan.flops / plan.model_flops:.2f} × (recomputed layers, masked pairs)",
        f"  {'to and from HBM':22} {_si(plan.traffic, 'B'):>12}",
        f"  {'intensity':22} {plan.intensity:>7,.0f} FLOP/B   the chip's ridge is at "
        f"{plan.ridge:,.0f}: "
        + ("computes" if plan.intensity >= plan.ridge else "waits for memory"),
        "",
        "exchange per chip and update",
    ]
    if not plan.exchanges:
        lines.append("  none")
    lines += [
        f"  {exchange.kind:22} {_si(exchange.bytes, 'B'):>12}   sent, in "
        f"{exchange.count:,}"
        for exchange in plan.exchanges
    ]
    lines += ["", "time of an update, at least"]
    bound = max(plan.seconds, key=plan.seconds.get)
    lines += [
        f"  {name:22} {seconds * 1e3:>9,.1f} ms" + ("   ← the bound" * (name == bound))
        for name, seconds in plan.seconds.items()
    ]
    lines += [
        f"  at most {job.tokens / plan.least_seconds:,.0f} tokens/s and "
        f"{plan.most_utilisation:.0%} of the peak in model FLOPs",
        _NOTE,
        f"(compiled in {plan.compile_seconds:.0f} s)",
    ]
    if plan.unknown_loops:
        lines.append(
            f"Loops counted once, whose trips the compiler does not tell: "
            f"{', '.join(plan.unknown_loops)}"
        )
    return "\n".join(lines)


def ranking(found: Sequence[CompiledPlan]) -> str:
    """What a search has compiled, the best first.

    "update ≥": the longest of the three times; "apart": their sum, as if nothing went
    on at the same time, by which they are ranked.
    """
    rows = [
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
    for plan in found:
        bound = max(plan.seconds, key=plan.seconds.get)
        rows.append(
            (
                "×".join(str(size) for size in plan.job.mesh.values()),
                plan.job.quantization or plan.job.dtype,
                _rows(plan),
                gib(plan.total) if plan.fits else "does not fit",
                f"{plan.least_seconds * 1e3:,.0f} ms" if plan.fits else "",
                f"{plan.apart_seconds * 1e3:,.0f} ms" if plan.fits else "",
                bound if plan.fits else "",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def markdown(made: Sequence[CompiledPlan]) -> str:
    """A table of plans, a line each."""
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
    for plan in made:
        job = plan.job
        cells = [
            job.topology.sold_as,
            job.quantization or job.dtype,
            " × ".join(str(size) for size in job.mesh.values()),
            _rows(plan),
        ]
        if plan.fits:
            bound = max(plan.seconds, key=plan.seconds.get)
            sent = sum(exchange.bytes for exchange in plan.exchanges)
            cells += [
                f"{gib(plan.memory['weights'])} + {gib(plan.memory['temporary'])}, "
                f"{gib(plan.total)} of {gib(job.topology.chip.memory)}",
                _si(plan.flops, "FLOP"),
                f"{plan.intensity:,.0f} ({plan.ridge:,.0f})",
                _si(sent, "B") if sent else "nothing",
                f"{plan.least_seconds * 1e3:,.0f} ms",
                bound,
            ]
        else:
            cells += [f"does not fit: {plan.refusal}", "", "", "", "", ""]
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

"""Compiles a program for TPUs that are not there.

The program is the one that training, caching or answering runs (`job.py`), at full
size, compiled by the TPU's own compiler. So its memory and its exchange between devices
are not estimated: they are those of the program that would run. Its time is only
bounded from below (`roofline.py`).
"""

import contextlib
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax

from musilingo_jax.plan import kernels
from musilingo_jax.plan.job import Job
from musilingo_jax.plan.program_costs import ProgramCosts, costs_of
from musilingo_jax.plan.roofline import Roofline
from musilingo_jax.plan.tpu_slices import GIB
from musilingo_jax.runtime.sharding import make_mesh


@dataclass(frozen=True)
class CompiledPlan:
    """The result of compiling a job; per device unless stated otherwise.

    Attributes:
      job: what was compiled.
      refusal: why it does not fit; "" if it does. The compiler refuses temporary
        arrays that are larger than the memory, but does not count what is held besides.
      memory: bytes by part: the arguments of the program (the frozen weights first),
        what else is held, the padding of all these in tiled layouts, the temporary
        arrays of the program, and its code. Without the last three if the compiler
        refused it.
      peak: bytes of the temporary arrays that are in use at the same time, as the
        compiler says; None if unknown. It may reserve more, in gaps between arrays.
      model_flops: a device's share of the operations that the mathematics asks for.
      costs: of the program; None if it does not fit, or if they are unknown.
      unknown: why `costs` are unknown; "" if they are known or it does not fit.
      compile_seconds: time that the compiler took on this machine.
    """

    job: Job
    refusal: str
    memory: Mapping[str, float]
    peak: float | None
    model_flops: float
    costs: ProgramCosts | None
    unknown: str
    compile_seconds: float

    @property
    def fits(self) -> bool:
        """Whether there is room for the program and for all that it needs."""
        return not self.refusal

    @property
    def total(self) -> float:
        """Bytes of memory, of all parts."""
        return sum(self.memory.values())

    @property
    def roofline(self) -> Roofline | None:
        """The least time of a run; None without `costs`."""
        return Roofline(self.costs, self.job.topology) if self.costs else None

    @property
    def most_utilisation(self) -> float | None:
        """Model FLOPs of the least time, as a share of the chip's peak."""
        if self.roofline is None:
            return None
        peak = self.job.topology.chip.peak_flops
        return self.model_flops / peak / self.roofline.least_seconds

    @property
    def figures(self) -> dict[str, float] | None:
        """What the least time comes to, in the units of the program's users."""
        if self.costs is None or self.roofline is None:
            return None
        seconds = self.roofline.least_seconds
        return self.job.figures(self.costs, self.memory, seconds)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for scripts, in bytes, operations and seconds."""
        job, costs, roofline = self.job, self.costs, self.roofline
        exchanges = [asdict(exchange) for exchange in costs.exchanges] if costs else []
        return {
            "program": job.program,
            "topology": job.topology.name,
            "slice": job.topology.sold_as,
            "chips": job.topology.chips,
            "devices": job.topology.size,
            "mesh": dict(job.mesh),
            **job.to_dict(),
            "fits": self.fits,
            "refusal": self.refusal or None,
            "unknown": self.unknown or None,
            # Of a chip with several devices, of one of them.
            "per_chip": {
                "memory": dict(self.memory),
                "temporary_peak": self.peak,
                "memory_total": self.total if self.fits else None,
                "memory_available": job.topology.chip.memory,
                "flops": costs.flops if costs else None,
                "model_flops": self.model_flops,
                "traffic": costs.traffic if costs else None,
                "traffic_outside": costs.outside if costs else None,
                "intensity": roofline.intensity if roofline else None,
                "ridge": job.topology.chip.ridge,
                "exchanges": None if self.unknown else exchanges,
                "kernels": [asdict(k) for k in costs.kernels] if costs else None,
                "least_seconds": roofline.seconds if roofline else None,
            },
            "model_flops": job.model_flops,
            "least_seconds": roofline.least_seconds if roofline else None,
            "apart_seconds": roofline.apart_seconds if roofline else None,
            "most_utilisation": self.most_utilisation,
            "figures": self.figures,
            "unknown_loops": list(costs.unknown_loops) if costs else [],
            "compile_seconds": self.compile_seconds,
        }


def make_plan(job: Job) -> CompiledPlan:
    """Compiles the program of a job for its slice.

    Raises:
      UserError: rows do not divide over the mesh, or the compiler is not installed.
    """
    mesh = make_mesh(**job.mesh, devices=job.topology.devices())
    lowered = job.lower(mesh)
    memory = {**lowered.memory, **lowered.idle}
    share = job.model_flops / job.topology.size
    started = time.monotonic()
    try:
        compiled = lowered.program.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return CompiledPlan(
            job=job,
            refusal=_refusal(str(error)),
            memory=memory,
            peak=None,
            model_flops=share,
            costs=None,
            unknown="",
            compile_seconds=time.monotonic() - started,
        )
    seconds = time.monotonic() - started
    analysis: Any = compiled.memory_analysis()
    given = sum(lowered.memory.values())
    memory["layout"] = analysis.argument_size_in_bytes - given
    memory["temporary"] = (
        analysis.temp_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
    )
    memory["program"] = analysis.generated_code_size_in_bytes
    peak = (
        getattr(analysis, "peak_memory_in_bytes", 0) - analysis.argument_size_in_bytes
    )
    total, costs = sum(memory.values()), None
    refusal = unknown = ""
    if total > job.topology.chip.memory:
        refusal = f"all parts together take {gib(total)}"
    else:
        costs = costs_of(text_of(compiled), is_loop=job.is_loop)
    if isinstance(costs, str):
        unknown, costs = costs, None
    return CompiledPlan(
        job=job,
        refusal=refusal,
        memory=memory,
        peak=peak if 0 < peak <= memory["temporary"] else None,
        model_flops=share,
        costs=costs,
        unknown=unknown,
        compile_seconds=seconds,
    )


def text_of(compiled: Any) -> str:
    """The text of a compiled program; with all constants, if kernels are in it.

    Constants of more than ten numbers are left out of the usual text. A kernel's may
    tell which blocks it skips.
    """
    text = compiled.as_text()
    if kernels.KERNEL in text:
        # Without these, which are not public, more operations are counted.
        with contextlib.suppress(ImportError, AttributeError, TypeError):
            from jaxlib._hlo import HloPrintOptions

            options = HloPrintOptions()
            options.print_large_constants = True
            modules = compiled.runtime_executable().hlo_modules()
            text = "\n\n".join(module.to_string(options) for module in modules)
    return text


def _refusal(error: str) -> str:
    """The part of the compiler's error that tells how much memory is missing."""
    for pattern in (
        r"Used [\d.]+\w? of [\d.]+\w? hbm\. Exceeded hbm capacity by [\d.]+\w?",
        r"Ran out of memory in memory space vmem while allocating on stack for %[\w.]+",
        r"[Tt]otal memory required [^()]*\([^)]*\) exceeds available HBM \([^)]*\)",
    ):
        if found := re.search(pattern, error):
            return found.group()
    return error.partition("RESOURCE_EXHAUSTED")[2].strip(": ").partition("\n")[0] or (
        "the compiler ran out of memory"
    )


def gib(size: float) -> str:
    """Bytes for people: 13.5 GiB, 0.032 GiB."""
    return f"{size / GIB:,.3f} GiB" if size < 0.995 * GIB else f"{size / GIB:,.2f} GiB"

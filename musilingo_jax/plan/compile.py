"""Compiles the update of the adapter for TPUs that are not there.

The program is the one that training runs (`train_step.make_update`), at full size,
compiled by the TPU's own compiler. So its memory and its exchange between chips are not
estimated: they are those of the program that would run. Its time is only bounded from
below (`roofline.py`).
"""

import contextlib
import math
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from musilingo_jax.models.adapter import Adapter
from musilingo_jax.plan import kernels
from musilingo_jax.plan.job import Job
from musilingo_jax.plan.program_costs import ProgramCosts, costs_of
from musilingo_jax.plan.roofline import Roofline
from musilingo_jax.plan.tpu_slices import GIB
from musilingo_jax.pretrained import weights
from musilingo_jax.runtime.sharding import make_mesh, shardings
from musilingo_jax.training.train_step import TrainState, abstract_batch, make_update


@dataclass(frozen=True)
class CompiledPlan:
    """The result of compiling a job; per chip unless stated otherwise.

    Attributes:
      job: the update that was compiled.
      refusal: why the compiler refused it; "" if it fits.
      memory: bytes by part: the frozen weights, the adapter, the optimiser's state, the
        batch of an update, the padding of all these in tiled layouts, the temporary
        arrays of the program, and its code. Without the last three if it does not fit.
      model_flops: a chip's share of the operations that the mathematics asks for.
      costs: of the program; None if it does not fit, or if they are unknown.
      unknown: why `costs` are unknown; "" if they are known or it does not fit.
      compile_seconds: time that the compiler took on this machine.
    """

    job: Job
    refusal: str
    memory: Mapping[str, float]
    model_flops: float
    costs: ProgramCosts | None
    unknown: str
    compile_seconds: float

    @property
    def fits(self) -> bool:
        """Whether the compiler found room for the program."""
        return not self.refusal

    @property
    def total(self) -> float:
        """Bytes of memory, of all parts."""
        return sum(self.memory.values())

    @property
    def roofline(self) -> Roofline | None:
        """The least time of an update; None without `costs`."""
        return Roofline(self.costs, self.job.topology) if self.costs else None

    @property
    def most_utilisation(self) -> float | None:
        """Model FLOPs of the least time, as a share of the chip's peak."""
        if self.roofline is None:
            return None
        peak = self.job.topology.chip.peak_flops
        return self.model_flops / peak / self.roofline.least_seconds

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for scripts, in bytes, operations and seconds."""
        job, costs, roofline = self.job, self.costs, self.roofline
        exchanges = [asdict(exchange) for exchange in costs.exchanges] if costs else []
        return {
            "topology": job.topology.name,
            "slice": job.topology.sold_as,
            "chips": job.topology.chips,
            "stage": job.name,
            "mesh": dict(job.mesh),
            "batch_size": job.stage.batch_size,
            "rows": job.stage.rows,
            "accumulate": job.stage.accumulate,
            "row": asdict(job.row),
            "dtype": job.dtype,
            "quantization": job.quantization,
            "fits": self.fits,
            "refusal": self.refusal or None,
            "unknown": self.unknown or None,
            "per_chip": {
                "memory": dict(self.memory),
                "memory_total": self.total if self.fits else None,
                "memory_available": job.topology.chip.memory,
                "flops": costs.flops if costs else None,
                "model_flops": self.model_flops,
                "traffic": costs.traffic if costs else None,
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
            "unknown_loops": list(costs.unknown_loops) if costs else [],
            "compile_seconds": self.compile_seconds,
        }


def make_plan(job: Job) -> CompiledPlan:
    """Compiles the update of a job for its slice.

    Raises:
      UserError: rows do not divide over the mesh, or the compiler is not installed.
    """
    mesh = make_mesh(**job.mesh, devices=job.topology.devices())
    job.stage.check_rows(job.name, mesh)
    state, llama, batch = abstract_arguments(job, mesh)
    memory = {
        "weights": _held(llama),
        "adapter": _held(state.adapter),
        "optimiser": _held(state.optimiser),
        "batch": _held(batch),
    }
    share = job.model_flops / job.topology.chips
    placement = jax.tree.map(lambda leaf: leaf.sharding, state)
    update = make_update(job.stage, job.stage.optimiser(), placement)
    lowered = update.lower(state, llama, batch)
    started = time.monotonic()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return CompiledPlan(
            job=job,
            refusal=_refusal(str(error)),
            memory=memory,
            model_flops=share,
            costs=None,
            unknown="",
            compile_seconds=time.monotonic() - started,
        )
    seconds = time.monotonic() - started
    analysis = compiled.memory_analysis()
    memory["layout"] = analysis.argument_size_in_bytes - sum(memory.values())
    memory["temporary"] = (
        analysis.temp_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
    )
    memory["program"] = analysis.generated_code_size_in_bytes
    costs = costs_of(text_of(compiled))
    return CompiledPlan(
        job=job,
        refusal="",
        memory=memory,
        model_flops=share,
        costs=None if isinstance(costs, str) else costs,
        unknown=costs if isinstance(costs, str) else "",
        compile_seconds=seconds,
    )


def abstract_arguments(job: Job, mesh: Mesh) -> tuple[TrainState, Any, Any]:
    """State, language model and batch of an update, as shapes and shardings."""
    optimiser = job.stage.optimiser()

    def fresh() -> TrainState:
        widths = job.shapes.encoder_width, job.shapes.language_model.width
        adapter = Adapter(*widths, rngs=nnx.Rngs(0))
        # optax's type for a tree of parameters does not include modules.
        parameters: Any = adapter
        return TrainState(adapter=adapter, optimiser=optimiser.init(parameters))

    like = jax.eval_shape(fresh)
    state = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=place
        ),
        like,
        shardings(like, mesh),
    )
    llama = weights.abstract_language_model(
        job.shapes.language_model,
        dtype=job.dtype,
        quantization=job.quantization,
        mesh=mesh,
    )
    batch = abstract_batch(
        job.stage, width=job.shapes.encoder_width, mesh=mesh, **asdict(job.row)
    )
    return state, llama, batch


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


def _held(tree: Any) -> float:
    """Bytes of a tree's arrays on one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _refusal(error: str) -> str:
    """The part of the compiler's error that tells how much memory is missing."""
    for pattern in (
        r"Used [\d.]+\w? of [\d.]+\w? hbm\. Exceeded hbm capacity by [\d.]+\w?",
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

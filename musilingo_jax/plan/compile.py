"""What an update of the adapter would take of a TPU, asked of the compiler.

The program is the one that training runs (`update.make_update`), at full size, compiled
by the TPU's own compiler for chips that are not there. So its memory and its exchange
are not estimated: they are those of the program that would run.

The time is estimated, and only from below. Three things must happen, each at a chip's
published rate or slower; the longest of them is less than an update takes:

    compute     operations of the program ÷ bfloat16 operations a second
    memory      bytes that the program moves to and from HBM ÷ bandwidth of HBM
    exchange    bytes that a chip must send ÷ bandwidth of all its links
"""

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
from musilingo_jax.plan import program_costs
from musilingo_jax.plan.hlo import Program
from musilingo_jax.plan.job import Job
from musilingo_jax.plan.program_costs import Exchange
from musilingo_jax.plan.tpu_slices import GIB
from musilingo_jax.pretrained import weights
from musilingo_jax.runtime.sharding import make_mesh, shardings
from musilingo_jax.training import flops as costs
from musilingo_jax.training.train_step import TrainState, abstract_batch, make_update

MEMORY_PARTS = (
    "weights",
    "adapter",
    "optimiser",
    "batch",
    "layout",
    "temporary",
    "program",
)


@dataclass(frozen=True)
class CompiledPlan:
    """What was found out; all of it per chip unless it says otherwise.

    Attributes:
      job: what was asked.
      fits: whether the compiler found room for it.
      refusal: what it said if it did not; "" if it did.
      memory: bytes by part: the frozen weights, the adapter, the optimiser's state, the
        batch of an update, what the tiles of the layouts of these take besides, the
        temporary arrays of the program, and its code. Without the last two, if it does
        not fit.
      flops: operations that the program executes.
      model_flops: a chip's share of those that the mathematics asks for.
      traffic: bytes to and from HBM.
      exchanges: by kind of collective.
      unknown_loops: loops that were counted as one trip, for nobody could tell.
      compile_seconds: how long the compiler took, here.
    """

    job: Job
    fits: bool
    refusal: str
    memory: Mapping[str, float]
    flops: float
    model_flops: float
    traffic: float
    exchanges: tuple[Exchange, ...]
    unknown_loops: tuple[str, ...]
    compile_seconds: float

    @property
    def total(self) -> float:
        """Bytes of memory, of all parts."""
        return sum(self.memory.values())

    @property
    def seconds(self) -> dict[str, float]:
        """The least time of an update by what bounds it; see the top of the file."""
        topology = self.job.topology
        sent = sum(exchange.bytes for exchange in self.exchanges)
        return {
            "compute": self.flops / costs.peak_flops(topology.chip.device_kind),
            "memory": self.traffic / topology.chip.bandwidth,
            "exchange": sent / topology.exchange if sent else 0.0,
        }

    @property
    def least_seconds(self) -> float:
        """An update takes longer than that."""
        return max(self.seconds.values())

    @property
    def apart_seconds(self) -> float:
        """What it took at those rates if nothing went on at the same time."""
        return sum(self.seconds.values())

    @property
    def most_utilisation(self) -> float:
        """Model FLOPs per second, by the chip's peak, if an update took no longer."""
        peak = costs.peak_flops(self.job.topology.chip.device_kind)
        return self.model_flops / peak / self.least_seconds if self.flops else math.nan

    @property
    def intensity(self) -> float:
        """Operations per byte to or from HBM; a chip is busy from its `ridge` on."""
        return self.flops / self.traffic if self.traffic else math.nan

    @property
    def ridge(self) -> float:
        """Operations per byte at which HBM and arithmetic take equally long."""
        chip = self.job.topology.chip
        return costs.peak_flops(chip.device_kind) / chip.bandwidth

    def to_dict(self) -> dict[str, Any]:
        """For scripts: plain numbers, in bytes, operations and seconds."""
        job = self.job
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
            "per_chip": {
                "memory": dict(self.memory),
                "memory_total": self.total if self.fits else None,
                "memory_available": job.topology.chip.memory,
                "flops": self.flops if self.fits else None,
                "model_flops": self.model_flops,
                "traffic": self.traffic if self.fits else None,
                "intensity": self.intensity if self.fits else None,
                "ridge": self.ridge,
                "exchanges": [asdict(exchange) for exchange in self.exchanges],
                "least_seconds": self.seconds if self.fits else None,
            },
            "model_flops": job.model_flops,
            "least_seconds": self.least_seconds if self.fits else None,
            "apart_seconds": self.apart_seconds if self.fits else None,
            "most_utilisation": self.most_utilisation if self.fits else None,
            "unknown_loops": list(self.unknown_loops),
            "compile_seconds": self.compile_seconds,
        }


def make_plan(job: Job) -> CompiledPlan:
    """Compiles the update for the topology, and reads what the compiler made of it.

    Raises:
      UserError: rows do not divide over the mesh, or there is no compiler.
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
            fits=False,
            refusal=_refusal(str(error)),
            memory=memory,
            flops=0.0,
            model_flops=share,
            traffic=0.0,
            exchanges=(),
            unknown_loops=(),
            compile_seconds=time.monotonic() - started,
        )
    seconds = time.monotonic() - started
    told = compiled.memory_analysis()
    memory["layout"] = told.argument_size_in_bytes - sum(memory.values())
    memory["temporary"] = (
        told.temp_size_in_bytes + told.output_size_in_bytes - told.alias_size_in_bytes
    )
    memory["program"] = told.generated_code_size_in_bytes
    program = Program(compiled.as_text())
    return CompiledPlan(
        job=job,
        fits=True,
        refusal="",
        memory=memory,
        flops=program_costs.flops(program),
        model_flops=share,
        traffic=program_costs.traffic(program),
        exchanges=program_costs.exchanges(program),
        unknown_loops=tuple(program.unknown_loops),
        compile_seconds=seconds,
    )


def abstract_arguments(job: Job, mesh: Mesh) -> tuple[TrainState, Any, Any]:
    """State, language model and batch of an update, without any numbers."""
    optimiser = job.stage.optimiser()

    def fresh() -> TrainState:
        widths = job.shapes.encoder_width, job.shapes.language_model.width
        adapter = Adapter(*widths, rngs=nnx.Rngs(0))
        return TrainState(adapter=adapter, optimiser=optimiser.init(adapter))

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


def _held(tree: Any) -> float:
    """Bytes of a tree's arrays on one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _refusal(error: str) -> str:
    """The sentence of the compiler's error that says how much memory is missing."""
    for pattern in (
        r"Used [\d.]+\w? of [\d.]+\w? hbm\. Exceeded hbm capacity by [\d.]+\w?",
        r"[Tt]otal memory required [^()]*\([^)]*\) exceeds available HBM \([^)]*\)",
    ):
        if found := re.search(pattern, error):
            return found.group()
    return error.partition("RESOURCE_EXHAUSTED: ")[2].partition("\n")[0]


def gib(size: float) -> str:
    """Bytes for people: 13.5 GiB, 0.032 GiB."""
    return f"{size / GIB:,.3f} GiB" if size < 0.995 * GIB else f"{size / GIB:,.2f} GiB"

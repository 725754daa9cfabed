"""Which mesh, and how many rows at once: tries what a topology has, the best first.

Every update is of the same examples, so that nothing is learnt otherwise; what is open
is on which devices they are, how many at once, and in how many rows: as few as the
config has them in, unless there are more devices than that. A rough estimate puts the
candidates in order and the compiler, which takes a minute for each, decides.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from musilingo_jax.plan.compile import CompiledPlan, gib, make_plan
from musilingo_jax.plan.job import Job, resized
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.training import flops

# Candidates whose estimate is above the memory by more than this are not compiled.
_DOUBT = 1.15


@dataclass(frozen=True)
class Candidate:
    """A way to run the update, and what is expected of it per chip.

    Attributes:
      job: the way.
      memory: bytes.
      seconds: a rough time of an update, if nothing went on at the same time.
    """

    job: Job
    memory: float
    seconds: float


def search(job: Job, *, programs: int, seconds: float) -> list[CompiledPlan]:
    """Compiles the promising candidates.

    If none can fit in the type that the job has for its weights, int8 is tried.

    Args:
      job: the update; its mesh is not looked at.
      programs: to compile at most.
      seconds: after which no further one is begun.

    Returns:
      The plans that were made: those that fit first, the fastest of them first.

    Raises:
      UserError: no mesh can hold it.
    """
    promising = _promising(job)
    if not promising and not job.quantization:
        print(
            f"{job.topology.sold_as}: no room for weights in {job.dtype}; trying int8",
            file=sys.stderr,
        )
        promising = _promising(replace(job, quantization="int8"))
    if not promising:
        raise UserError(
            f"{job.topology.sold_as}: nothing fits, by a rough estimate, for no mesh "
            f"of its {job.topology.chips} chips leaves room for a row; name a larger "
            "slice, or a smaller --length"
        )
    started, made = time.monotonic(), []
    for number, candidate in enumerate(promising[:programs], start=1):
        spent = time.monotonic() - started
        if made and spent >= seconds:
            break
        left = min(len(promising), programs) - number + 1
        each = spent / len(made) if made else 60.0
        sizes = "×".join(str(size) for size in candidate.job.mesh.values())
        stage = candidate.job.stage
        print(
            f"{job.topology.sold_as}: compiling {number} of "
            f"{min(len(promising), programs)} (of {len(promising)} that may fit): mesh "
            f"{sizes}, {stage.accumulate} × {stage.rows} rows, about "
            f"{gib(candidate.memory)}; {min(left * each, seconds) / 60:.0f} min left",
            file=sys.stderr,
        )
        made.append(make_plan(candidate.job))
    return sorted(made, key=lambda plan: (not plan.fits, plan.apart_seconds))


def candidates(job: Job) -> Iterator[Candidate]:
    """All meshes, and all ways of splitting an update, that divide."""
    chips, llama = job.topology.chips, job.shapes.language_model
    densest = -(-job.stage.batch_size // job.stage.rows)
    examples = job.stage.batch_size * job.stage.accumulate
    for tensor in _divisors(chips):
        if llama.heads % tensor or llama.key_heads % tensor or llama.mlp_width % tensor:
            continue
        for fsdp in _divisors(chips // tensor):
            if llama.width % fsdp:
                continue
            data = chips // tensor // fsdp
            mesh = {"data": data, "fsdp": fsdp, "tensor": tensor}
            for accumulate in _divisors(examples):
                batch_size = examples // accumulate
                dealt = [
                    each
                    for each in _divisors(batch_size)
                    if each <= densest and batch_size // each % (data * fsdp) == 0
                ]
                if dealt:
                    way = resized(
                        job,
                        mesh=mesh,
                        accumulate=accumulate,
                        examples_per_row=max(dealt),
                    )
                    yield estimate(way)


def estimate(job: Job) -> Candidate:
    """Rough memory and time of a way to run the update, without compiling it.

    Time is the sum of three, as in `CompiledPlan.seconds`: arithmetic, with masked pairs;
    the weights, read for each batch forward, again forward (if layers are recomputed)
    and backward; what fsdp gathers and what tensor adds up, which is done as often.
    """
    llama, stage, topology = job.shapes.language_model, job.stage, job.topology
    fsdp, tensor = job.mesh["fsdp"], job.mesh["tensor"]
    chip, passes = topology.chip, 3 if stage.remat else 2
    stored = 1 if job.quantization else 2
    layer = flops.layer_weights(llama) * stored
    ends = 2 * llama.vocab * llama.width * 2
    local = stage.rows / (job.mesh["data"] * fsdp)
    places = local * job.row.length

    residual = places * llama.width * 4
    kept = residual * (llama.depth if stage.remat else 8 * llama.depth)
    scores = local * llama.heads / tensor * job.row.length**2 * 4
    inside = places * (4 * llama.width + 3 * llama.mlp_width) / tensor * 4
    logits = local * job.row.answers * llama.vocab * 4
    memory = (
        (layer * llama.depth + ends) / (fsdp * tensor)
        + (layer / tensor if fsdp > 1 else 0)
        + kept
        + 2 * scores
        + inside
        + 2 * logits
    )

    every = job.step_flops(attended=job.rows * job.row.length**2)
    compute = every * (1.5 if stage.remat else 1) / topology.chips
    read = passes * layer * llama.depth / tensor * stage.accumulate
    gathered = read * (fsdp - 1) / fsdp
    summed = (
        (2 * passes * llama.depth * residual * stage.accumulate)
        * (2 * (tensor - 1))
        / tensor
    )
    seconds = compute / flops.peak_flops(chip.device_kind) + read / chip.bandwidth
    if topology.exchange:
        seconds += (gathered + summed) / topology.exchange
    return Candidate(job, memory, seconds)


def _promising(job: Job) -> list[Candidate]:
    """Those with a chance to fit, the fastest first."""
    room = _DOUBT * job.topology.chip.memory
    fitting = [found for found in candidates(job) if found.memory <= room]
    return sorted(fitting, key=lambda found: found.seconds)


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]

"""Searches for the mesh and the batch with which an update is fastest on a slice.

Every candidate updates on the same examples, so that training gives the same adapter.
Candidates differ in the mesh, in the number of examples per batch, in what the backward
pass keeps (`remat`), and in the number of rows, which is the smallest that the config
packs them into and the mesh can divide. Each has the blocks of attention that are best
for its rows and heads (`attention_grid.py`). A rough estimate ranks them; then the
compiler, which takes a minute for each, decides by the least time.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from musilingo_jax.models.answer_loss import CHUNK
from musilingo_jax.models.attention_blocks import MULTIPLE
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.remat import POLICIES
from musilingo_jax.plan.attention_grid import best_blocks, causal_seconds
from musilingo_jax.plan.compile import CompiledPlan, gib, make_plan
from musilingo_jax.plan.train_program import TrainJob, resized
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import print_note
from musilingo_jax.training import flops

# Candidates whose estimated memory exceeds that of a chip by more are not compiled.
_DOUBT = 1.15


@dataclass(frozen=True)
class Candidate:
    """A way to run the update, and its estimated costs per device.

    Attributes:
      job: the update.
      memory: bytes.
      seconds: rough time of an update, if nothing overlapped.
    """

    job: TrainJob
    memory: float
    seconds: float


def search(job: TrainJob, *, programs: int, seconds: float) -> list[CompiledPlan]:
    """Compiles the promising candidates.

    If none can fit with the job's type of weights, int8 is tried.

    Args:
      job: the update; its mesh is ignored.
      programs: the most programs to compile.
      seconds: time after which no further program is started.

    Returns:
      The compiled plans: those that fit before the others, the fastest first.

    Raises:
      UserError: no mesh has enough memory.
    """
    promising = _promising(job)
    if not promising and not job.quantization:
        print_note(
            f"{job.topology.sold_as}: weights in {job.dtype} do not fit; trying int8"
        )
        promising = _promising(replace(job, quantization="int8"))
    if not promising:
        raise UserError(
            f"{job.topology.sold_as}: nothing fits, by a rough estimate: no mesh of "
            f"its {job.topology.described_size} has room for a row beside the weights; "
            "name a larger slice, or a smaller --length"
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
        print_note(
            f"{job.topology.sold_as}: compiling {number} of "
            f"{min(len(promising), programs)} (of {len(promising)} that may fit): mesh "
            f"{sizes}, {stage.accumulate} × {stage.rows} rows, remat {stage.remat}, "
            f"blocks {stage.query_block}×{stage.key_block}, "
            f"about {gib(candidate.memory)}; "
            f"{min(left * each, seconds) / 60:.0f} min left"
        )
        made.append(make_plan(candidate.job))
    return sorted(made, key=_rank)


def _rank(plan: CompiledPlan) -> tuple[bool, bool, float]:
    """Sorts what fits first, and by the least time, unknown times last."""
    times = plan.roofline
    return not plan.fits, times is None, times.least_seconds if times else 0.0


def candidates(job: TrainJob) -> Iterator[Candidate]:
    """All meshes, splits of the update into equal batches, and policies of remat."""
    chips, llama = job.topology.size, job.shapes.language_model
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
                per_row = [
                    each
                    for each in _divisors(batch_size)
                    if each <= densest and batch_size // each % (data * fsdp) == 0
                ]
                if not per_row:
                    continue
                way = resized(
                    job,
                    mesh=mesh,
                    accumulate=accumulate,
                    examples_per_row=max(per_row),
                )
                for policy in POLICIES:
                    stage = replace(way.stage, remat=policy)
                    yield estimate(with_best_blocks(replace(way, stage=stage)))


def with_best_blocks(job: TrainJob) -> TrainJob:
    """The job with the blocks of attention that are fastest by their grid."""
    if not _has_blocks(job):
        return job
    blocks = best_blocks(**_attention(job))
    stage = replace(job.stage, query_block=blocks.queries, key_block=blocks.keys)
    return replace(job, stage=stage)


def _has_blocks(job: TrainJob) -> bool:
    """Whether a TPU computes attention by blocks; see `splash_attention.fits`."""
    return job.shapes.language_model.head_dim % (MULTIPLE // 2) == 0


def _attention(job: TrainJob) -> dict[str, Any]:
    """The attention of a row on a device, as arguments of `causal_seconds`."""
    llama, chip = job.shapes.language_model, job.topology.chip
    return {
        "time": -(-job.row.length // MULTIPLE) * MULTIPLE,
        "heads": llama.heads // job.mesh["tensor"],
        "shared": llama.heads // llama.key_heads,
        "head_dim": llama.head_dim,
        "again": job.stage.remat == "nothing",
        "peak_flops": chip.peak_flops,
        "bandwidth": chip.bandwidth,
    }


def estimate(job: TrainJob) -> Candidate:
    """Rough memory and time of a way to run the update, without compiling it.

    The time is the longest of the three in `Roofline.seconds`, and a little of the
    others, which a compiler does not hide completely: arithmetic, that of attention by
    its grid; reading the weights and the activations, forward and backward, and again
    where layers are computed again; gathering over fsdp and summing over tensor, as
    often.
    """
    llama, stage, topology = job.shapes.language_model, job.stage, job.topology
    fsdp, tensor = job.mesh["fsdp"], job.mesh["tensor"]
    chip = topology.chip
    again = _computed_again(llama, stage.remat)
    passes = 2 + again
    layer = flops.layer_weights(llama) * (1 if job.quantization else 2)
    ends = 2 * llama.vocab * llama.width * 2
    local = stage.rows / (job.mesh["data"] * fsdp)
    places = local * job.row.length

    activations = _activations(job)
    memory = (layer * llama.depth + ends) / (fsdp * tensor) + temporary(job)

    blocked = _has_blocks(job)
    every = job.step_flops(attended=0 if blocked else job.rows * job.row.length**2)
    compute = every * (1 + again / 2) / topology.size / chip.peak_flops
    if blocked:
        each = causal_seconds(most=stage.blocks, **_attention(job))
        compute += local * stage.accumulate * llama.depth * each
    read = passes * layer * llama.depth / tensor * stage.accumulate
    moved = read + 2 * passes * llama.depth * activations * stage.accumulate
    gathered = read * (fsdp - 1) / fsdp
    residual = places * llama.width * 4
    summed = (
        (2 * passes * llama.depth * residual * stage.accumulate)
        * (2 * (tensor - 1))
        / tensor
    )
    seconds = [compute, moved / chip.bandwidth]
    if topology.exchange:
        seconds.append((gathered + summed) / topology.exchange)
    return Candidate(job, memory, max(seconds) + sum(seconds) / 100)


def temporary(job: TrainJob) -> float:
    """Rough memory of what an update computes in between, on a device."""
    llama, stage = job.shapes.language_model, job.stage
    fsdp, tensor = job.mesh["fsdp"], job.mesh["tensor"]
    layer = flops.layer_weights(llama) * (1 if job.quantization else 2)
    local = stage.rows / (job.mesh["data"] * fsdp)
    logits = local * min(job.row.answers, CHUNK) * llama.vocab * 4
    return (
        (layer / tensor if fsdp > 1 else 0)
        + local * job.row.length * _kept(llama, stage.remat, tensor) * llama.depth
        + _activations(job)
        + 2 * logits
    )


def _activations(job: TrainJob) -> float:
    """Bytes of the vectors between the products of a layer, on a device."""
    llama, mesh = job.shapes.language_model, job.mesh
    places = job.stage.rows / (mesh["data"] * mesh["fsdp"]) * job.row.length
    return places * (4 * llama.width + 3 * llama.mlp_width / mesh["tensor"]) * 2


def _kept(llama: LlamaConfig, policy: str, tensor: int) -> float:
    """Bytes that the backward pass keeps of a layer for each position (`remat.py`)."""
    if policy == "nothing":
        return 2 * llama.width
    heads = 2 * llama.head_dim * (llama.heads + llama.key_heads) / tensor
    kept = 8 * llama.width + 2 * heads
    if policy in ("dots", "everything"):
        kept += 4 * llama.mlp_width / tensor
    if policy == "everything":
        kept += 8 * llama.width + 4 * llama.mlp_width / tensor
    return kept


def _computed_again(llama: LlamaConfig, policy: str) -> float:
    """The part of a layer's forward products that the backward pass computes again."""
    gate_and_up = 2 * llama.width * llama.mlp_width / flops.layer_weights(llama)
    return {"nothing": 1.0, "attention": gate_and_up}.get(policy, 0.0)


def _promising(job: TrainJob) -> list[Candidate]:
    """The candidates that may fit, the fastest first."""
    room = _DOUBT * job.topology.chip.memory
    fitting = [found for found in candidates(job) if found.memory <= room]
    return sorted(fitting, key=lambda found: found.seconds)


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]

r"""Custom calls: kernels that XLA did not write, and what they cost.

A kernel written in Pallas is one instruction of a program, a `custom-call`, whose
inside is not text. Its operations come from a formula here, by the kernel's name, or
from the estimate that its author passed to `pallas_call` (`cost_estimate`). A custom
call of which neither is known makes the costs of its program unknown: they would be too
low.

    %splash_mha_fwd_residuals.1 = (…) custom-call(%next, %blocks, %query, %key, …),
        custom_call_target="tpu_custom_call",
        frontend_attributes={kernel_metadata={"xprof_metadata":"{\"block_q\": 256}"}},
        metadata={op_name="jit(f)/…/splash_mha_fwd_residuals/pallas_call"},
        backend_config={"custom_call_config":{"body":"…", "cost_estimate":{…}}}
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from musilingo_jax.plan import splash_calls
from musilingo_jax.plan.hlo import Executed, Program
from musilingo_jax.plan.hlo_text import Instruction

KERNEL = "tpu_custom_call"

# What XLA itself writes as custom calls. None of them multiplies matrices.
_MOVES_NOTHING = frozenset(
    (
        # Other names for the same memory.
        *("AllocateBuffer", "ConcatBitcast", "CreateBuffer"),
        *("AssumeGatherIndicesInBound", "X64SplitLow", "X64SplitHigh", "X64Combine"),
        # Remarks on where an array is.
        *("Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape"),
        *("MoveToHost", "MoveToDevice", "annotate_device_placement"),
        # Ends of what runs asynchronously, and is counted by itself.
        *("AsyncCollectiveStart", "AsyncCollectiveDone"),
        *("PrepareAsyncCallStart", "PrepareAsyncCallDone"),
    )
)
_MOVES_ONLY = frozenset(
    (
        *("GatherScatterIndicesBitpacked", "PadToStatic", "SliceToDynamic"),
        *("TopK", "PartialReduce"),
    )
)
_FLOATS = ("bf16", "f16", "f32")


@dataclass(frozen=True)
class Kernel:
    """All calls of one kernel in a run of a program.

    Attributes:
      name: that its author gave it.
      times: how often it is called.
      flops: operations of its matrix products, in all calls.
      bytes: that it moves to and from HBM, in all calls.
    """

    name: str
    times: int
    flops: float
    bytes: float


def kernels(program: Program) -> tuple[Kernel, ...]:
    """The kernels of a program, by name; `unknown` must have found none unknown."""
    totals: dict[str, Kernel] = {}
    for executed in _kernel_calls(program):
        name, times = _name(executed.instruction), executed.times
        before = totals.get(name, Kernel(name, 0, 0.0, 0.0))
        totals[name] = Kernel(
            name,
            before.times + times,
            before.flops + times * (_flops(program, executed) or 0.0),
            before.bytes + times * moved(program, executed),
        )
    return tuple(totals.values())


def unknown(program: Program) -> str:
    """The custom calls whose costs are not known, for people; "" if there are none."""
    found = {}
    for executed in program.executed:
        if executed.instruction.opcode != "custom-call":
            continue
        target = _target(executed.instruction)
        if target == KERNEL and _flops(program, executed) is None:
            found[f"the kernel {_name(executed.instruction)}"] = None
        elif target != KERNEL and target not in _MOVES_NOTHING | _MOVES_ONLY:
            found[f"the custom call {target}"] = None
    return ", ".join(found)


def moved(program: Program, executed: Executed) -> float:
    """Bytes that a custom call moves to and from HBM.

    Of splash attention: as often as its grid reads each operand. Of other kernels: what
    their author states, or else their operands and results in HBM, each once; blocks of
    an operand that such a kernel reads again do not count.
    """
    instruction = executed.instruction
    if _target(instruction) in _MOVES_NOTHING:
        return 0.0
    if re.fullmatch(splash_calls.NAME, _name(instruction)):
        return splash_calls.moved(program, executed)
    if stated := _estimate(instruction, "bytes_accessed"):
        return stated
    shapes = [*instruction.shapes]
    for index in range(len(instruction.operands)):
        shapes += program.operand(executed.computation, instruction, index).shapes
    return sum(shape.bytes for shape in shapes if shape.in_hbm)


def _kernel_calls(program: Program) -> Iterator[Executed]:
    for executed in program.executed:
        instruction = executed.instruction
        if instruction.opcode == "custom-call" and _target(instruction) == KERNEL:
            yield executed


def _target(instruction: Instruction) -> str:
    return instruction.required(r'custom_call_target="([^"]*)"')


def _name(instruction: Instruction) -> str:
    """The name of a kernel, which XLA may have numbered."""
    given = instruction.attribute(r'op_name="[^"]*?([\w.\-]+)/pallas_call')
    return given or re.sub(r"\.\d+$", "", instruction.name)


def _flops(program: Program, executed: Executed) -> float | None:
    """Operations of one call of a kernel; None if they are unknown."""
    name = _name(executed.instruction)
    for pattern, formula in _FORMULAS.items():
        if re.fullmatch(pattern, name):
            return formula(program, executed)
    return _estimate(executed.instruction, "flops")


def _estimate(instruction: Instruction, key: str) -> float | None:
    """A number of the author's `pl.CostEstimate`."""
    stated = instruction.attribute(rf'"cost_estimate":\{{[^}}]*"{key}":"?(\d+)')
    return float(stated) if stated else None


def _ragged_paged(program: Program, executed: Executed) -> float:
    """Ragged paged attention, of `jax.experimental.pallas.ops.tpu`: an upper bound.

    Every query is counted with all the pages that its row may have: how many it has is
    not in the program.
    """
    shapes = [
        program.operand(executed.computation, executed.instruction, index).shapes[0]
        for index in range(len(executed.instruction.operands))
    ]
    query, pages = (shape.sizes for shape in shapes if shape.dtype in _FLOATS)
    (numbers,) = (shape.sizes for shape in shapes if len(shape.sizes) == 2)
    return 4.0 * math.prod(query) * numbers[1] * pages[1]


_FORMULAS: dict[str, Callable[[Program, Executed], float]] = {
    splash_calls.NAME: splash_calls.flops,
    r"ragged_paged_attention_kernel": _ragged_paged,
}

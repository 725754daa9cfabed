"""What a compiled program costs one device, per run, or per iteration of a loop.

Counted from the program that the compiler wrote. So padding counts, and so do masked
pairs of attention, layers that are computed again in the backward pass, and whatever
exchange between devices the compiler chose.
"""

import math
import re
from dataclasses import dataclass

from musilingo_jax.plan import kernels
from musilingo_jax.plan.collectives import Exchange, exchanges
from musilingo_jax.plan.hlo import Executed, Program
from musilingo_jax.plan.hlo_text import Instruction
from musilingo_jax.plan.kernels import Kernel
from musilingo_jax.plan.memory_traffic import traffic


@dataclass(frozen=True)
class ProgramCosts:
    """Costs of one run on one device.

    Attributes:
      flops: operations of matrix products and convolutions, those of kernels included.
      traffic: bytes to and from HBM, those of kernels included.
      exchanges: collectives by kind.
      kernels: those that XLA did not write, by name.
      unknown_loops: names of loops counted as one iteration, because the text does not
        tell how many there are.
      outside: bytes to and from HBM before and after the loop, where the costs are
        those of one iteration; 0 elsewhere.
    """

    flops: float
    traffic: float
    exchanges: tuple[Exchange, ...]
    kernels: tuple[Kernel, ...]
    unknown_loops: tuple[str, ...]
    outside: float = 0.0


def costs_of(text: str, *, is_loop: bool = False) -> ProgramCosts | str:
    """The costs of a program, or the reason why they are unknown.

    The text of a compiled program is for people; a version of XLA may write it in a way
    that the parser does not know. A plan is still worth having then: memory, and
    whether the program fits, do not come from the text.

    Args:
      text: as `jax.stages.Compiled.as_text` returns it.
      is_loop: whether the program is a loop whose end depends on its data, such as the
        end of an answer; the costs are those of one iteration then.
    """
    try:
        whole = program = Program(text)
        if is_loop:
            program = whole.iteration()
        if unknown := kernels.unknown(program):
            return f"no formula tells what {unknown} computes (plan/kernels.py)"
        found = kernels.kernels(program)
        operations = flops(program) + sum(kernel.flops for kernel in found)
        if not operations:
            raise ValueError("no matrix product was found")
        moved = traffic(program)
        return ProgramCosts(
            flops=operations,
            traffic=moved,
            exchanges=exchanges(program),
            kernels=found,
            unknown_loops=tuple(program.unknown_loops),
            outside=traffic(whole) - moved if is_loop else 0.0,
        )
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        return f"this version of XLA writes its programs differently: {error!r}"


def flops(program: Program) -> float:
    """Operations of XLA's own products and convolutions; others are not counted.

    A product with a single row is written as the sums of a multiplication, which keep
    the name of the product: two operations for each pair.
    """
    total = 0.0
    for executed in program.executed:
        instruction = executed.instruction
        if instruction.opcode in ("dot", "convolution"):
            total += executed.times * _product_flops(program, executed)
        elif instruction.opcode == "reduce" and _sums_a_product(instruction):
            pairs = program.operand(executed.computation, instruction, 0).shapes[0]
            total += executed.times * 2.0 * math.prod(pairs.sizes)
    return total


def _sums_a_product(sums: Instruction) -> bool:
    """Whether sums were a product of matrices before the program was compiled."""
    return bool(sums.attribute(r'op_name="[^"]*(/dot_general)"'))


def _product_flops(program: Program, executed: Executed) -> float:
    instruction = executed.instruction
    left, right = (
        program.operand(executed.computation, instruction, index).shapes[0].sizes
        for index in range(2)
    )
    made = instruction.shapes[0].sizes
    if instruction.opcode == "dot":
        contracted = instruction.attribute(r"lhs_contracting_dims=\{([\d,]*)\}") or ""
        sizes = (left[int(axis)] for axis in contracted.split(",") if axis)
        return 2 * math.prod(made) * math.prod(sizes)
    return _convolution_flops(instruction, left, right, made)


def _convolution_flops(
    instruction: Instruction,
    left: tuple[int, ...],
    right: tuple[int, ...],
    made: tuple[int, ...],
) -> float:
    """Operations of a convolution, without those on padding and on dilation's zeros.

    TPU programs write every product as a convolution, and a batch of products as a
    dilated one. The hardware skips the zeros; what is left is the product's own work.
    """
    names = instruction.required(r"dim_labels=([\w?]+_[\w?]+->[\w?]+)")
    inputs, kernels, outputs = re.split(r"_|->", names)
    window = instruction.attribute(r"window=\{([^}]*)\}") or ""
    settings = dict(part.split("=") for part in window.split())

    def numbers(key: str, axis: int, default: str) -> list[int]:
        parts = settings[key].split("x") if key in settings else []
        return [int(n) for n in (parts[axis] if parts else default).split("_")]

    pairs = 1
    for axis, name in enumerate(sorted(n for n in outputs if n.isdigit())):
        size = left[inputs.index(name)]
        (stride,) = numbers("stride", axis, "1")
        (spread,) = numbers("lhs_dilate", axis, "1")
        (apart,) = numbers("rhs_dilate", axis, "1")
        before = numbers("pad", axis, "0_0")[0]
        last = (size - 1) * spread
        pairs *= sum(
            0 <= (place := out * stride + tap * apart - before) <= last
            and place % spread == 0
            for out in range(made[outputs.index(name)])
            for tap in range(right[kernels.index(name)])
        )
    groups = int(instruction.attribute(r"batch_group_count=(\d+)") or 1)
    rows = left[inputs.index("b")] // groups
    return 2 * rows * made[outputs.index("f")] * right[kernels.index("i")] * pairs

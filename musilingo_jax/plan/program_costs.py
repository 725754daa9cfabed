"""What a compiled program costs one device: operations, memory traffic, exchange.

Counted from the program that the compiler made, so with padding, with masked pairs of
attention, with layers that are computed again in the backward pass, and with whatever
exchange it chose. All is per device and per run of the program.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from musilingo_jax.plan.hlo import Executed, HloShape, Instruction, Program

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)

# These move nothing: they name what another instruction has made, or call others. So
# does what ends in "-done": the beginning of it is what counts.
_NOTHING = (
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while"),
    *("call", "conditional", "after-all", "add-dependency", "opt-barrier"),
    *("partition-id", "replica-id", "async-start", "async-update"),
)
_SLICES = ("dynamic-slice", "slice", "gather")
_ALIASES = ("bitcast", "reshape", "get-tuple-element")
_LAZY = (*_ALIASES, "copy", "convert", "transpose")
_ASYNC_ENDS = ("AsyncCollectiveStart", "AsyncCollectiveDone")


@dataclass(frozen=True)
class Exchange:
    """All collectives of one kind.

    Attributes:
      kind: one of `COLLECTIVES`.
      count: how many are executed.
      bytes: that this device sends at least, over the links to its neighbours.
    """

    kind: str
    count: int
    bytes: float


def flops(program: Program) -> float:
    """Operations of matrix products and convolutions; all else is not counted."""
    return sum(
        executed.times * _product_flops(program, executed)
        for executed in program.executed
        if executed.instruction.opcode in ("dot", "convolution")
    )


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
    """A TPU knows products only as convolutions, a batch of them as a dilated one.

    Multiplications by the padding and by the zeros of a dilation are not counted: the
    hardware leaves them out, and what is left is what the product asks for.
    """
    names = instruction.attribute(r"dim_labels=([\w?]+_[\w?]+->[\w?]+)")
    inputs, kernels, outputs = re.split(r"_|->", names)
    window = instruction.attribute(r"window=\{([^}]*)\}") or ""
    said = dict(part.split("=") for part in window.split())

    def numbers(key: str, axis: int, default: str) -> list[int]:
        parts = said[key].split("x") if key in said else []
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


def exchanges(program: Program) -> tuple[Exchange, ...]:
    """The collectives, by kind.

    Bytes are what each device must send at the least (Patarasuk & Yuan 2009), in a
    group of n devices:

        all-gather          (n − 1)/n of what it ends with
        reduce-scatter      (n − 1)/n of what it begins with
        all-reduce          twice that: a reduce-scatter, then an all-gather
        all-to-all          (n − 1)/n of what it begins with
        collective-permute  what it passes on
    """
    totals = dict.fromkeys(COLLECTIVES, (0, 0.0))
    for executed, kind in _collectives(program):
        instruction = executed.instruction
        given = sum(
            shape.bytes
            for index in range(len(instruction.operands))
            for shape in program.operand(
                executed.computation, instruction, index
            ).shapes
        )
        size = group_size(instruction, program.partitions)
        share = (size - 1) / size
        sent = {
            "all-gather": (size - 1) * given,
            "all-reduce": 2 * share * given,
            "reduce-scatter": share * given,
            "all-to-all": share * given,
            "collective-permute": given,
        }[kind]
        count, total = totals[kind]
        totals[kind] = count + executed.times, total + executed.times * sent
    return tuple(Exchange(kind, *total) for kind, total in totals.items() if total[0])


def _collectives(program: Program) -> Iterator[tuple[Executed, str]]:
    """Each collective once, with its kind.

    One that runs while something else is computed is written several times, in fusions
    that begin it, carry it on and end it; a chain's number says that they are one. A
    TPU's reduce-scatter is an all-reduce, fused with the slice that is kept.
    """
    seen = set()
    for executed in program.executed:
        instruction = executed.instruction
        kind = instruction.opcode.removesuffix("-start")
        if kind not in COLLECTIVES:
            continue
        if chain := instruction.attribute(r'chain_id="(\w+)"'):
            channel = instruction.attribute(r"channel_id=(\d+)")
            once = (executed.among, kind, chain, channel)
            if once in seen:
                continue
            seen.add(once)
        if executed.computation.startswith("all-reduce-scatter"):
            kind = "reduce-scatter"
        yield executed, kind


def group_size(instruction: Instruction, partitions: int) -> int:
    """How many devices a collective joins; XLA has three ways to write its groups.

    replica_groups={{0,2},{1,3}}                  listed              2
    replica_groups=[4,2]<=[8]                     4 groups of         2
    replica_groups=mesh['a'=4,'b'=2] {'a'}        along an axis of    4
    (between the two may stand `, device_ids=([2,4]T(1,0))`: in which order)
    """
    if listed := instruction.attribute(r"replica_groups=\{\{([\d,]*)\}"):
        return len(listed.split(","))
    if iota := instruction.attribute(r"replica_groups=\[\d+,(\d+)\]"):
        return int(iota)
    if mesh := instruction.attribute(r"replica_groups=mesh\[([^\]]*)\]"):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh))
        along = instruction.attribute(r"replica_groups=mesh\[[^\]]*\][^{]*\{([^}]*)\}")
        # A part of an axis is written 'axis':(devices before it)devices in it.
        parts = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", along or "")
        return math.prod(int(part or sizes[axis]) for axis, part in parts)
    return partitions


def traffic(program: Program) -> float:
    """Bytes between the device's main memory and its core, read and written.

    What fusions keep inside, and what lies in the core's own memory, does not count;
    of an operand that is only sliced (one layer of a stack), the slices do.
    """
    total = 0.0
    for executed in program.executed:
        if not executed.fused:
            total += executed.times * _moved(program, executed)
    return total


def _moved(program: Program, executed: Executed) -> float:
    instruction, name = executed.instruction, executed.computation
    if instruction.opcode == "fusion":
        return _moved_by_fusion(program, name, instruction)
    if instruction.opcode in _NOTHING or instruction.opcode.endswith("-done"):
        return 0.0
    operands = [
        program.operand(name, instruction, index)
        for index in range(len(instruction.operands))
    ]
    if instruction.opcode in ("copy-start", "collective-permute-start"):
        # Destination and source, whichever of them is in memory, and a signal.
        return _in_hbm(instruction.shapes[:2])
    if instruction.opcode == "dynamic-update-slice":
        return 2 * operands[1].shapes[0].bytes if instruction.shapes[0].in_hbm else 0
    written = _in_hbm(instruction.shapes)
    if instruction.opcode in _SLICES or instruction.opcode == "slice-start":
        made = operands[0].shapes[0]
        smallest = min(shape.bytes for shape in instruction.shapes if shape.sizes)
        return (smallest if made.in_hbm else 0) + (
            written if instruction.opcode in _SLICES else 0
        )
    return written + sum(_in_hbm(operand.shapes) for operand in operands)


def _moved_by_fusion(program: Program, name: str, fusion: Instruction) -> float:
    called = fusion.calls["calls"][0]
    inside = program.computations[called]
    root = _root(program, called)
    if any(end in root.attributes for end in _ASYNC_ENDS):
        return 0.0  # The fusion between the two has moved it.
    total = 0.0
    for index, operand in enumerate(fusion.operands):
        shapes = program.computations[name][operand].shapes
        if len(shapes) == 1 and shapes[0].in_hbm:
            total += _read(program, called, index, shapes[0].bytes)
    outputs = root.operands if root.opcode == "tuple" else (root.name,)
    for shape, output in zip(fusion.shapes, outputs, strict=False):
        if shape.in_hbm:
            total += _written(program, called, inside[output], shape.bytes)
    return total


def _read(program: Program, computation: str, index: int, whole: float) -> float:
    """How much of its operand `index` a fusion reads, of `whole` bytes."""
    parameter = _parameter(program, computation, index)
    elements = math.prod(parameter.shapes[0].sizes)
    used = _used(program, computation, parameter.name, elements)
    return whole * min(1.0, used / elements) if elements else 0.0


def _used(program: Program, computation: str, name: str, elements: float) -> float:
    """How many elements of an array are used by those who use `name`.

    Inside a fusion nothing is made before it is wanted: of an array that is converted
    and then sliced, only the slice is ever read.
    """
    inside, total = program.computations[computation], 0.0
    for user in inside.values():
        if name not in user.operands:
            continue
        place = user.operands.index(name)
        if user.opcode in _SLICES and place == 0:
            total += math.prod(user.shapes[0].sizes)
        elif user.opcode == "dynamic-update-slice" and place == 0:
            continue  # Written into where it lies.
        elif user.opcode == "tuple" and inside[name].opcode == "parameter":
            continue  # Handed on.
        elif user.opcode in _LAZY and not user.is_root:
            total += _used(program, computation, user.name, elements)
        elif user.opcode == "fusion":
            called = user.calls["calls"][0]
            parameter = _parameter(program, called, place)
            if _source(program, called) == parameter and not user.is_root:
                total += _used(program, computation, user.name, elements)
            else:
                total += _used(program, called, parameter.name, elements)
        else:
            return elements
    return total


def _parameter(program: Program, computation: str, index: int) -> Instruction:
    return next(
        instruction
        for instruction in program.computations[computation].values()
        if instruction.opcode == "parameter" and instruction.literal == str(index)
    )


def _root(program: Program, computation: str) -> Instruction:
    return next(i for i in program.computations[computation].values() if i.is_root)


def _source(program: Program, computation: str) -> Instruction:
    """What a computation returns the numbers of, maybe in another type or layout."""
    found = _root(program, computation)
    while found.opcode in _LAZY:
        found = program.operand(computation, found, 0)
    return found


def _written(
    program: Program, computation: str, output: Instruction, whole: float
) -> float:
    """How much of an output a fusion writes."""
    inside = program.computations[computation]
    while output.opcode in _ALIASES:
        output = inside[output.operands[0]]
    if output.opcode == "parameter":
        return 0.0
    if output.opcode == "dynamic-update-slice":
        return inside[output.operands[1]].shapes[0].bytes
    if output.opcode == "fusion" and len(output.shapes) == 1:
        called = output.calls["calls"][0]
        return _written(program, called, _root(program, called), whole)
    return whole


def _in_hbm(shapes: tuple[HloShape, ...]) -> float:
    return sum(shape.bytes for shape in shapes if shape.in_hbm)

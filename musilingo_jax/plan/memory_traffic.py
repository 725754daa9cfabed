"""What a compiled program moves between a device's main memory (HBM) and its core."""

import math

from musilingo_jax.plan import kernels
from musilingo_jax.plan.hlo import Executed, Program
from musilingo_jax.plan.hlo_text import HloShape, Instruction

# These move nothing: they name the result of another instruction, or call others. Nor
# does an opcode that ends in "-done": its start is counted.
_NOTHING = (
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while"),
    *("call", "conditional", "after-all", "add-dependency", "opt-barrier"),
    *("partition-id", "replica-id", "async-start", "async-update"),
    "call-start",
)
_SLICES = ("dynamic-slice", "slice", "gather")
_ALIASES = ("bitcast", "reshape", "get-tuple-element")
_LAZY = (*_ALIASES, "copy", "convert", "transpose")
_ASYNC_ENDS = ("AsyncCollectiveStart", "AsyncCollectiveDone")


def traffic(program: Program) -> float:
    """Bytes that a device reads from and writes to its main memory.

    Arrays inside fusions and in the core's own memory do not count. Of an operand that
    is only sliced (one layer of a stack), the slices count.
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
    if instruction.opcode == "custom-call":
        return kernels.moved(program, executed)
    operands = [
        program.operand(name, instruction, index)
        for index in range(len(instruction.operands))
    ]
    if instruction.opcode in ("copy-start", "collective-permute-start"):
        # Destination and source, of which either may be in memory, and a semaphore.
        return _in_hbm(instruction.shapes[:2])
    if instruction.opcode == "dynamic-update-slice":
        return 2 * operands[1].shapes[0].bytes if instruction.shapes[0].in_hbm else 0
    if instruction.opcode == "scatter":
        return _in_hbm(operands[1].shapes) + 2 * (
            operands[2].shapes[0].bytes if instruction.shapes[0].in_hbm else 0
        )
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
    root = program.root(called)
    if any(end in root.attributes for end in _ASYNC_ENDS):
        return 0.0  # The fusion between start and end moves the data.
    total = 0.0
    updated = _updated(program, fusion, called)
    for index, operand in enumerate(fusion.operands):
        shapes = program.computations[name][operand].shapes
        if updated is not None and _parameter(program, called, index) == updated[0]:
            # Some places are read and written, the others stay as they are.
            total += 2 * updated[1] if shapes[0].in_hbm else 0
            continue
        if len(shapes) == 1 and shapes[0].in_hbm:
            total += _read(program, called, index, shapes[0].bytes)
    outputs = root.operands if root.opcode == "tuple" else (root.name,)
    for shape, output in zip(fusion.shapes, outputs, strict=False):
        if shape.in_hbm and updated is None:
            total += _written(program, called, inside[output], shape.bytes)
    return total


def _updated(
    program: Program, fusion: Instruction, called: str
) -> tuple[Instruction, float] | None:
    """What a fusion scatters into in place, and the bytes that it changes.

    The TPU's compiler notes which operand shares its memory with the result. Without
    that note, as in an operand of another type, the array is written anew.
    """
    root = program.root(called)
    if root.opcode != "scatter":
        return None
    into = program.operand(called, root, 0)
    shares = fusion.attribute(r'"aliasing_operands":\{"lists":\[\{"indices":\["(\d+)"')
    if into.opcode != "parameter" or shares != into.literal:
        return None
    return into, program.operand(called, root, 2).shapes[0].bytes


def _read(program: Program, computation: str, index: int, whole: float) -> float:
    """Bytes that a fusion reads of its operand `index`, which has `whole` bytes."""
    parameter = _parameter(program, computation, index)
    elements = math.prod(parameter.shapes[0].sizes)
    used = _used(program, computation, parameter.name, elements)
    return whole * min(1.0, used / elements) if elements else 0.0


def _used(program: Program, computation: str, name: str, elements: float) -> float:
    """The number of elements of an array that the users of `name` read.

    A fusion computes only what its outputs need: of an array that is converted and then
    sliced, only the slice is read.
    """
    inside, total = program.computations[computation], 0.0
    for user in inside.values():
        if name not in user.operands:
            continue
        place = user.operands.index(name)
        if user.opcode in _SLICES and place == 0:
            total += math.prod(user.shapes[0].sizes)
        elif user.opcode == "dynamic-update-slice" and place == 0:
            continue  # Updated in place.
        elif user.opcode == "tuple" and inside[name].opcode == "parameter":
            continue  # Passed on.
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
    for instruction in program.computations[computation].values():
        if instruction.opcode == "parameter" and instruction.literal == str(index):
            return instruction
    raise ValueError(f"computation {computation} has no parameter {index}")


def _source(program: Program, computation: str) -> Instruction:
    """What a computation returns, perhaps in another type or layout."""
    found = program.root(computation)
    while found.opcode in _LAZY:
        found = program.operand(computation, found, 0)
    return found


def _written(
    program: Program, computation: str, output: Instruction, whole: float
) -> float:
    """Bytes that a fusion writes of an output, which has `whole` bytes."""
    inside = program.computations[computation]
    while output.opcode in _ALIASES:
        output = inside[output.operands[0]]
    if output.opcode == "parameter":
        return 0.0
    if output.opcode == "dynamic-update-slice":
        return inside[output.operands[1]].shapes[0].bytes
    if output.opcode == "fusion" and len(output.shapes) == 1:
        called = output.calls["calls"][0]
        return _written(program, called, program.root(called), whole)
    return whole


def _in_hbm(shapes: tuple[HloShape, ...]) -> float:
    return sum(shape.bytes for shape in shapes if shape.in_hbm)

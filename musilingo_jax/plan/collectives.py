"""What a compiled program sends between devices."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from musilingo_jax.plan.hlo import Executed, Program
from musilingo_jax.plan.hlo_text import Instruction

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)


@dataclass(frozen=True)
class Exchange:
    """All collectives of one kind.

    Attributes:
      kind: one of `COLLECTIVES`.
      count: how many run.
      bytes: the least that a device sends for them over the links to its neighbours.
    """

    kind: str
    count: int
    bytes: float


def exchanges(program: Program) -> tuple[Exchange, ...]:
    """The collectives of a program, by kind.

    Bytes are the least that each device must send in a group of n devices (Patarasuk &
    Yuan 2009):

        all-gather          (n − 1)/n of its result
        reduce-scatter      (n − 1)/n of its operand
        all-reduce          twice that: a reduce-scatter, then an all-gather
        all-to-all          (n − 1)/n of its operand
        collective-permute  its operand
    """
    totals: dict[str, tuple[int, float]] = dict.fromkeys(COLLECTIVES, (0, 0.0))
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

    An asynchronous collective is written several times, in the fusions that start,
    continue and end it; these share a `chain_id`. A TPU's reduce-scatter is written as
    an all-reduce, fused with the slice that is kept.
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
    """The number of devices in a group of a collective.

    XLA writes groups in three ways:

        replica_groups={{0,2},{1,3}}                  listed              2
        replica_groups=[4,2]<=[8]                     4 groups of         2
        replica_groups=mesh['a'=4,'b'=2] {'a'}        along an axis of    4

    In the last one, `, device_ids=([2,4]T(1,0))`, the order of devices, may come before
    the axes.
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

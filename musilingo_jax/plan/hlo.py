"""Parses the text of a compiled program into instructions and their execution counts.

XLA writes a program as computations. A computation is a list of instructions, some of
which call other computations: a fusion, or the body of a loop. A program costs what its
instructions cost, times how often each runs. XLA's own `cost_analysis` counts the body
of a loop once, however often it runs; and nearly all of a transformer that is scanned
over its layers is such a body. Hence this parser.

    %body (x: (s32[], f32[8,512])) -> (s32[], f32[8,512]) {
      %w = bf16[1024,512]{1,0} fusion(%x), kind=kLoop, calls=%f
      …
    }
    ENTRY %main (…) -> f32[8,512] {
      %loop = (s32[], f32[8,512]{1,0}) while(%start), condition=%condition, body=%body
      …
    }
"""

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from musilingo_jax.plan import hlo_text
from musilingo_jax.plan.hlo_text import Instruction

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
# On a TPU7x, "call-start" hands a collective to another core of the chip.
_CALLERS = ("call", "conditional", "async-start", "call-start")
_UNCHANGED = ("bitcast", "copy", "reshape", "convert", "copy-start", "copy-done")
_PASSED_ON = (*_UNCHANGED, "dynamic-slice", "slice")


@dataclass(frozen=True)
class Executed:
    """An instruction in the course of the program.

    Attributes:
      instruction: the instruction.
      times: how often it runs in one run of the program.
      computation: the computation that contains it.
      fused: whether it is part of a fusion, so that its operands and its output may
        never be in memory.
      among: the computation, entry or body of a loop, that runs it or its fusion.
    """

    instruction: Instruction
    times: int
    computation: str
    fused: bool
    among: str


class Program:
    """A compiled program.

    Attributes:
      computations: by name, each with its instructions by name, in their order.
      entry: name of the computation that is the program.
      partitions: number of devices that it runs on.
      unknown_loops: names of loops whose number of iterations is not in the text; they
        are counted as one iteration.
    """

    def __init__(self, text: str):
        """Parses what `jax.stages.Compiled.as_text` returns.

        Raises:
          ValueError: the text is not that of a program, or has another syntax.
        """
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.unknown_loops: list[str] = []
        self.entry = ""
        found = re.search(r"\bnum_partitions=(\d+)", text)
        self.partitions = int(found.group(1)) if found else 1
        current: dict[str, Instruction] | None = None
        for line in hlo_text.lines(text):
            if header := _HEADER.match(line):
                current = self.computations[header.group(2)] = {}
                if header.group(1):
                    self.entry = header.group(2)
            elif line.startswith("}"):
                current = None
            elif current is not None:
                # A line that were skipped would make the costs too low.
                parts = hlo_text.LINE.match(line)
                if parts is None:
                    raise ValueError(f"not an instruction: {line.strip()[:80]!r}")
                root, name, rest = parts.groups()
                current[name] = hlo_text.instruction(name, rest, root)
        if not self.entry:
            raise ValueError("this is not the text of a compiled program")

    def iteration(self) -> "Program":
        """The body of the program's one loop without a known end, as a program.

        Raises:
          ValueError: there is no such loop, or there are several.
        """
        whole = tuple(self._walk(self.entry, 1, fused=False, among=self.entry))
        endless = [
            executed.instruction
            for executed in whole
            if executed.instruction.opcode == "while"
            and executed.among == self.entry
            and executed.instruction.name in self.unknown_loops
        ]
        if len(endless) != 1:
            raise ValueError(f"{len(endless)} loops without a known end, not one")
        body = copy.copy(self)
        body.entry = endless[0].calls["body"][0]
        body.unknown_loops = []
        return body

    def operand(
        self, computation: str, instruction: Instruction, index: int
    ) -> Instruction:
        """The instruction that computes an operand."""
        return self.computations[computation][instruction.operands[index]]

    @cached_property
    def executed(self) -> tuple[Executed, ...]:
        """All instructions that run, with the iterations of loops multiplied.

        Every branch of a conditional counts: this is an upper bound.
        """
        return tuple(self._walk(self.entry, 1, fused=False, among=self.entry))

    def _walk(
        self, name: str, times: int, *, fused: bool, among: str
    ) -> Iterator[Executed]:
        for instruction in self.computations[name].values():
            yield Executed(instruction, times, name, fused, among)
            calls = instruction.calls
            if instruction.opcode == "while":
                trips = self.trips(name, instruction)
                for body in calls["body"]:
                    yield from self._walk(body, times * trips, fused=fused, among=body)
            elif instruction.opcode == "fusion":
                for called in calls["calls"]:
                    yield from self._walk(called, times, fused=True, among=among)
            elif instruction.opcode in _CALLERS:
                for called in (name for names in calls.values() for name in names):
                    yield from self._walk(called, times, fused=fused, among=among)

    def trips(self, computation: str, loop: Instruction) -> int:
        """The number of iterations of a loop.

        From XLA's note, if it left one; else, for a loop that counts up to a constant
        as `jax.lax.scan` does, from its first value, its step and its bound.
        """
        if noted := loop.attribute(r'"known_trip_count":(\{[^}]*\})'):
            return int(json.loads(noted)["n"])
        trips = self._counted(computation, loop)
        if trips is None:
            self.unknown_loops.append(loop.name)
            return 1
        return trips

    def _counted(self, computation: str, loop: Instruction) -> int | None:
        condition, body = loop.calls["condition"][0], loop.calls["body"][0]
        compared = self.root(condition)
        if compared.opcode != "compare" or "direction=LT" not in compared.attributes:
            return None
        counter = self.operand(condition, compared, 0)
        bound = self._constant(condition, compared.operands[1])
        if counter.opcode != "get-tuple-element" or bound is None:
            return None
        index = int(counter.required(r"index=(\d+)"))
        start = self._element(computation, loop.operands[0], index)
        step = self._step(body, index)
        if start is None or not step:
            return None
        return max(0, -(-(bound - start) // step))

    def root(self, computation: str) -> Instruction:
        """The instruction that a computation returns.

        Raises:
          ValueError: none is marked.
        """
        for instruction in self.computations[computation].values():
            if instruction.is_root:
                return instruction
        raise ValueError(f"computation {computation} returns nothing")

    def origin(self, computation: str, name: str) -> Instruction:
        """The instruction that made an array which was only passed on from there.

        Follows copies, slices, tuples, and what a loop passes on to all its iterations;
        ends at the first instruction that does anything else.
        """
        found = self.computations[computation][name]
        while True:
            if found.opcode in _PASSED_ON:
                found = self.operand(computation, found, 0)
            elif found.opcode == "fusion":
                inside = found.calls["calls"][0]
                made = self.root(inside)
                while made.opcode in _PASSED_ON:
                    made = self.operand(inside, made, 0)
                if made.opcode != "parameter":
                    return found
                found = self.operand(computation, found, int(made.literal))
            elif found.opcode == "get-tuple-element":
                index = int(found.required(r"index=(\d+)"))
                whole = self.operand(computation, found, 0)
                while whole.opcode in ("while", "opt-barrier", "parameter"):
                    if whole.opcode == "parameter":
                        if computation not in self._loops:
                            return found
                        computation, whole = self._loops[computation]
                    if whole.opcode == "while" and not self._kept(whole, index):
                        return found
                    whole = self.operand(computation, whole, 0)
                if whole.opcode != "tuple":
                    return found
                found = self.operand(computation, whole, index)
            else:
                return found

    @cached_property
    def _loops(self) -> dict[str, tuple[str, Instruction]]:
        """Body of a loop → the computation that the loop is in, and the loop."""
        return {
            body: (name, instruction)
            for name, instructions in self.computations.items()
            for instruction in instructions.values()
            if instruction.opcode == "while"
            for body in instruction.calls["body"]
        }

    def _kept(self, loop: Instruction, index: int) -> bool:
        """Whether a loop leaves an element of its tuple as it is."""
        body = loop.calls["body"][0]
        root = self.root(body)
        if root.opcode != "tuple":
            return False
        last = self.operand(body, root, index)
        return (
            last.opcode == "get-tuple-element"
            and int(last.required(r"index=(\d+)")) == index
            and self.operand(body, last, 0).opcode == "parameter"
        )

    def _constant(self, computation: str, name: str) -> int | None:
        found = self.computations[computation][name]
        while found.opcode in _UNCHANGED:
            found = self.operand(computation, found, 0)
        digits = re.fullmatch(r"-?\d+", found.literal)
        return int(digits.group()) if found.opcode == "constant" and digits else None

    def _element(self, computation: str, name: str, index: int) -> int | None:
        made = self.computations[computation][name]
        if made.opcode != "tuple":
            return None
        return self._constant(computation, made.operands[index])

    def _step(self, body: str, index: int) -> int | None:
        """How much the body of a loop adds to an element of its tuple."""
        root = self.root(body)
        if root.opcode != "tuple":
            return None
        raised = self.operand(body, root, index)
        while raised.opcode in _UNCHANGED:
            raised = self.operand(body, raised, 0)
        if raised.opcode == "fusion":
            # A fusion of the addition alone, which has the same operands.
            wrapped = self.root(raised.calls["calls"][0])
            if wrapped.opcode != "add":
                return None
            inside = raised.calls["calls"][0]
            steps = [self._constant(inside, name) for name in wrapped.operands]
        elif raised.opcode == "add":
            steps = []
        else:
            return None
        steps += [self._constant(body, name) for name in raised.operands]
        return next((step for step in steps if step is not None), None)

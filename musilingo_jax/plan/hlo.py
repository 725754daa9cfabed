"""Parses the text of a compiled program into instructions and their execution counts.

XLA writes a program as computations. A computation is a list of instructions, some of
which call other computations: a fusion, or the body of a loop. A program costs what its
instructions cost, times how often each runs. XLA's own `cost_analysis` counts the body
of a loop once, however often it runs; and nearly all of a transformer that is scanned
over its layers is such a body. Hence this parser.

The text is not a stable format. Whatever is not understood here raises a `ValueError`
or another error of parsing; `program_costs.costs_of` turns it into "unknown".

    %body (x: (s32[], f32[8,512])) -> (s32[], f32[8,512]) {
      %w = bf16[1024,512]{1,0:T(8,128)(2,1)S(1)} fusion(%x), kind=kLoop, calls=%f
       │   │    │         │     │            └ memory: none = HBM, S(1) = on the core
       │   │    │         │     └ tiles           (vector memory, a fast scratchpad)
       │   │    │         └ layout
       │   └ type, sizes                 └ opcode, operands        └ called computation
       └ name
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

_SIZES = {"pred": 8, "s4": 4, "u4": 4, "s2": 2, "u2": 2, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_NAME = re.compile(r"%([\w.\-]+)")
_CALLS = re.compile(
    r"\b(calls|body|condition|to_apply|true_computation|false_computation"
    r"|branch_computations|called_computations)=(\{[^}]*\}|%[\w.\-]+)"
)
_UNCHANGED = ("bitcast", "copy", "reshape", "convert", "copy-start", "copy-done")
_PASSED_ON = (*_UNCHANGED, "dynamic-slice", "slice")


@dataclass(frozen=True)
class HloShape:
    """An array's type and sizes, and whether it is in the device's main memory."""

    dtype: str
    sizes: tuple[int, ...]
    in_hbm: bool

    @property
    def bytes(self) -> float:
        """Size without the padding of tiles."""
        digits = re.search(r"\d+", self.dtype)
        bits = _SIZES.get(self.dtype, int(digits.group()) if digits else 8)
        return math.prod(self.sizes) * bits / 8


@dataclass(frozen=True)
class Instruction:
    """One line of a program.

    Attributes:
      name: unique in its computation.
      opcode: such as "fusion".
      shapes: of its output; several if it is a tuple.
      operands: names of its operands.
      literal: the text in parentheses, which is the value of a constant and the number
        of a parameter.
      attributes: the rest of the line.
      calls: the computations that it calls, by their role.
      is_root: whether its computation returns it.
    """

    name: str
    opcode: str
    shapes: tuple[HloShape, ...]
    operands: tuple[str, ...]
    literal: str
    attributes: str
    calls: dict[str, tuple[str, ...]]
    is_root: bool

    def attribute(self, pattern: str) -> str | None:
        """The first group of a pattern in the attributes."""
        found = re.search(pattern, self.attributes)
        return found.group(1) if found else None

    def required(self, pattern: str) -> str:
        """`attribute` where its absence is an error.

        Raises:
          ValueError: nothing matches.
        """
        found = self.attribute(pattern)
        if found is None:
            raise ValueError(f"{self.opcode} {self.name} has no {pattern}")
        return found


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
        for line in _instruction_lines(text):
            if header := _HEADER.match(line):
                current = self.computations[header.group(2)] = {}
                if header.group(1):
                    self.entry = header.group(2)
            elif line.startswith("}"):
                current = None
            elif current is not None:
                # A line that were skipped would make the costs too low.
                parts = _LINE.match(line)
                if parts is None:
                    raise ValueError(f"not an instruction: {line.strip()[:80]!r}")
                root, name, rest = parts.groups()
                current[name] = _instruction(name, rest, root)
        if not self.entry:
            raise ValueError("this is not the text of a compiled program")

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
            elif instruction.opcode in ("call", "conditional", "async-start"):
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


def _instruction_lines(text: str) -> Iterator[str]:
    r"""The lines of a program, with what the compiler has broken in two joined again.

    It breaks lines in the metadata of kernels only, inside braces:

        %fwd = f32[8] custom-call(%x), …, frontend_attributes={kernel_metadata={
        "xprof_metadata":"{\"block_q\": 512}"
        }}, metadata={…}
    """
    begun = ""
    for line in text.splitlines():
        if begun:
            begun += line
        elif line.count("{") > line.count("}") and _LINE.match(line):
            begun = line
        else:
            yield line
            continue
        bare = _QUOTED.sub("", begun)
        if bare.count("{") <= bare.count("}"):
            yield begun
            begun = ""
    if begun:
        raise ValueError(f"a brace is not closed: {begun[:80]!r}")


def _instruction(name: str, text: str, root: str | None) -> Instruction:
    """Splits `shape opcode(operands), attributes`."""
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    opcode, _, _ = text[end:].strip().partition("(")
    start = text.index("(", end)
    close = _closing(text, start)
    inside, attributes = text[start + 1 : close], text[close + 1 :]
    calls = {
        role: tuple(_NAME.findall(names)) for role, names in _CALLS.findall(attributes)
    }
    return Instruction(
        name=name,
        opcode=opcode,
        shapes=tuple(
            HloShape(
                dtype,
                tuple(int(size.lstrip("<=")) for size in sizes.split(",") if size),
                in_hbm="S(" not in (layout or ""),
            )
            for dtype, sizes, layout in _ARRAY.findall(text[:end])
        ),
        operands=tuple(_NAME.findall(inside)),
        literal=inside,
        attributes=attributes,
        calls=calls,
        is_root=root is not None,
    )


def _closing(text: str, start: int) -> int:
    """The index of the parenthesis that closes the one at `start`."""
    depth = 0
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    raise ValueError(f"a parenthesis is not closed: {text[:80]!r}")

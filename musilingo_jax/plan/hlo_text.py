"""The text of a compiled program, line by line.

    %w = bf16[1024,512]{1,0:T(8,128)(2,1)S(1)} fusion(%x), kind=kLoop, calls=%f
     │   │    │         │     │            └ memory: none = HBM, S(1) = on the core
     │   │    │         │     └ tiles           (vector memory, a fast scratchpad)
     │   │    │         └ layout
     │   └ type, sizes                 └ opcode, operands        └ called computation
     └ name

The text is not a stable format. Whatever is not understood here raises a `ValueError`
or another error of parsing; `program_costs.costs_of` turns it into "unknown".
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

_SIZES = {"pred": 8, "s4": 4, "u4": 4, "s2": 2, "u2": 2, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_NAME = re.compile(r"%([\w.\-]+)")
_CALLS = re.compile(
    r"\b(calls|body|condition|to_apply|true_computation|false_computation"
    r"|branch_computations|called_computations)=(\{[^}]*\}|%[\w.\-]+)"
)


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


def lines(text: str) -> Iterator[str]:
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
        elif line.count("{") > line.count("}") and LINE.match(line):
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


def instruction(name: str, text: str, root: str | None) -> Instruction:
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

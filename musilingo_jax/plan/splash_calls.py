"""Calls of splash attention in a compiled program: operations, and bytes by the grid.

The kernel is that of `jax.experimental.pallas.ops.tpu.splash_attention`. Its operands,
of which a call has some:

    numbers of blocks, kinds of blocks      constants [heads or 1, …, …]
    query, key, value                       [rows, heads, positions, width]
    segments of queries, and of keys        [rows, …], int32, the same for all heads
    logsumexp, gradient of the result, and their sum of products, backward
    numbers of the positions

Which blocks are skipped is told by the constants, and how large they are by a mark that
the kernel leaves (`kernel_metadata`).
"""

import json
import math
import re
from dataclasses import dataclass

import numpy as np

from musilingo_jax.models.attention_blocks import Blocks
from musilingo_jax.plan.attention_grid import Grid
from musilingo_jax.plan.hlo import Executed, Program
from musilingo_jax.plan.hlo_text import HloShape, Instruction

NAME = r"splash_m[hq]a_(fwd|dq|dkv)(_segmented)?(_no)?_residuals(\.\d+)?"
"""Of the kernels, as a regular expression."""

_FLOATS = ("bf16", "f16", "f32")


@dataclass(frozen=True)
class _Call:
    """One call.

    Attributes:
      phase: "fwd", "dq" or "dkv".
      segmented: whether it has segments.
      arrays: the operands.
      first: place of the queries among them; keys and values are behind them.
      query: sizes [*, positions, width], and so the next two.
      key: of keys.
      value: of values.
      blocks: sizes of blocks.
      grid: of a row.
    """

    phase: str
    segmented: bool
    arrays: tuple[HloShape, ...]
    first: int
    query: tuple[int, ...]
    key: tuple[int, ...]
    value: tuple[int, ...]
    blocks: Blocks
    grid: Grid

    @property
    def heads(self) -> int:
        """Of queries, in a row."""
        return self.query[-3]

    @property
    def shared(self) -> int:
        """Heads of queries for each head of keys."""
        return math.prod(self.query[:-2]) // math.prod(self.key[:-2])


def flops(program: Program, executed: Executed) -> float:
    """Operations of one call.

    With head_dim as the width of queries, keys and values, a pair of a query and a key
    costs 2 · head_dim in each product:

        fwd    scores q·kᵀ, mixed p·v                                   2 products
        dq     scores, gradient of the weights, of the queries          3
        dkv    scores, gradient of the weights, of keys, of values      4, or 5 if it
                                                          returns that of queries, too

    Pairs count that are in a block which the kernel computes: a block above the
    diagonal of a causal mask is skipped, one on the diagonal is computed whole. Where
    the skipped blocks cannot be found all count, which is an upper bound. Blocks that
    only segments mask are not skipped.
    """
    call = _read(program, executed)
    fused = call.phase == "dkv" and len(executed.instruction.shapes) > 4
    # Products over the width of queries and keys, and over that of values.
    wide, deep = {"fwd": (1, 1), "dq": (2, 1), "dkv": (2 + fused, 2)}[call.phase]
    rows = math.prod(call.query[:-3])
    pairs = rows * call.grid.steps * call.blocks.queries * call.blocks.keys
    return 2.0 * pairs * (wide * call.query[-1] + deep * call.value[-1])


def moved(program: Program, executed: Executed) -> float:
    """Bytes that one call moves to and from HBM, as often as its grid reads them.

    Operands that the compiler has put on the core are not read from HBM.
    """
    call = _read(program, executed)
    grid, shared = call.grid, call.shared
    queries = call.query[-2] // call.blocks.queries
    keys = call.key[-2] // call.blocks.keys
    of_query = grid.queries_read() / (call.heads * queries)
    of_key = grid.keys_read(shared) / (call.heads // shared * keys)
    # The numbers of positions, last, are the same for all rows and read for each.
    of_shared = []
    if call.segmented:
        of_shared += [grid.query_segments_read() / queries]
        of_shared += [grid.key_segments_read() / keys]
    of_shared += [math.prod(call.query[:-3]) * grid.query_segments_read() / queries]
    total = sum(shape.bytes for shape in executed.instruction.shapes if shape.in_hbm)
    for place, shape in enumerate(call.arrays):
        times = 1.0
        if place in (call.first + 1, call.first + 2):
            times = of_key
        elif shape.dtype in _FLOATS and len(shape.sizes) >= 2:
            times = of_query
        elif place > call.first and of_shared:
            times = of_shared.pop(0)
        total += times * shape.bytes if shape.in_hbm else 0.0
    return total


def _read(program: Program, executed: Executed) -> _Call:
    instruction = executed.instruction
    given = instruction.attribute(r'op_name="[^"]*?([\w.\-]+)/pallas_call')
    name = given or instruction.name
    phase = re.split(r"_(fwd|dkv|dq)", name)[1]
    arrays = tuple(
        program.operand(executed.computation, instruction, index).shapes[0]
        for index in range(len(instruction.operands))
    )
    places = [
        index
        for index, shape in enumerate(arrays)
        if shape.dtype in _FLOATS and len(shape.sizes) >= 2
    ]
    query, key, value = (
        _positions_first(arrays[place], instruction, layout)
        for place, layout in zip(
            places, ("q_layout", "k_layout", "v_layout"), strict=False
        )
    )
    suffix = "" if phase == "fwd" else f"_{phase}"
    marked = _metadata(instruction)
    blocks = Blocks(
        queries=marked.get(f"block_q{suffix}", query[-2]),
        keys=marked.get(f"block_kv{suffix}", key[-2]),
    )
    tables = [
        _constant(program.origin(executed.computation, instruction.operands[index]))
        for index in range(places[0])
        if arrays[index].dtype.startswith(("s", "u")) and len(arrays[index].sizes) == 3
    ][:2]
    shape = query[-2] // blocks.queries, key[-2] // blocks.keys
    kinds, numbers = np.ones((1, *shape), int), None
    if len(tables) == 2 and tables[0] is not None and tables[1] is not None:
        # Of the head that computes the most: a device has some of these heads.
        head = np.argmax(np.count_nonzero(tables[1], axis=(1, 2)))
        numbers, kinds = (t[head : head + 1] for t in tables if t is not None)
    computed = np.repeat(kinds != 0, query[-3], axis=0)
    if numbers is not None:
        numbers = np.broadcast_to(numbers, computed.shape)
    make = Grid.by_keys if phase == "dkv" else Grid.of
    grid = make(computed, numbers)
    segmented = "_segmented" in name
    return _Call(phase, segmented, arrays, places[0], query, key, value, blocks, grid)


def _positions_first(
    shape: HloShape, instruction: Instruction, layout: str
) -> tuple[int, ...]:
    """The sizes [*, positions, width] of an operand that may be stored transposed."""
    sizes = shape.sizes
    transposed = _metadata(instruction).get(layout, 1) == 2
    return (*sizes[:-2], sizes[-1], sizes[-2]) if transposed else sizes


def _constant(made: Instruction) -> np.ndarray | None:
    """The numbers of a constant; None if the program does not tell them."""
    numbers = [int(number) for number in re.findall(r"-?\d+", made.literal)]
    shape = made.shapes[0].sizes
    if made.opcode != "constant" or len(numbers) != math.prod(shape):
        return None
    return np.array(numbers).reshape(shape)


def _metadata(instruction: Instruction) -> dict[str, int]:
    """The block sizes and layouts that a splash kernel is marked with."""
    text = instruction.attribute(r'"xprof_metadata":("(?:[^"\\]|\\.)*")')
    return json.loads(json.loads(text)) if text else {}

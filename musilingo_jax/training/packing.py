"""Several examples in a row of tokens, so that few places are left empty.

Examples differ in length, and a batch is a rectangle. With one example a row, the short
ones are padded to the longest; packed, each row holds several, one after another, that
do not see each other:

    apart     a a a a a a a .        packed     a a a a a a a b b
              b b . . . . . .                   d d d d c c c e .
              c c c . . . . .
              d d d d . . . .
              e . . . . . . .

Which examples are in a batch is settled before; packing only decides where they stand,
which changes nothing in the loss but the order of a sum.
"""

import heapq
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from jaxtyping import Float

from musilingo_jax.answering.prompts import Example
from musilingo_jax.models.musilingo import Batch

Features = Float[np.ndarray, "windows width"]

PROGRAMS = 8
"""Shapes of batches per stage, and so the most programs that are compiled for it."""

MULTIPLE = 8
"""Lengths and answers are rounded up to this: XLA lays arrays out in tiles of 8."""


@dataclass(frozen=True)
class RowShape:
    """The size of a row.

    Attributes:
      length: tokens, audio included.
      windows: audio vectors.
      answers: tokens to be said.
    """

    length: int
    windows: int
    answers: int

    def holds(self, other: "RowShape") -> bool:
        """Whether rows of the other size fit into rows of this one."""
        return self == self.join(other)

    def join(self, other: "RowShape") -> "RowShape":
        """The smallest size that holds both."""
        return RowShape(
            length=max(self.length, other.length),
            windows=max(self.windows, other.windows),
            answers=max(self.answers, other.answers),
        )

    def rounded(self) -> "RowShape":
        """Up to multiples of `MULTIPLE`, where a place more costs next to nothing."""
        return RowShape(
            length=MULTIPLE * -(-self.length // MULTIPLE),
            windows=self.windows,
            answers=MULTIPLE * -(-self.answers // MULTIPLE),
        )


def pack(lengths: Sequence[int], rows: int) -> list[list[int]]:
    """Deals examples out to rows: the longest first, each to the row with most room.

        lengths  7 2 3 4 1 5,  3 rows        7 1    5 2    4 3

    This is the rule "longest processing time first" of Graham 1969 ("Bounds on
    multiprocessing timing anomalies"), with at most ⌈examples / rows⌉ examples in a
    row. So as many rows as examples have one each, and what a row can need at most is
    known: that many times the longest example, its audio and its answer.

    Args:
      lengths: tokens of each example.
      rows: how many rows. With more rows than examples, some stay empty.

    Returns:
      For each row the places, in `lengths`, of its examples.
    """
    most = -(-len(lengths) // rows)
    packed: list[list[int]] = [[] for _ in range(rows)]
    open_rows = [(0, row) for row in range(rows)]
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        load, row = heapq.heappop(open_rows)
        packed[row].append(place)
        if len(packed[row]) < most:
            heapq.heappush(open_rows, (load + int(lengths[place]), row))
    return packed


def choose_shapes(needs: Sequence[RowShape], largest: RowShape) -> tuple[RowShape, ...]:
    """At most `PROGRAMS` shapes, each in the next, for batches like those in `needs`.

    Most are the lengths of some of the batches, chosen so that all of `needs` together
    have the least padding, each in the first shape that holds it. Then come one a
    sixteenth larger than any of them, for what was not foreseen, and `largest`:

        lengths that are needed      200 208 208 216           240      264
        three shapes for them                    216           240      264
        and two besides                                                     288     960

    Args:
      needs: what each of some batches takes.
      largest: the most that any batch can take.
    """
    needs = sorted((need.rounded() for need in needs), key=lambda need: need.length)
    lengths, counts = np.unique([need.length for need in needs], return_counts=True)
    below = [0, *map(int, np.cumsum(counts))]
    # Dynamic programming: best[j] is how to have the batches of the j shortest lengths
    # in one shape more in each round, as (tokens of all rows, lengths chosen).
    best = [(0, ()), *((float("inf"), ()) for _ in lengths)]
    for _ in range(PROGRAMS - 2):
        best = [best[0]] + [
            min(
                best[j],
                *(
                    (
                        tokens + length * (below[j] - below[i]),
                        (*chosen, length),
                    )
                    for i, (tokens, chosen) in enumerate(best[:j])
                ),
            )
            for j, length in enumerate(map(int, lengths), start=1)
        ]
    shapes, shape = [], RowShape(0, 0, 0)
    for length in best[-1][1]:
        for need in needs:
            if need.length <= length:
                shape = shape.join(need)
        shapes.append(shape)
    largest = largest.rounded().join(shape)
    larger = RowShape(
        *(
            min(most, size + -(-size // 16))
            for size, most in zip(astuple(shape), astuple(largest), strict=True)
        )
    )
    return tuple(dict.fromkeys([*shapes, larger.rounded(), largest]))


def fill(
    rows: Sequence[Sequence[tuple[Features, Example]]], shape: RowShape, width: int
) -> Batch:
    """Writes rows of examples into a batch in host memory, padded on the right.

    Two examples of 1 window each in a row of 11 tokens, 2 windows and 6 answers:

        text          <s>  ♪  Jazz  .  \\n <s>  ♪  Slow \\n          targets  2 3 4 7 8
        audio_slot     -1  0   -1  -1  -1  -1  1   -1  -1  -1  -1
        segments        1  1    1   1   1   2  2    2   2   0   0
        positions       0  1    2   3   4   0  1    2   3   0   0

    Args:
      rows: for each row its examples, each as its features and its tokens.
      shape: of a row; large enough for each of them.
      width: of the features.
    """
    count = len(rows)
    batch = Batch(
        features=np.zeros((count, shape.windows, width), np.float32),
        tokens=np.zeros((count, shape.length), np.int32),
        audio_slot=np.full((count, shape.length), -1, np.int32),
        segments=np.zeros((count, shape.length), np.int32),
        positions=np.zeros((count, shape.length), np.int32),
        targets=np.full((count, shape.answers), -1, np.int32),
    )
    for row, examples in enumerate(rows):
        start = heard = said = 0
        for segment, (features, example) in enumerate(examples, start=1):
            size, targets = len(example.tokens), np.flatnonzero(example.target_mask)
            here, slots = slice(start, start + size), np.asarray(example.audio_slot)
            batch.features[row, heard : heard + len(features)] = features
            batch.tokens[row, here] = example.tokens
            batch.audio_slot[row, here] = np.where(slots < 0, -1, slots + heard)
            batch.segments[row, here] = segment
            batch.positions[row, here] = np.arange(size)
            batch.targets[row, said : said + len(targets)] = start + targets
            start, heard, said = (
                start + size,
                heard + len(features),
                said + len(targets),
            )
    return batch

"""Packs several examples into each row of tokens, so that little is padding.

Examples differ in length, and a batch is a rectangle. With one example per row, every
row is padded to the longest example. A packed row holds several examples, one after
another, which do not attend to each other:

    apart     a a a a a a a .        packed     a a a a a a a b b
              b b . . . . . .                   d d d d c c c e .
              c c c . . . . .
              d d d d . . . .
              e . . . . . . .

Which examples a batch holds is decided before. Packing only decides where each one is,
which changes the loss by no more than the order of a sum.
"""

import heapq
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import cast

import jax
import numpy as np
from jaxtyping import Float, Integer

from musilingo_jax.answering.prompts import Example
from musilingo_jax.models.answer_loss import Batch

Features = Float[np.ndarray, "_windows width"]

PROGRAMS = 8
"""Batch shapes per stage, at most, and so the programs that are compiled for it."""

MULTIPLE = 8
"""Lengths and answers are rounded up to it, since XLA lays arrays out in tiles of 8."""


@dataclass(frozen=True)
class RowShape:
    """The size of a row of a batch.

    Attributes:
      length: tokens, audio included.
      windows: audio vectors.
      answers: target tokens.
    """

    length: int
    windows: int
    answers: int

    def holds(self, other: "RowShape") -> bool:
        """Whether a row of the other size fits into a row of this size."""
        return self == self.join(other)

    def join(self, other: "RowShape") -> "RowShape":
        """The smallest size that holds rows of both sizes."""
        return RowShape(
            length=max(self.length, other.length),
            windows=max(self.windows, other.windows),
            answers=max(self.answers, other.answers),
        )

    def rounded(self) -> "RowShape":
        """Rounded up to multiples of `MULTIPLE`, which costs next to nothing."""
        return RowShape(
            length=MULTIPLE * -(-self.length // MULTIPLE),
            windows=self.windows,
            answers=MULTIPLE * -(-self.answers // MULTIPLE),
        )


def pack(
    lengths: Sequence[int] | Integer[np.ndarray, " examples"], rows: int
) -> list[list[int]]:
    """Assigns examples to rows: longest first, each to the row with the most room.

        lengths  7 2 3 4 1 5,  3 rows        7 1    5 2    4 3

    This is the rule "longest processing time first" of Graham 1969 ("Bounds on
    multiprocessing timing anomalies"), with at most ⌈examples / rows⌉ examples in a
    row. So with as many rows as examples each row holds one, and the size of any row is
    bounded: ⌈examples / rows⌉ times the longest example, audio and answer.

    Args:
      lengths: tokens of each example.
      rows: number of rows. With more rows than examples, some stay empty.

    Returns:
      For each row the indices, in `lengths`, of its examples.
    """
    per_row = -(-len(lengths) // rows)
    packed: list[list[int]] = [[] for _ in range(rows)]
    open_rows = [(0, row) for row in range(rows)]  # A heap of (tokens, row).
    for example in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        load, row = heapq.heappop(open_rows)
        packed[row].append(example)
        if len(packed[row]) < per_row:
            heapq.heappush(open_rows, (load + int(lengths[example]), row))
    return packed


def choose_shapes(needs: Sequence[RowShape], largest: RowShape) -> tuple[RowShape, ...]:
    """At most `PROGRAMS` shapes, each inside the next, for batches like the given ones.

    Most of the shapes have the length of some of these batches. They are chosen so that
    the batches, each in the first shape that holds it, have the least padding together.
    Two more follow: one that is a sixteenth larger than any of the batches, for what
    the sample did not contain, and `largest`:

        lengths of the batches       200 208 208 216           240      264
        three shapes for them                    216           240      264
        two more                                                            288     960

    Args:
      needs: the size of the largest row of each batch of a sample.
      largest: the largest row that any batch can have.
    """
    needs = sorted((need.rounded() for need in needs), key=lambda need: need.length)
    shapes, shape = [], RowShape(0, 0, 0)
    for length in _best_lengths([need.length for need in needs], PROGRAMS - 2):
        for need in needs:
            if need.length <= length:
                shape = shape.join(need)
        shapes.append(shape)
    largest = largest.rounded().join(shape)
    sixteenth_more = RowShape(
        *(
            min(most, size + -(-size // 16))
            for size, most in zip(astuple(shape), astuple(largest), strict=True)
        )
    )
    return tuple(dict.fromkeys([*shapes, sixteenth_more.rounded(), largest]))


def _best_lengths(needed: Sequence[int], most: int) -> tuple[int, ...]:
    """At most `most` of the lengths, with the least padding if all are rounded up.

    Dynamic programming: `best[j]` is how to cover the j shortest distinct lengths, as
    (tokens in total, lengths chosen). Each round allows one length more.
    """
    lengths, counts = np.unique(needed, return_counts=True)
    up_to = [0, *map(int, np.cumsum(counts))]  # Batches among the j shortest lengths.
    best: list[tuple[float, tuple[int, ...]]] = [
        (0, ()),
        *((float("inf"), ()) for _ in lengths),
    ]
    for _ in range(most):
        best = [best[0]] + [
            min(
                best[j],
                *(
                    (tokens + length * (up_to[j] - up_to[i]), (*chosen, length))
                    for i, (tokens, chosen) in enumerate(best[:j])
                ),
            )
            for j, length in enumerate(map(int, lengths), start=1)
        ]
    return best[-1][1]


def fill(
    rows: Sequence[Sequence[tuple[Features, Example]]], shape: RowShape, width: int
) -> Batch:
    r"""Writes rows of examples into a batch in host memory, padded on the right.

    Two examples of 1 window each in a row of 11 tokens, 2 windows and 6 answers:

        text          <s>  ♪  Jazz  .  \n  <s>  ♪  Slow \n           targets  2 3 4 7 8
        audio_slot     -1  0   -1  -1  -1  -1  1   -1  -1  -1  -1
        segments        1  1    1   1   1   2  2    2   2   0   0
        positions       0  1    2   3   4   0  1    2   3   0   0

    Args:
      rows: for each row its examples, each as its features and its tokens.
      shape: of a row; large enough for each of the rows.
      width: of the features.

    Returns:
      A batch of NumPy arrays.
    """
    count = len(rows)
    arrays: dict[str, np.ndarray] = {
        "features": np.zeros((count, shape.windows, width), np.float32),
        "tokens": np.zeros((count, shape.length), np.int32),
        "audio_slot": np.full((count, shape.length), -1, np.int32),
        "segments": np.zeros((count, shape.length), np.int32),
        "positions": np.zeros((count, shape.length), np.int32),
        "targets": np.full((count, shape.answers), -1, np.int32),
    }
    for row, examples in enumerate(rows):
        start = windows = answers = 0  # What the row holds so far.
        for segment, (features, example) in enumerate(examples, start=1):
            size, targets = len(example.tokens), np.flatnonzero(example.target_mask)
            here, slots = slice(start, start + size), np.asarray(example.audio_slot)
            arrays["features"][row, windows : windows + len(features)] = features
            arrays["tokens"][row, here] = example.tokens
            arrays["audio_slot"][row, here] = np.where(
                slots < 0, slots, slots + windows
            )
            arrays["segments"][row, here] = segment
            arrays["positions"][row, here] = np.arange(size)
            arrays["targets"][row, answers : answers + len(targets)] = start + targets
            start += size
            windows += len(features)
            answers += len(targets)
    # JAX takes NumPy arrays wherever it takes its own.
    return Batch(**cast(dict[str, jax.Array], arrays))

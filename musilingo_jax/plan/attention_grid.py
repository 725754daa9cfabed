"""The grid of splash attention: which blocks it computes, and what it reads for them.

A TPU copies a block of an operand to the core when the grid comes to a step that needs
another block than the step before. So an operand is read once, or many times:

    keys         0    1    2    3        blocks of keys in this order:
    queries 0    x    .    .    .
            1    x    x    .    .        0  0 1  0 1 2  0 1 2 3
            2    x    x    x    .
            3    x    x    x    x        9 are read: the second 0 is still there

Forward, and for the gradient of queries, heads and blocks of queries are the outer
loops, as drawn. For the gradients of keys and values the outer loops are blocks of keys
and heads, and queries are read again.
"""

import functools
import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from musilingo_jax.models.attention_blocks import SIZES, Blocks

STEP_SECONDS = 0.35e-6
"""What a step of a grid is assumed to take besides its work; not measured here."""

MOST_PAIRS = 1024 * 1024
"""Pairs of a block that fit into the memory of a core, with those of all gradients.

Compiled for v5e with heads of 128: blocks of 1,024 by 1,024 fit, 2,048 by 1,024 do not.
"""


@dataclass(frozen=True)
class Grid:
    """The computed blocks of one row, in the order in which a kernel computes them.

    Attributes:
      head: of queries, of each step.
      query: number of the block of queries, of each step.
      key: number of the block of keys, of each step.
    """

    head: Int[np.ndarray, " steps"]
    query: Int[np.ndarray, " steps"]
    key: Int[np.ndarray, " steps"]

    @classmethod
    def of(
        cls,
        computed: Bool[np.ndarray, "heads queries keys"],
        keys: Int[np.ndarray, "heads queries keys"] | None = None,
    ) -> "Grid":
        """With heads and queries as the outer loops.

        Args:
          computed: whether a block is.
          keys: the number of a block of keys, if it is not the index.
        """
        head, query, key = np.nonzero(computed)
        return cls(head, query, key if keys is None else keys[head, query, key])

    @classmethod
    def by_keys(
        cls,
        computed: Bool[np.ndarray, "heads queries keys"],
        queries: Int[np.ndarray, "heads queries keys"] | None = None,
    ) -> "Grid":
        """With keys and heads as the outer loops.

        Args:
          computed: whether a block is.
          queries: the number of a block of queries, if it is not the index.
        """
        key, head, query = np.nonzero(computed.transpose(2, 0, 1))
        found = query if queries is None else queries[head, query, key]
        return cls(head, found, key)

    @property
    def steps(self) -> int:
        """Blocks that are computed."""
        return len(self.head)

    def queries_read(self) -> int:
        """Blocks that are read of what each head has for its queries."""
        return _changes(self.head, self.query)

    def keys_read(self, shared: int) -> int:
        """Blocks that are read of keys, or of values.

        Args:
          shared: heads of queries for each head of keys.
        """
        return _changes(self.head // shared, self.key)

    def query_segments_read(self) -> int:
        """Blocks that are read of the segments of queries, which all heads share."""
        return _changes(self.query)

    def key_segments_read(self) -> int:
        """Blocks that are read of the segments of keys, which all heads share."""
        return _changes(self.key)


def _changes(*index: Int[np.ndarray, " steps"]) -> int:
    """How often one of the numbers differs from that of the step before; first: yes."""
    if not len(index[0]):
        return 0
    return 1 + int(np.any([np.diff(numbers) != 0 for numbers in index], axis=0).sum())


def causal_blocks(
    time: int, blocks: Blocks, heads: int
) -> Bool[np.ndarray, "heads queries keys"]:
    """The blocks that a causal kernel computes: those with a key before a query.

    Args:
      time: positions of the row.
      blocks: their sizes, which divide the row.
      heads: of queries.
    """
    last_query = np.arange(1, time // blocks.queries + 1) * blocks.queries - 1
    first_key = np.arange(time // blocks.keys) * blocks.keys
    computed = first_key <= last_query[:, None]
    return np.broadcast_to(computed, (heads, *computed.shape))


def causal_seconds(
    time: int,
    most: Blocks,
    *,
    heads: int,
    shared: int,
    head_dim: int,
    again: bool,
    peak_flops: float,
    bandwidth: float,
) -> float:
    """Rough time of a row of causal attention, forward and backward.

    For each of the three kernels, products or reads, whichever take longer, and steps.
    A block in bfloat16 is read from HBM; the compiler may keep small rows on the core.

    Args:
      time: positions of the row.
      most: the largest blocks.
      heads: of queries.
      shared: heads of queries for each head of keys.
      head_dim: width of a head.
      again: whether the backward pass computes the forward kernel again.
      peak_flops: operations per second.
      bandwidth: bytes per second.
    """
    sizes = most.of(time)
    computed = causal_blocks(time, sizes, heads)
    outer = Grid.of(computed), Grid.of(computed), Grid.by_keys(computed)
    kinds = zip(outer, (2, 3, 4), (1 + again, 1, 1), strict=True)
    total = 0.0
    for grid, products, times in kinds:
        pairs = grid.steps * sizes.queries * sizes.keys
        flops = 2 * products * pairs * head_dim
        # Queries and what was made of them; keys and values.
        read = 2 * grid.queries_read() * sizes.queries
        read += 2 * grid.keys_read(shared) * sizes.keys
        seconds = max(flops / peak_flops, 2 * read * head_dim / bandwidth)
        total += times * (seconds + grid.steps * STEP_SECONDS)
    return total


@functools.cache
def best_blocks(
    *,
    time: int,
    heads: int,
    shared: int,
    head_dim: int,
    again: bool,
    peak_flops: float,
    bandwidth: float,
) -> Blocks:
    """The fastest blocks that fit, by `causal_seconds`, whose arguments these are."""
    dividing = [size for size in SIZES if time % size == 0]
    tried = (Blocks(*sizes) for sizes in itertools.product(dividing, repeat=2))
    return min(
        (blocks for blocks in tried if blocks.queries * blocks.keys <= MOST_PAIRS),
        key=lambda blocks: causal_seconds(
            time,
            blocks,
            heads=heads,
            shared=shared,
            head_dim=head_dim,
            again=again,
            peak_flops=peak_flops,
            bandwidth=bandwidth,
        ),
    )

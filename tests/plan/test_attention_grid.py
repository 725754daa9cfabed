"""What the grid of splash attention reads, against a count step by step."""

import itertools
import re
from collections import Counter

import numpy as np
import pytest
from plan import recorded_kernels as recorded

from musilingo_jax.models.attention_blocks import Blocks
from musilingo_jax.plan import attention_grid
from musilingo_jax.plan.attention_grid import (
    MOST_PAIRS,
    Grid,
    best_blocks,
    causal_blocks,
    causal_seconds,
)
from musilingo_jax.plan.program_costs import costs_of


def reads(*, queries, keys, heads, shared, time, causal, by_keys):
    """Blocks read of each operand, by walking through the grid and watching it."""
    rows, columns = range(time // queries), range(time // keys)
    order = (
        ((h, i, j) for j in columns for h in range(heads) for i in rows)
        if by_keys
        else itertools.product(range(heads), rows, columns)
    )
    held, found, steps = {}, Counter(), 0
    for head, i, j in order:
        if causal and j * keys > (i + 1) * queries - 1:
            continue
        steps += 1
        for name, block in {
            "query": (head, i),
            "key": (head // shared, j),
            "query segments": i,
            "key segments": j,
        }.items():
            found[name] += held.get(name) != block
            held[name] = block
    return {"steps": steps, **found}


@pytest.mark.parametrize("by_keys", [False, True], ids=["by queries", "by keys"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("heads", "shared"), [(4, 1), (4, 2), (1, 1)])
@pytest.mark.parametrize("blocks", [(128, 128), (256, 128), (128, 512), (768, 768)])
def test_reads_are_those_of_a_walk_through_the_grid(
    blocks, heads, shared, causal, by_keys
):
    sizes = Blocks(*blocks).of(768)
    computed = causal_blocks(768, sizes, heads) | (not causal)
    grid = (Grid.by_keys if by_keys else Grid.of)(computed)
    assert {
        "steps": grid.steps,
        "query": grid.queries_read(),
        "key": grid.keys_read(shared),
        "query segments": grid.query_segments_read(),
        "key segments": grid.key_segments_read(),
    } == reads(
        queries=sizes.queries,
        keys=sizes.keys,
        heads=heads,
        shared=shared,
        time=768,
        causal=causal,
        by_keys=by_keys,
    )


def test_the_drawn_grid_reads_nine_blocks_of_keys():
    grid = Grid.of(causal_blocks(1024, Blocks(256, 256), 1))
    assert (grid.steps, grid.queries_read(), grid.keys_read(1)) == (10, 4, 9)
    assert grid.key.tolist() == [0, 0, 1, 0, 1, 2, 0, 1, 2, 3]


def test_a_grid_that_is_narrower_than_the_keys_tells_their_numbers():
    """Of a window of one block, the kernel's tables have two columns."""
    numbers = np.array([[[0, 0], [0, 1], [1, 2]]])
    computed = np.array([[[True, False], [True, True], [True, True]]])
    grid = Grid.of(computed, numbers)
    assert grid.key.tolist() == [0, 0, 1, 1, 2]
    assert grid.keys_read(1) == 3


def test_a_recorded_program_reads_keys_again_for_each_block_of_queries():
    """Nothing is on the core in this text, so that every operand counts."""
    text = re.sub(r"S\(1\)", "", recorded.read())
    costs = costs_of(text)
    assert not isinstance(costs, str), costs
    forward = next(k for k in costs.kernels if "_fwd_" in k.name)
    heads, rows = recorded.HEADS // recorded.TENSOR, recorded.ROWS // recorded.DATA
    counted = reads(
        queries=recorded.BLOCK,
        keys=recorded.BLOCK,
        heads=heads,
        shared=1,
        time=recorded.LENGTH,
        causal=True,
        by_keys=False,
    )
    block = 2 * recorded.BLOCK * recorded.HEAD_DIM
    array = 2 * recorded.LENGTH * recorded.HEAD_DIM * heads
    # Queries and the result, once; keys and values, as often as they are read.
    expected = rows * (2 * array + 2 * counted["key"] * block)
    # Segments, int32 in 128 lanes for queries and in 8 for keys, and residuals.
    expected += rows * 4 * 128 * recorded.BLOCK * counted["query segments"]
    expected += rows * 4 * 8 * recorded.BLOCK * counted["key segments"]
    # The numbers of positions, as queries have them, and what is written besides.
    expected += rows * 4 * 128 * recorded.BLOCK * counted["query segments"]
    expected += rows * 4 * 128 * (heads * recorded.LENGTH + 3 * recorded.BLOCK)
    assert forward.bytes / forward.times == pytest.approx(expected, rel=1e-3)
    assert counted["key"] * block > 2 * array


def seconds(blocks, *, time=1280, bandwidth=819e9):
    return causal_seconds(
        time,
        Blocks(*blocks),
        heads=32,
        shared=1,
        head_dim=128,
        again=True,
        peak_flops=197e12,
        bandwidth=bandwidth,
    )


def test_small_blocks_take_steps_and_large_ones_compute_what_is_masked(monkeypatch):
    assert seconds((640, 640)) < seconds((128, 128))
    monkeypatch.setattr(attention_grid, "STEP_SECONDS", 0.0)
    fast = 1e15
    assert seconds((128, 128), bandwidth=fast) < seconds((640, 640), bandwidth=fast)


def test_the_best_blocks_are_the_fastest_that_fit():
    shape = {"time": 1280, "heads": 32, "shared": 1, "head_dim": 128, "again": True}
    best = best_blocks(**shape, peak_flops=197e12, bandwidth=819e9)
    tried = itertools.product((128, 256, 640, 1280), repeat=2)
    fitting = [pair for pair in tried if pair[0] * pair[1] <= MOST_PAIRS]
    assert (1280, 1280) not in fitting
    assert (best.queries, best.keys) == min(fitting, key=seconds)
    assert seconds((best.queries, best.keys)) < 0.7 * seconds((128, 128))


def test_where_memory_is_slow_more_queries_at_once_pay():
    slow = 50e9
    assert seconds((640, 256), bandwidth=slow) < seconds((128, 256), bandwidth=slow)

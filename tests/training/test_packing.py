"""Examples in rows: none lost, none too many, little room left empty."""

import itertools

import numpy as np
import pytest

from musilingo_jax.answering.prompts import Example
from musilingo_jax.training.packing import (
    MULTIPLE,
    PROGRAMS,
    RowShape,
    choose_shapes,
    fill,
    pack,
)


def total_padding(shapes, needs):
    taken = [next(shape for shape in shapes if shape.holds(need)) for need in needs]
    return sum(shape.length for shape in taken)


def test_packing_is_as_drawn():
    assert pack([7, 2, 3, 4, 1, 5], rows=3) == [[0, 4], [5, 1], [3, 2]]
    assert pack([1, 5, 2], rows=3) == [[1], [2], [0]]
    assert pack([3], rows=2) == [[0], []]


@pytest.mark.parametrize("seed", range(5))
def test_each_example_is_in_one_row_and_rows_are_alike(seed):
    rng = np.random.default_rng(seed)
    count, rows = 32, int(rng.integers(1, 9))
    lengths = rng.integers(20, 180, count)
    packed = pack(lengths, rows)
    assert sorted(place for row in packed for place in row) == [*range(count)]
    assert all(1 <= len(row) <= -(-count // rows) for row in packed)
    loads = [lengths[row].sum() for row in packed]
    assert max(loads) <= min(4 / 3 * lengths.sum() / rows, -(-count // rows) * 180)
    assert 1 - lengths.sum() / (rows * max(loads)) < 0.1
    assert pack(lengths, rows) == packed


def test_shapes_hold_all_and_the_last_holds_anything():
    rng = np.random.default_rng(0)
    needs = [
        RowShape(int(length), int(rng.integers(3, 9)), int(length // 2))
        for length in rng.normal(600, 40, 300)
    ]
    largest = RowShape(1500, 9, 1201)
    shapes = choose_shapes(needs, largest)
    assert len(shapes) == PROGRAMS
    most = max(need.length for need in needs)
    assert shapes[-3].length < most * 17 / 16 <= shapes[-2].length < most * 9 / 8
    assert shapes[-1] == largest.rounded() == RowShape(1504, 9, 1208)
    for one, next_one in zip(shapes, shapes[1:], strict=False):
        assert next_one.holds(one) and next_one != one
    assert all(
        shape.length % MULTIPLE == shape.answers % MULTIPLE == 0 for shape in shapes
    )
    exact = sum(need.length for need in needs)
    assert 1 - exact / total_padding(shapes, needs) < 0.025


def test_shapes_are_the_best_there_are():
    """Against all choices of as many of the lengths that are needed."""
    rng = np.random.default_rng(1)
    lengths = MULTIPLE * rng.integers(1, 16, 60)
    needs = [RowShape(int(length), 1, 8) for length in lengths]
    shapes = choose_shapes(needs, RowShape(8 * 16, 1, 8))
    inner = sorted({*map(int, lengths)} - {int(max(lengths))})
    top = RowShape(int(max(lengths)), 1, 8)
    best = min(
        total_padding([*(RowShape(n, 1, 8) for n in chosen), top], needs)
        for chosen in itertools.combinations(inner, PROGRAMS - 3)
    )
    assert len(inner) > 2 * PROGRAMS - 6
    assert total_padding(shapes, needs) == best


def test_equal_examples_need_one_shape():
    assert choose_shapes([RowShape(16, 2, 8)] * 9, RowShape(16, 2, 8)) == (
        RowShape(16, 2, 8),
    )


def test_a_filled_row_is_as_drawn():
    features = np.ones((1, 3), np.float32)
    jazz = Example(
        [1, 0, 5, 6, 7], [-1, 0, -1, -1, -1], [False] * 2 + [True] * 3, False
    )
    slow = Example([1, 0, 8, 7], [-1, 0, -1, -1], [False] * 2 + [True] * 2, False)
    rows = [[(features, jazz), (2 * features, slow)], []]
    batch = fill(rows, RowShape(length=11, windows=2, answers=6), width=3)
    row = {
        "tokens": [1, 0, 5, 6, 7, 1, 0, 8, 7, 0, 0],
        "audio_slot": [-1, 0, -1, -1, -1, -1, 1, -1, -1, -1, -1],
        "segments": [1, 1, 1, 1, 1, 2, 2, 2, 2, 0, 0],
        "positions": [0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 0],
        "targets": [2, 3, 4, 7, 8, -1],
    }
    for name, numbers in row.items():
        assert getattr(batch, name)[0].tolist() == numbers, name
    assert batch.features[0].tolist() == [[1.0] * 3, [2.0] * 3]
    assert not batch.segments[1].any()
    assert (batch.targets[1] == -1).all()

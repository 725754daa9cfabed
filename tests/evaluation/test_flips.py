"""Sign-flip tests: p-values by hand, and the level of the test."""

import numpy as np
import pytest

from musilingo_jax.evaluation.metrics import flips


def p_above(differences, seed=0) -> float:
    flipped, every = flips.flipped_sums(differences[:, None], seed=seed)
    return flips.p_value(differences.sum(), flipped[:, 0], all_signs=every)


def test_few_clips_are_tested_with_all_signs():
    assert p_above(np.ones(5)) == 1 / 32  # Not even five of five are enough.
    assert p_above(np.ones(6)) == 1 / 64
    # Three wins and three ties: of 8 exchanges of what differs, one gives as much.
    assert p_above(np.array([1.0, 1, 1, 0, 0, 0])) == 1 / 8
    assert p_above(np.array([2.0, -1])) == 2 / 4
    assert p_above(np.zeros(9)) == 1
    assert p_above(-np.ones(6)) == 1
    # Sums that are equal but for rounding count as equal: 0.1 + 0.2 and 0.3.
    assert p_above(np.array([0.1, 0.2, -0.3])) == 5 / 8


def test_many_clips_are_tested_with_drawn_signs():
    differences = np.random.default_rng(0).normal(0.3, 1.0, 40)
    flipped, every = flips.flipped_sums(differences[:, None], seed=0)
    assert flipped.shape == (10_000, 1) and not every
    # A sum of many random signs is nearly normal.
    assert flipped.std() == pytest.approx(np.sqrt((differences**2).sum()), rel=0.03)
    assert p_above(differences) == p_above(differences)
    assert p_above(np.ones(40)) == 1 / 10_001
    all_of_them = p_above(differences[:13])
    # Clips without a difference change nothing.
    assert p_above(np.concatenate([differences[:13], np.zeros(9)])) == all_of_them


def test_columns_of_a_clip_change_sign_together():
    pairs = np.array([[1.0, 10.0], [2.0, 20.0], [0.0, 0.0]])
    flipped, every = flips.flipped_sums(pairs, seed=0)
    assert every and flipped.shape == (4, 2)
    np.testing.assert_array_equal(flipped[:, 1], 10 * flipped[:, 0])
    assert sorted(flipped[:, 0]) == [-3, -1, 1, 3]


@pytest.mark.parametrize("clips", [6, 8, 20])
@pytest.mark.parametrize("graded", [False, True], ids=["right or wrong", "graded"])
def test_chance_is_not_taken_for_hearing(clips, graded):
    """A test rejects in at most 2.5 % of cases, plus three standard errors."""
    generator = np.random.default_rng(clips)
    tests = 400
    taken = 0
    for _ in range(tests):
        if graded:
            own, control = generator.beta(0.5, 1.0, (2, clips))
        else:
            own, control = generator.integers(0, 2, (2, clips))
        taken += p_above((own - control).astype(float)) <= flips.LEVEL
    assert taken / tests <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / tests)

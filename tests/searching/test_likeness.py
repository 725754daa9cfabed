"""How alike clips are: against the formula written out, and in cases one can see."""

import numpy as np
import pytest

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.searching.likeness import Likeness, pool, whitener

RNG = np.random.default_rng(0)


def clips(count, width):
    own = RNG.normal(size=(count, 1, width))
    deviations = 0.1 * np.arange(1, width + 1)
    return [each + deviations * RNG.normal(size=(4, width)) for each in own]


def test_the_score_is_that_of_the_formula():
    features = clips(20, 3)
    found = Likeness.of(features)
    pooled = np.stack([each.mean(0) for each in features])
    around = np.concatenate([f - f.mean(0) for f in features])
    sample = around.T @ around / len(around)
    level = np.trace(sample) / 3
    target = level * np.eye(3)
    error = np.mean([np.sum((np.outer(a, a) - sample) ** 2) for a in around])
    amount = error / len(around) / np.sum((sample - target) ** 2)
    assert 0.01 < amount < 0.5
    shrunk = (1 - amount) * sample + amount * target
    inverse = np.linalg.inv(shrunk)
    centred = pooled - pooled.mean(0)
    products = centred @ inverse @ centred.T
    lengths = np.sqrt(np.diag(products))
    expected = products / np.outer(lengths, lengths)
    scores = np.stack([found.to(vector) for vector in pooled])
    np.testing.assert_allclose(scores, expected, atol=1e-9)
    np.testing.assert_allclose(np.diag(scores), 1)


def test_what_all_clips_have_in_common_does_not_count():
    features = clips(10, 5)
    shifted = [each + 100.0 for each in features]
    one, other = Likeness.of(features), Likeness.of(shifted)
    np.testing.assert_allclose(one.unit, other.unit, atol=1e-8)


def test_a_direction_that_varies_within_songs_counts_less():
    """Clips 0 and 1 are alike but for loudness, which changes all the time."""
    loud = np.array([1.0, 0.0])
    kinds = [np.array([0.0, 1.0]), np.array([0.0, 1.2]), np.array([0.0, -1.1])]
    levels = (3.0, -3.0, 3.0)
    features = [
        kind + (level + 5 * RNG.normal(size=(50, 1))) * loud
        for kind, level in zip(kinds, levels, strict=True)
    ]
    features = [f + 0.05 * RNG.normal(size=f.shape) for f in features]
    pooled = np.stack([pool(f) for f in features])
    scores = Likeness.of(features).to(pooled[0])
    assert scores[1] > 0.5 > 0 > scores[2]
    plain = (pooled - pooled.mean(0)) @ (pooled - pooled.mean(0))[0]
    assert plain[1] < plain[2]  # Loudness decides without whitening.


def test_clips_of_one_vector_are_only_centred():
    features = [RNG.normal(size=(1, 4)) for _ in range(5)]
    np.testing.assert_array_equal(Likeness.of(features).whitener, np.eye(4))


def test_more_dimensions_than_vectors_are_no_trouble():
    found = Likeness.of(clips(4, 100))
    scores = found.to(found.mean + 1.0)
    assert np.isfinite(scores).all() and np.isfinite(found.whitener).all()
    around = RNG.normal(size=(3, 50))
    assert np.linalg.cond(whitener(around)) < 1e6


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (clips(2, 3), "there are 2 clips; .* 3 are needed"),
        ([np.ones((2, 3))] * 4, "all clips have the same features"),
    ],
)
def test_too_little_to_compare_is_told(features, message):
    with pytest.raises(UserError, match=message):
        Likeness.of(features)


def test_a_vector_that_is_the_mean_is_like_none():
    found = Likeness.of(clips(5, 3))
    np.testing.assert_array_equal(found.to(found.mean), 0)

"""Columns of scores, and the sums that they are made of."""

import numpy as np
import pytest

from musilingo_jax.evaluation.metrics import bleu
from musilingo_jax.evaluation.score_table import OWN, Measure, ScoreTable, Terms, mean

MEAN = Measure("x", mean, right_or_wrong=False)
BLEU = Measure("counts", lambda sums: bleu.corpus_bleu(sums)["bleu1"], False)


def table(clips, own, control):
    scores = {OWN: {"x": np.array(own)}, "control": {"x": np.array(control)}}
    return ScoreTable(list(clips), scores, seed=0)


def test_terms_of_rows_that_are_not_included_are_zeros():
    included = np.array([True, False])
    terms = Terms.of(np.array([0.5, np.nan]), included)
    np.testing.assert_array_equal(terms.values, [[0.5, 1], [0, 0]])
    counts = Terms.of(np.array([[1.0, 2, 3], [np.nan] * 3]), included)
    np.testing.assert_array_equal(counts.values, [[1, 2, 3], [0, 0, 0]])


def test_a_control_is_compared_on_the_rows_that_both_have():
    """The drawing at the top of the module."""
    found = table("aab", own=[1.0, 0.5, 0.0], control=[0.0, np.nan, 0.5])
    assert found.size(MEAN, OWN) == (3, 2) and found.size(MEAN, "control") == (2, 2)
    assert found.estimate(MEAN, OWN).value == 0.5
    assert found.estimate(MEAN, "control").value == 0.25
    assert found.gain(MEAN, "control").value == 0.25
    # Clips a and b differ by 1 and −0.5: of four exchanges two give as much.
    assert found.gain(MEAN, "control").p_above == 2 / 4


def test_a_score_that_a_control_lacks():
    found = table("ab", own=[1.0, 0.5], control=[np.nan, np.nan])
    assert found.has(MEAN, OWN) and not found.has(MEAN, "control")
    assert not found.has(Measure("y", mean, right_or_wrong=False), OWN)


@pytest.mark.parametrize("clips", [8, 20], ids=["all flips", "random flips"])
def test_flips_of_bleu_exchange_the_counts_of_clips(clips):
    """BLEU of the exchanged answers, computed anew for each of some flips."""
    generator = np.random.default_rng(0)
    words = np.array(["slow", "fast", "calm", "loud", "piano", "drums"])
    texts = generator.choice(words, (3, clips, 4))
    own, control, reference = ([" ".join(t) for t in side] for side in texts)
    counts = np.array(
        [
            [bleu.statistics(a, r) for a, r in zip(side, reference, strict=True)]
            for side in (own, control)
        ],
        np.float64,
    )
    scores = {OWN: {"counts": counts[0]}, "control": {"counts": counts[1]}}
    gain = ScoreTable([str(i) for i in range(clips)], scores, seed=0).gain(
        BLEU, "control"
    )

    def difference(exchanged):
        pair = np.where(exchanged[:, None], counts[::-1], counts).sum(axis=1)
        both = bleu.corpus_bleu(pair)["bleu1"]
        return both[0] - both[1]

    assert gain.value == pytest.approx(difference(np.zeros(clips, bool)))
    flips = generator.integers(0, 2, (4000, clips)).astype(bool)
    if clips == 8:
        flips = (np.arange(1 << clips)[:, None] >> np.arange(clips) & 1).astype(bool)
    above = np.mean([difference(each) >= gain.value - 1e-9 for each in flips])
    assert gain.p_above == pytest.approx(above, abs=1e-12 if clips == 8 else 0.03)

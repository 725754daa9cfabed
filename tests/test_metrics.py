"""Scores of answers and the intervals around their means."""

import numpy as np
import pytest
from scipy import stats

from musilingo_jax import metrics

INSTRUMENTS = ("guitar", "bass guitar", "flute", "piano")
KEYS = ("A minor", "A major", "F minor", "F# minor", "C# major")


@pytest.mark.parametrize(
    ("answer", "values", "named"),
    [
        ("A bass guitar leads.", INSTRUMENTS, "bass guitar"),
        ("The Guitar, yes, the guitar!", INSTRUMENTS, "guitar"),
        ("A bass guitar and a guitar.", INSTRUMENTS, None),
        ("A flute and a guitar.", INSTRUMENTS, None),
        ("Bass  \n guitar", INSTRUMENTS, "bass guitar"),
        ("Something with strings.", INSTRUMENTS, None),
        ("", INSTRUMENTS, None),
        ("guitarist", INSTRUMENTS, None),
        ("The key is A minor.", KEYS, "A minor"),
        ("It has a minor flaw.", KEYS, None),
        ("The key is F# minor.", KEYS, "F# minor"),
        ("The key is F# minor.", ("F", "A"), None),
        # Removing "bass guitar" must not join "A" and "minor" to a key.
        ("A bass guitar minor", (*INSTRUMENTS, "A minor"), "bass guitar"),
        ("Yes.", ("yes", "no"), "yes"),
        ("No, there are no drums.", ("yes", "no"), "no"),
        ("Notably not.", ("yes", "no"), None),
        ("c++ (1.5)", ("c++ (1.5)", "c"), "c++ (1.5)"),
    ],
)
def test_named_value(answer, values, named):
    assert metrics.named_value(answer, values) == named
    assert metrics.named_value(answer, tuple(reversed(values))) == named


def test_rouge_l_is_the_f1_of_the_longest_common_subsequence():
    # Common: "slow piano" (2 words); precision 2/3, recall 2/4.
    score = metrics.rouge_l("slow piano tunes", "a slow sad piano")
    assert score == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert metrics.rouge_l("", "a slow sad piano") == 0


def test_most_typical_answer_shares_most_with_the_others():
    answers = ["a jazz trio", "drums", "a slow jazz trio", "a slow jazz duo"]
    assert metrics.most_typical(answers) == "a slow jazz trio"
    assert metrics.most_typical(["only"]) == "only"


@pytest.mark.parametrize(("correct", "total"), [(0, 10), (3, 10), (10, 10), (57, 80)])
def test_wilson_interval_agrees_with_scipy(correct, total):
    expected = stats.binomtest(correct, total).proportion_ci(method="wilson")
    interval = metrics.wilson_interval(correct, total)
    np.testing.assert_allclose(interval, (expected.low, expected.high), atol=1e-6)


def test_bootstrap_interval_resamples_clips_and_is_seeded():
    generator = np.random.default_rng(0)
    scores = np.repeat(generator.normal(0.5, 1.0, 50), 4)
    clips = [str(i // 4) for i in range(200)]
    low, high = metrics.bootstrap_interval(scores, clips, resamples=4000, seed=1)
    # Four equal rows per clip are one observation: 50 of them, not 200.
    error = metrics.Z_95 * np.std(scores[::4]) / np.sqrt(50)
    np.testing.assert_allclose(
        (low, high), (scores.mean() - error, scores.mean() + error), atol=0.05
    )
    again = metrics.bootstrap_interval(scores, clips, resamples=4000, seed=1)
    assert again == (low, high)
    other = metrics.bootstrap_interval(scores, clips, resamples=4000, seed=2)
    assert other != (low, high)


def test_bootstrap_interval_weighs_clips_by_their_rows():
    low, high = metrics.bootstrap_interval(
        np.array([1.0, 1.0, 1.0, 0.0]), ["a", "a", "a", "b"], resamples=500, seed=0
    )
    assert (low, high) == (0.0, 1.0)

"""How tokens are chosen: masks, processors, and the distribution of draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from musilingo_jax.answering.sampling import (
    NO_TOKEN,
    Choice,
    Generated,
    Greedy,
    MinimumLength,
    RepetitionPenalty,
    Sample,
)

pytestmark = pytest.mark.medium

METHODS = [
    Sample(1.0, 0, 1.0, 0.0),
    Sample(0.7, 5, 1.0, 0.0),
    Sample(1.3, 0, 0.8, 0.0),
    Sample(0.1, 0, 0.5, 0.0),
    Sample(1.0, 0, 1.0, 0.1),
    Sample(0.9, 20, 0.9, 0.05),
    Sample(1.0, 1000, 0.999, 0.0),
    Sample(1.0, 0, 1e-6, 0.0),
]


def scores(rows: int = 16, vocab: int = 97) -> np.ndarray:
    return 3 * np.random.default_rng(0).normal(size=(rows, vocab)).astype(np.float32)


def oracle(row: np.ndarray, method: Sample) -> set[int]:
    """What is kept of one row, the plain way, in float64."""
    row = row.astype(np.float64) / method.temperature
    order = np.argsort(-row)
    if method.top_k:
        order = order[: method.top_k]
    probability = np.exp(row[order] - row[order[0]])
    probability /= probability.sum()
    kept = 1 + int(np.sum(np.cumsum(probability)[:-1] < method.top_p))
    order, probability = order[:kept], probability[:kept]
    return set(order[probability >= method.min_p * probability[0]].tolist())


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_what_is_kept_is_what_numpy_keeps(method):
    given = scores()
    left = np.asarray(method.keep(jnp.asarray(given)))
    for row, masked in zip(given, left, strict=True):
        kept = np.flatnonzero(np.isfinite(masked))
        assert set(kept.tolist()) == oracle(row, method)
        np.testing.assert_allclose(
            masked[kept], row[kept] / method.temperature, rtol=1e-6
        )


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_what_is_kept_is_what_transformers_keeps(method):
    steps = LogitsProcessorList([TemperatureLogitsWarper(method.temperature)])
    if method.top_k:
        steps.append(TopKLogitsWarper(method.top_k))
    if method.top_p < 1:
        steps.append(TopPLogitsWarper(method.top_p))
    if method.min_p:
        steps.append(MinPLogitsWarper(method.min_p))
    theirs = steps(None, torch.from_numpy(scores())).numpy()
    ours = np.asarray(method.keep(jnp.asarray(scores())))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_equal_scores_are_kept_together():
    row = jnp.log(jnp.array([[0.3, 0.2, 0.2, 0.2, 0.1]]))
    for method in (Sample(1.0, 2, 1.0, 0.0), Sample(1.0, 0, 0.4, 0.0)):
        assert np.isfinite(method.keep(row))[0].tolist() == [True] * 4 + [False]


def generated(finishing: np.ndarray | None = None) -> Generated:
    """A row with three tokens, one of them twice, and a row without any."""
    tokens = np.full((2, 5), NO_TOKEN, np.int32)
    tokens[0, :3] = [7, 96, 7]
    if finishing is None:
        finishing = np.zeros((2, 97), bool)
    return Generated(*map(jnp.asarray, (tokens, np.array([3, 0]), finishing)))


def test_processors_are_those_of_transformers():
    given = scores(rows=2)
    theirs = RepetitionPenaltyLogitsProcessor(1.7)(
        torch.tensor([[7, 96, 7]]), torch.from_numpy(given[:1])
    )
    ours = RepetitionPenalty(1.7)(jnp.asarray(given), generated())
    np.testing.assert_allclose(ours[:1], theirs.numpy(), rtol=1e-6)
    np.testing.assert_array_equal(ours[1], given[1])  # The last token of all included.
    ends = [2, 5]
    finishing = np.zeros((2, 97), bool)
    finishing[:, ends] = True
    for least in (3, 4):
        theirs = MinNewTokensLengthLogitsProcessor(10, least, ends)(
            torch.zeros((1, 13), dtype=torch.int64), torch.from_numpy(given[:1])
        )
        ours = MinimumLength(least)(jnp.asarray(given), generated(finishing))
        np.testing.assert_array_equal(ours[:1], theirs.numpy())
        assert np.isneginf(ours[1]).nonzero()[0].tolist() == ends


def test_the_penalty_comes_before_the_choice():
    given = np.full((2, 97), -1.0, np.float32)
    given[:, 7], given[:, 8] = 2.0, 1.9
    seeds = jnp.zeros(2, jnp.uint32)
    choice = Choice((RepetitionPenalty(2.0),), Greedy())
    chosen = choice(jnp.asarray(given), generated(), seeds)
    assert chosen.tolist() == [8, 7]


DRAWS = 20_000


def counts(method: Sample, row: np.ndarray) -> np.ndarray:
    """How often each token is drawn, in rows that differ only in their seeds."""
    nothing = Generated(
        jnp.full((DRAWS, 1), NO_TOKEN),
        jnp.zeros(DRAWS, jnp.int32),
        jnp.zeros((DRAWS, len(row)), bool),
    )
    drawn = jax.jit(Choice((), method))(
        jnp.broadcast_to(row, (DRAWS, len(row))),
        nothing,
        jnp.arange(DRAWS, dtype=jnp.uint32),
    )
    return np.bincount(drawn, minlength=len(row))


@pytest.mark.parametrize("method", [METHODS[0], METHODS[5]], ids=str)
def test_draws_follow_the_distribution(method):
    """By a chi-square test, which a slightly different distribution fails."""
    row = scores(rows=1, vocab=12)[0] / 3
    (left,) = np.asarray(method.keep(jnp.asarray([row])), np.float64)
    probability = np.exp(left) / np.exp(left).sum()
    kept = probability > 0
    found = counts(method, jnp.asarray(row))
    assert found[~kept].sum() == 0
    expected = DRAWS * probability[kept]
    assert chisquare(found[kept], expected).pvalue > 0.001
    # The test has power: at a temperature 5 % higher it fails.
    wrong = np.exp(left[kept] / 1.05)
    assert chisquare(found[kept], DRAWS * wrong / wrong.sum()).pvalue < 0.001


def test_draws_differ_from_token_to_token():
    row = jnp.zeros((2, 1000))
    method = Choice((), METHODS[0])
    seeds = jnp.array([5, 5], jnp.uint32)
    before = Generated(
        jnp.full((2, 1), NO_TOKEN), jnp.array([0, 1]), jnp.zeros((2, 1000), bool)
    )
    first, second = method(row, before, seeds)
    assert first != second

"""The closed-form start: the regression, and what it maps to what."""

import jax.numpy as jnp
import numpy as np

from musilingo_jax.corpora.records import Record
from musilingo_jax.corpora.styles import ATTRIBUTES
from musilingo_jax.recipes import start
from musilingo_jax.recipes.hints import codes


def test_ridge_finds_the_linear_map_that_made_the_goals():
    rng = np.random.default_rng(0)
    features = rng.normal(2.0, 3.0, (400, 6)).astype(np.float32)
    kernel, bias = rng.normal(size=(6, 3)), rng.normal(size=3)
    goals = features @ kernel + bias
    adapter = start.ridge(features, goals, shrinkage=1e-9)
    spliced = adapter(jnp.asarray(features[None]), None).spliced
    np.testing.assert_allclose(spliced[0], goals, atol=1e-4)
    # With all the weight on the penalty, only the mean is left.
    shrunk = start.ridge(features, goals, shrinkage=1e9)
    spliced = shrunk(jnp.asarray(features[None]), None).spliced
    np.testing.assert_allclose(spliced[0, 7], goals.mean(0), atol=1e-4)


def test_each_window_of_a_clip_is_mapped_to_the_sum_of_the_codes(tmp_path):
    rng = np.random.default_rng(0)
    table = codes(5)
    features = {
        clip: rng.normal(size=(windows, 4)).astype(np.float32)
        for clip, windows in (("a", 2), ("b", 3))
    }
    places = {"a": 0, "b": 1}  # Of each attribute, the first value or the second.
    records = [
        Record(
            audio=tmp_path,
            clip=clip,
            question="What is it?",
            answer="It is so.",
            split="train",
            attribute=attribute,
            value=None if attribute is None else ATTRIBUTES[attribute][place],
        )
        for clip, place in places.items()
        for attribute in (None, *reversed(ATTRIBUTES))  # Whatever the order.
    ]
    labels = start.labels_of(records)
    assert {clip: set(values) for clip, values in labels.items()} == {
        "a": set(ATTRIBUTES),
        "b": set(ATTRIBUTES),
    }
    rows, goals = start.regression(labels, features.__getitem__, table)
    np.testing.assert_array_equal(rows, np.concatenate([features["a"], features["b"]]))
    for goal, place in zip(goals, (0, 0, 1, 1, 1), strict=True):
        # The attributes of composed pieces are the first facts.
        expected = table[: len(ATTRIBUTES), place].sum(0)
        np.testing.assert_allclose(goal, expected, rtol=1e-5, atol=1e-6)

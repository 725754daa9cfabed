"""What a summary hears of a long song."""

from types import SimpleNamespace

import numpy as np
import pytest

from musilingo_jax.answering.excerpt import Excerpt
from musilingo_jax.answering.timeline import Timeline


def stretch(start, stop, features):
    return Excerpt(
        name="a.wav",
        start=start,
        stop=stop,
        seconds=30.0,
        silent=False,
        notices=(),
        features=np.asarray(features, np.float32),
        windows=(),
    )


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("layers", [[3.0], [30.0]]), ("pooled", None)],
)
def test_states_are_averaged_and_windows_are_spread(reduction, expected):
    """Of 10 s and 30 s; states of layers are never mixed with each other."""
    parts = [stretch(0.0, 10.0, [[0], [0]]), stretch(10.0, 40.0, [[4], [40]])]
    heard = []
    model = SimpleNamespace(
        listener=SimpleNamespace(
            features=SimpleNamespace(reduction=reduction),
            max_windows=2,
            stretches=lambda song, tell: iter(parts),
        ),
        submit=lambda *_, **__: SimpleNamespace(
            answer=lambda: SimpleNamespace(text="A line.")
        ),
        ask=lambda excerpt, *_, **__: heard.append(excerpt.features) or "All.",
    )
    timeline = Timeline(model, "a.wav")
    assert len(list(timeline.lines())) == 2
    assert timeline.summary() == "All."
    assert heard[0].shape == (2, 1)
    if reduction == "layers":
        np.testing.assert_allclose(heard[0], expected)
    else:
        assert set(heard[0][:, 0]) <= {0.0, 4.0, 40.0} and len(heard[0]) == 2

"""A rendered set on disk: what is in it, and how it resumes.

The sound itself is replaced by a hum.
"""

import numpy as np
import pytest

from musilingo_jax.corpora import synthetic
from musilingo_jax.corpora.facts import beat_index
from musilingo_jax.corpora.synthetic import compose
from musilingo_jax.recipes import render, rendered_set
from musilingo_jax.runtime.errors import UserError


def hum(piece, soundfonts, *, sample_rate, drum_tuning, drum_kit, colour):
    times = np.arange(round(piece.duration * sample_rate)) / sample_rate
    return colour((0.3 * np.sin(2 * np.pi * piece.bpm * times)).astype(np.float32))


def test_a_rendered_set_refuses_other_arguments(tmp_path):
    (tmp_path / "set.json").write_text('{"clips": 5}')
    with pytest.raises(UserError, match="set.json describes a set with other settings"):
        rendered_set.write_set(
            tmp_path,
            clips=1,
            seed=0,
            soundfonts=["font.sf2"],
            duration=1.0,
            augment=False,
            processes=1,
        )


def test_a_rendered_set_resumes_and_equals_one_made_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(rendered_set, "BLOCK", 2)
    monkeypatch.setattr(render, "render", hum)
    arguments = dict(clips=5, seed=1, soundfonts=["a", "b"], duration=1.0)
    arguments |= dict(augment=False, processes=1)
    rendered_set.write_set(tmp_path / "once", **arguments)
    rendered_set.write_set(tmp_path / "twice", **arguments)
    waveform = np.load(tmp_path / "twice" / "waveform.npy", mmap_mode="r+")
    assert waveform.shape == (5, render.SAMPLE_RATE) and waveform.dtype == np.int16
    waveform[2:4] = 0  # as a kill leaves it: no sound yet, and no labels
    waveform.flush()
    (tmp_path / "twice" / "blocks" / "000002.npz").unlink()
    rendered_set.write_set(tmp_path / "twice", **arguments)
    once, twice = (tmp_path / name / "waveform.npy" for name in ("once", "twice"))
    assert once.read_bytes() == twice.read_bytes()
    labels = np.load(tmp_path / "twice" / "labels.npz")
    for index in range(5):
        piece = compose(np.random.default_rng([1, index]), duration=1.0)
        for name, value in piece.label_indices().items():
            assert labels[name][index] == value


def test_a_batch_is_sound_labels_and_targets_of_its_clips(tmp_path, monkeypatch):
    monkeypatch.setattr(render, "render", hum)
    rendered_set.write_set(
        tmp_path,
        clips=4,
        seed=1,
        soundfonts=["a"],
        duration=1.0,
        augment=False,
        processes=1,
    )
    rate = {"frames": 25, "frames_per_second": 25.0}
    read = rendered_set.RenderedSet(tmp_path, **rate)
    waveform, labels, targets = read.batch(np.array([3, 1]))
    for row, index in enumerate((1, 3)):
        piece = compose(np.random.default_rng([1, index]), duration=1.0)
        plain = dict(sample_rate=24_000, drum_tuning=0, drum_kit=0)
        made = hum(piece, [], **plain, colour=lambda x: x)
        np.testing.assert_allclose(waveform[row], made, atol=1e-4)
        assert {name: values[row] for name, values in labels.items()} == (
            piece.label_indices() | {"beats": beat_index(piece.bpm)}
        )
        expected = synthetic.frame_targets(piece, **rate)
        expected = np.concatenate([expected[name] for name in sorted(expected)], axis=1)
        np.testing.assert_allclose(targets[row], expected, atol=0.5 / 255)
    # The targets are kept: pieces are not composed again.
    monkeypatch.setattr(synthetic, "compose", None)
    again = rendered_set.RenderedSet(tmp_path, **rate)
    np.testing.assert_array_equal(again.targets, read.targets)

"""The encoder learns what the score says, clip by clip in an order of its own."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx
from helpers.small_run import load_config

from musilingo_jax.corpora import synthetic
from musilingo_jax.corpora.facts import BEATS, beat_index
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.pretrained import weights
from musilingo_jax.recipes import encoder, student, tempi
from musilingo_jax.recipes.lessons import RHYTHM, UNKNOWN, Lessons, output_weights
from musilingo_jax.recipes.rendered_set import RenderedSet
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import read_section

pytestmark = pytest.mark.medium


def test_an_epoch_visits_every_clip_once_in_an_order_of_its_own():
    def epoch(number):
        steps = range(number * 5, number * 5 + 5)
        return np.concatenate(
            [encoder.rows_of_step(s, clips=20, batch_size=4, seed=1) for s in steps]
        )

    assert sorted(epoch(0)) == list(range(20)) == sorted(epoch(1))
    assert epoch(0).tolist() != epoch(1).tolist()
    np.testing.assert_array_equal(
        encoder.rows_of_step(7, clips=20, batch_size=4, seed=1),
        encoder.rows_of_step(7, clips=20, batch_size=4, seed=1),
    )


def clicks(bpm):
    """The autocorrelation of a click on each beat, as `tempi.correlations` finds it."""
    lags = np.arange(tempi.LAGS) / tempi.RATE
    from_a_beat = np.abs((lags * bpm / 60 + 0.5) % 1 - 0.5) * 60 / bpm
    return np.exp(-0.5 * (from_a_beat / 0.02) ** 2)


def lessons_of(config):
    """Four excerpts of noise, and what teachers might say of them."""
    rng = np.random.default_rng(1)
    waveform = rng.integers(-9000, 9000, (4, 24_000)).astype(np.int16)
    outputs = rng.normal(size=(4, len(output_weights()))).astype(np.float32)
    frames = int(config.frames(24_000))
    return Lessons(
        waveform=waveform,
        coded=waveform[::2],
        outputs=outputs,
        mean=np.zeros(outputs.shape[1]),
        deviation=np.ones(outputs.shape[1]),
        chroma=np.zeros((4, frames, 12), np.float32),
        noted=np.array([True, False, False, False]),
        onsets=np.stack([clicks(120.0)] + [np.zeros(tempi.LAGS)] * 3),
        bpm=np.array([120.0, np.nan, 60.0, 90.0]),
    )


def test_copies_are_the_same_for_a_seed_and_slower_ones_have_a_slower_tempo():
    class Config:
        @staticmethod
        def frames(samples):
            return samples // 960

    recordings = lessons_of(Config)
    rows = np.array([0] * 40 + [1] * 5)
    batch = recordings.batch(rows, [1, 2])
    again = recordings.batch(rows, [1, 2])
    jax.tree.map(np.testing.assert_array_equal, batch, again)
    copies, outputs, heard, _, noted, rhythm, tempo = batch
    assert copies.shape == (45, 24_000) and np.abs(copies).max() <= 1
    np.testing.assert_array_equal(outputs[0], recordings.outputs[0])
    # Of a slower copy only its tempo is known; of one without a tempo there is none.
    assert 5 < (~heard[:40]).sum() < 30 and heard[40:].all()
    np.testing.assert_array_equal(noted[:40], heard[:40])
    normal = beat_index(120.0)
    assert (tempo["beats"][:40][heard[:40]] == normal).all()
    assert (tempo["beats"][:40][~heard[:40]] <= normal).all()
    # What fits a slower copy best is as much slower, or half or twice that.
    best = RHYTHM[rhythm[:40].argmax(axis=1)]
    known = np.array([float(BEATS[n]) for n in tempo["beats"][:40]])
    octaves = np.abs(np.log2(best / known))
    assert np.abs(octaves - np.round(octaves)).max() < 0.06
    assert not rhythm[40:].any()
    assert (tempo["beats"][40:] == UNKNOWN).all() == (tempo["tempo"][40:] == -1).all()


def test_a_tempo_counts_as_its_neighbours_too():
    goals = np.eye(5, dtype=np.float32)
    widened = np.asarray(student._widened(goals))
    np.testing.assert_allclose(widened.sum(axis=1), 1, rtol=1e-6)
    assert widened.argmax(axis=1).tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(widened[2], [0, 0.2, 0.6, 0.2, 0], atol=1e-6)
    np.testing.assert_allclose(widened[0], [0.8, 0.2, 0, 0, 0], atol=1e-6)
    # What is not known is no class, and stays none.
    assert not np.asarray(student._widened(np.zeros((1, 5), np.float32))).any()


def test_an_encoder_to_begin_with_must_have_the_same_architecture():
    settings = load_config("tiny_from_scratch").get_config("quick").encoder
    config = MertConfig.from_dict(settings.model.to_dict())
    rngs = nnx.Rngs(0)
    found = encoder.first_encoder(config, "musilingo-tiny-1/encoder", rngs)
    assert found.config == config
    # It hears further now, and computes the same as long as that is not learnt.
    narrow = weights.load_encoder(
        "musilingo-tiny-1/encoder", dtype="float32", mesh=None
    )
    assert narrow.config.num_conv_pos_embeddings < config.num_conv_pos_embeddings
    clip = np.random.default_rng(0).normal(0, 0.1, (1, 24_000)).astype(np.float32)
    lengths = np.array([24_000])
    (one, _), (other, _) = (each.embed(clip, lengths) for each in (narrow, found))
    np.testing.assert_allclose(np.asarray(one), np.asarray(other), atol=1e-5)
    other = MertConfig.from_dict(settings.model.to_dict() | {"hidden_size": 96})
    with pytest.raises(UserError, match="start is musilingo-tiny-1/encoder"):
        encoder.first_encoder(other, "musilingo-tiny-1/encoder", rngs)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_to_compile")
def test_a_few_steps_teach_the_encoder_its_clips(tmp_path):
    settings = load_config("tiny_from_scratch").get_config("quick").encoder
    small = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "conv_dim": (8, 8),
        "conv_kernel": (32, 60),
        "conv_stride": (16, 60),
        "num_feat_extract_layers": 2,
        "feature_extractor_cqt": False,
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 4,
    }
    config = MertConfig.from_dict(settings.model.to_dict() | small)
    assert config.frames_per_second == 25
    numbers = settings.recipe.to_dict() | {
        "steps": 48,
        "batch_size": 4,
        "recorded_batch_size": 4,
        "learning_rate": 1e-2,
        "window_frames": 8,
        "checkpoint_every": 24,
    }
    recipe = read_section(encoder.EncoderRecipe, numbers, "config.encoder.recipe")
    seconds = 1.0
    folder = tmp_path / "set"
    folder.mkdir()
    pieces = [
        synthetic.compose(np.random.default_rng([5, i]), duration=seconds)
        for i in range(8)
    ]
    (folder / "set.json").write_text(
        json.dumps({"clips": 8, "seed": 5, "duration": seconds, "augment": False})
    )
    # Noise that is different for each clip: enough to tell eight clips apart.
    waveform = np.random.default_rng(0).integers(-9000, 9000, (8, 24000))
    np.save(folder / "waveform.npy", waveform.astype(np.int16))
    labels = [p.label_indices() | {"beats": beat_index(p.bpm)} for p in pieces]
    np.savez(
        folder / "labels.npz",
        **{n: np.int8([label[n] for label in labels]) for n in labels[0]},
    )
    rendered = RenderedSet(
        folder,
        frames=config.frames(24000),
        frames_per_second=config.frames_per_second,
    )
    recordings = lessons_of(config)

    def train(part, parts=2):
        return encoder.train(
            config,
            dataclasses.replace(recipe, parts=parts),
            training=rendered,
            lessons=recordings,
            held_out={},
            folder=tmp_path / f"saved {parts}",
            part=part,
        )

    half, student = train(1), train(2)
    found = encoder.accuracy(student, rendered, recipe)
    assert found["style"] > 0.9 and found["drums"] > 0.9
    # It says of the recordings what the teachers said, also of a slower copy.
    said = encoder.heard(student, recordings.waveform / 32768.0, recipe.window_frames)
    whose = np.corrcoef(np.asarray(said), recordings.outputs)[:4, 4:]
    assert whose.argmax(axis=1).tolist() == [0, 1, 2, 3]
    # A finished training is not done again: the same weights come back from disk.
    # In one part they are the same, too.
    for again in (train(1), train(2), train(1, parts=1)):
        for one, other in zip(
            jax.tree.leaves(student), jax.tree.leaves(again), strict=True
        ):
            np.testing.assert_array_equal(one, other)
    assert not np.array_equal(
        half.frame_head.kernel[...], student.frame_head.kernel[...]
    )

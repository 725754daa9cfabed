"""The encoder learns what the score says, clip by clip in an order of its own."""

import json

import jax
import numpy as np
import pytest
from helpers.small_run import load_config

from musilingo_jax.corpora import synthetic
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.recipes import encoder
from musilingo_jax.recipes.rendered_set import RenderedSet
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
        json.dumps({"clips": 8, "seed": 5, "duration": seconds})
    )
    # Noise that is different for each clip: enough to tell eight clips apart.
    waveform = np.random.default_rng(0).integers(-9000, 9000, (8, 24000))
    np.save(folder / "waveform.npy", waveform.astype(np.int16))
    labels = [piece.label_indices() for piece in pieces]
    np.savez(
        folder / "labels.npz",
        **{n: np.int8([label[n] for label in labels]) for n in labels[0]},
    )
    rendered = RenderedSet(
        folder,
        frames=config.frames(24000),
        frames_per_second=config.frames_per_second,
    )
    student = encoder.train(
        config, recipe, training=rendered, held_out={}, folder=tmp_path / "saved"
    )
    found = encoder.accuracy(student, rendered, recipe)
    assert found["style"] > 0.9 and found["drums"] > 0.9
    # A finished training is not done again: the same weights come back from disk.
    again = encoder.train(
        config, recipe, training=rendered, held_out={}, folder=tmp_path / "saved"
    )
    for one, other in zip(
        jax.tree.leaves(student), jax.tree.leaves(again), strict=True
    ):
        np.testing.assert_array_equal(one, other)

"""A run whose bridge hears frames between marks, audio before or after questions."""

import json

import numpy as np
import pytest
from helpers.small_run import small_config, stopped_after, trained_folder
from safetensors.numpy import load_file

from musilingo_jax import train as training
from musilingo_jax.answering import corpus_answers
from musilingo_jax.answering.answer import answer
from musilingo_jax.answering.answerer import load_answerer
from musilingo_jax.answering.config import GenerateConfig
from musilingo_jax.answering.usage import Usage
from musilingo_jax.audio.features import FeatureConfig
from musilingo_jax.models.bridges.frames import Frames
from musilingo_jax.pretrained import trained_with, weights
from musilingo_jax.pretrained.model_config import ModelConfig
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.sharding import make_mesh
from musilingo_jax.training.stage_config import StageConfig

pytestmark = pytest.mark.medium

FIRST, LAST = "<AudioHere>\n{}", "{}\n<AudioHere>"
CHANGES = {
    "mesh__data": 1,
    "stages": ("stage2",),
    "features__window_frames": 3,
    "stage2__max_windows": 12,
    "stage2__max_tokens": 128,
    "stage2__max_gradient_norm": 1.0,
    "stage2__prompt__instruction": FIRST,
    "stage2__prompt__other_instruction": LAST,
}


@pytest.fixture(scope="module")
def folder():
    return trained_folder()


def frames_config(folder, name, **changes):
    config = small_config(folder, name, **(CHANGES | changes))
    config.bridge = {"marks": True}
    config.features.cache = str(folder / "frames")
    return config


def answerer_of(config):
    model = ModelConfig.from_config(config)
    run = f"{config.run}/adapter"
    model = ModelConfig(model.encoder, model.language_model, run, "float32", "")
    return load_answerer(model, FeatureConfig.from_config(config), make_mesh(1, 1, 1))


def test_a_run_learns_marks_and_frames_and_answers_with_them(folder):
    config = frames_config(folder, "frames-run")
    training.train(config)
    saved = load_file(folder / "frames-run/adapter/model.safetensors")
    names = {"mm_projector.weight", "mm_projector.bias", "audio_start", "audio_end"}
    assert saved.keys() == names
    described = json.loads((folder / "frames-run/adapter/config.json").read_text())
    assert described["marks"] is True and described["window_frames"] == 3
    answerer = answerer_of(config)
    assert isinstance(answerer.bridge, Frames)
    np.testing.assert_array_equal(answerer.bridge.start[...], saved["audio_start"])
    rng = np.random.default_rng(0)
    songs = [rng.normal(size=(size, 16)).astype(np.float32) for size in (9, 4, 12)]
    prompt = StageConfig.from_config(config, "stage2").prompt
    generate = GenerateConfig.from_config(config)
    asked = [(song, "How fast is it?") for song in songs]
    together = answer(answerer, prompt, asked, generate)
    alone = [answer(answerer, prompt, [one], generate)[0] for one in asked]
    assert together == alone


LAYERS = {"stage2__learns_layers": True}


def test_layers_learn_and_lie_inside_the_adapter(folder):
    config = frames_config(folder, "layers-run", **LAYERS)
    training.train(config)
    adapter = folder / "layers-run/adapter"
    before = load_file(folder / "language_model/model.safetensors")
    after = load_file(adapter / "language_model/model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in after.items():
        same = np.array_equal(tensor, before[name])
        assert same == ("embed_tokens" in name or "lm_head" in name), name
    described = json.loads((adapter / "config.json").read_text())
    recorded = described["trained_with"]["language_model"]
    inside = str(adapter / "language_model")
    assert recorded["digest"] == weights.digest(inside, "language_model")
    # Whoever uses the adapter uses this language model; another one is refused.
    model = corpus_answers.model_of(config, str(adapter))
    assert model.language_model == inside
    usage = Usage.of(folder / "layers-run", None)
    assert usage.model.language_model == inside
    with pytest.raises(UserError, match="trained with"):
        trained_with.check(
            str(adapter), config.model.encoder, config.model.language_model
        )


def test_a_stopped_run_whose_layers_learn_resumes_bit_for_bit(folder):
    training.train(frames_config(folder, "layers-whole", **LAYERS))
    config = frames_config(folder, "layers-stopped", **LAYERS)
    with pytest.raises(SystemExit):
        stopped_after(config, stage="stage2", step=3)
    training.train(frames_config(folder, "layers-stopped", **LAYERS))
    for name in ("adapter", "adapter/language_model"):
        one, other = (
            load_file(folder / run / name / "model.safetensors")
            for run in ("layers-whole", "layers-stopped")
        )
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)


@pytest.mark.slow
def test_eight_devices_tune_what_one_does(folder):
    changes = {"mesh__data": 2, "mesh__fsdp": 2, "mesh__tensor": 2}
    training.train(frames_config(folder, "layers-one", **LAYERS))
    training.train(frames_config(folder, "layers-eight", **(LAYERS | changes)))
    one, other = (
        load_file(folder / run / "adapter/language_model/model.safetensors")
        for run in ("layers-one", "layers-eight")
    )
    for key in one:
        np.testing.assert_allclose(one[key], other[key], atol=2e-4, err_msg=key)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"stage2__tuning__rank": 2}, "trains the layers and, in its section tuning"),
        ({"model__quantization": "int8"}, "weights of int8 cannot learn"),
    ],
)
def test_what_cannot_be_tuned_is_told(folder, changes, message):
    with pytest.raises(UserError, match=message):
        training.train(frames_config(folder, "not-tuned", **(LAYERS | changes)))
    assert not (folder / "not-tuned").exists()


def test_the_other_instruction_is_drawn_in_training_and_only_there(folder):
    config = frames_config(folder, "unused")
    stage = StageConfig.from_config(config, "stage2")
    assert stage.prompt.instruction == FIRST
    assert stage.prompt.other.instruction == LAST
    assert stage.prompt.other.other is None


def test_a_stage_for_two_orders_of_a_bridge_that_adds_is_refused(folder):
    config = frames_config(
        folder, "frames-refused", stage2__prompt__other_instruction="{}"
    )
    with pytest.raises(UserError, match=r"other_instruction is '\{\}'"):
        training.train(config)
    assert not (folder / "frames-refused").exists()


def test_marks_and_layers_in_one_section_are_refused(folder):
    config = frames_config(folder, "both")
    config.bridge = {"marks": True, "blocks": 1}
    with pytest.raises(UserError, match=r"config\.bridge.*blocks"):
        training.train(config)

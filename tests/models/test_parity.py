"""The same numbers as the public library's torch models, from the same files.

Random weights, float32, every hidden state: the largest difference is below 1e-4 of the
largest torch value. The configurations are the released ones, with small widths.

The library's version 5 returns HuBERT's last hidden state from before the final norm;
4, with which MERT and MusiLingo were made, from after it, and so do we. The bridge is
the torch model's own `encoder.layer_norm`, applied to the last state that it returns.
"""

import json
import os
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
import soxr
import torch
import transformers
from helpers.hidden_states import hidden_states
from helpers.released_configs import (
    CODE_LLAMA_7B,
    LLAMA_1_7B,
    LLAMA_2_7B,
    LLAMA_2_70B,
    LLAMA_3_1_8B,
    LLAMA_3_2_1B,
    LLAMA_3_8B,
    MERT_95M,
    MERT_330M,
    VICUNA_7B_V0,
    VICUNA_7B_V1_5_16K,
)
from safetensors.torch import save_file
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from musilingo_jax.models import attention_blocks
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.lora import LayerTuning
from musilingo_jax.models.mert import NAMES
from musilingo_jax.models.pooling import pool
from musilingo_jax.pretrained import weights

pytestmark = pytest.mark.medium

TOLERANCE = 1e-4
ASSETS = Path(weights.__file__).parents[1] / "assets"
CLIP = ASSETS / "musilingo-tiny-corpus" / "clips" / "00002.ogg"

SMALL_MERT = {
    "conv_dim": [16] * 7,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
SMALL_330M, SMALL_95M = MERT_330M | SMALL_MERT, MERT_95M | SMALL_MERT
# The norms of the convolutions do not follow `layer_norm_eps`.
LAYER_NORMS = {"feat_extract_norm": "layer", "layer_norm_eps": 1e-3}
MERTS = {
    "330M": SMALL_330M,
    "95M": SMALL_95M,
    "pre-norm, layer norms": SMALL_330M | LAYER_NORMS,
    "post-norm, layer norms": SMALL_95M | LAYER_NORMS | {"conv_bias": True},
    "no projection norm": SMALL_330M
    | {"feat_proj_layer_norm": False, "conv_bias": True, "num_conv_pos_embeddings": 7},
}

SMALL_LLAMA = {
    "vocab_size": 96,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
UNGROUPED, GROUPED = {"num_key_value_heads": 4}, {"num_key_value_heads": 2}
LLAMAS = {
    "LLaMA-1": (LLAMA_1_7B, {}),
    "Vicuna v0": (VICUNA_7B_V0, {"vocab_size": 97}),
    "Vicuna v1.5 16k": (VICUNA_7B_V1_5_16K, UNGROUPED),
    "LLaMA-2": (LLAMA_2_7B, UNGROUPED),
    "LLaMA-2 70B": (LLAMA_2_70B, GROUPED),
    "base 1e6": (CODE_LLAMA_7B, UNGROUPED),
    "Llama 3": (LLAMA_3_8B, GROUPED),
    "Llama 3.1": (LLAMA_3_1_8B, GROUPED),
    # Heads that are not hidden_size / num_attention_heads wide.
    "Llama 3.2": (LLAMA_3_2_1B, GROUPED | {"head_dim": 16}),
}


def small_llama(name):
    released, smaller = LLAMAS[name]
    return released | SMALL_LLAMA | smaller


def assert_close(ours, theirs):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert ours.dtype == np.float32
    assert np.abs(ours - theirs).max() < TOLERANCE * np.abs(theirs).max()


def save(folder, config_json, tensors):
    """A model folder as they are released."""
    (folder / "config.json").write_text(json.dumps(config_json))
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def hubert(config_json, *, noise, folder, old_spelling):
    """A random torch model, in evaluation mode, saved."""
    said = {name: value for name, value in config_json.items() if name != "model_type"}
    torch.manual_seed(0)
    model = transformers.HubertModel(transformers.HubertConfig(**said)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Or a missing bias, or a norm's missing scale, would not show.
            parameter.add_(noise * torch.randn_like(parameter))
    tensors = model.state_dict()
    if old_spelling:
        # The names of files from before PyTorch 2.1, as those released are.
        names = NAMES["positional.kernel"].spellings
        for new, old in zip(*names, strict=True):
            tensors[old] = tensors.pop(new)
    save(folder, config_json, tensors)
    return model


@torch.no_grad()
def hubert_states(model, waveform):
    """[depth + 1] hidden states, the last one after the final norm."""
    waveform = torch.as_tensor(waveform).to(model.dtype)
    output = model(waveform, output_hidden_states=True)
    states = list(output.hidden_states)
    if model.config.do_stable_layer_norm:
        states[-1] = model.encoder.layer_norm(states[-1])
        assert torch.equal(states[-1], output.last_hidden_state)
    return [state.float().numpy() for state in states]


@jax.jit
def mert_states(mert, waveform):
    lengths = jnp.full(len(waveform), waveform.shape[1])
    return hidden_states(mert, waveform, lengths)


@partial(jax.jit, static_argnames="window")
def pooled(mert, waveform, lengths, window):
    """Each clip's windows: means over all states and over the frames of a window."""

    def reduce(x, valid):
        return pool(x, valid, window)[0]

    return mert(waveform, lengths, reduce=reduce, remat=False)


def music(samples):
    """The first samples at 24 kHz of a song; MUSILINGO_TEST_SONG may name another."""
    path = Path(os.environ.get("MUSILINGO_TEST_SONG", CLIP))
    channels, rate = soundfile.read(path, dtype="float32", always_2d=True)
    waveform = soxr.resample(channels.mean(axis=1), rate, 24_000)[:samples]
    assert len(waveform) == samples, f"{path}: too short"
    return waveform


@pytest.mark.quick("330M", "95M")
@pytest.mark.parametrize("name", MERTS)
def test_every_hidden_state_of_a_mert(tmp_path, name):
    old = MERTS[name]["feat_extract_norm"] == "group"
    model = hubert(MERTS[name], noise=0.1, folder=tmp_path, old_spelling=old)
    waveform = np.stack([music(9_000), music(10_000)[1_000:]])
    expected = hubert_states(model, waveform)
    assert len(expected) == 3
    mert = weights.load_encoder(tmp_path, dtype=np.float32, mesh=None)
    for ours, theirs in zip(mert_states(mert, waveform), expected, strict=True):
        assert_close(ours, theirs)


def check_padded_batch(mert, model, *, window):
    """Three clips together, against each alone through the torch model.

    Of 0.7, 1.6 and 2.3 windows; a frame is 320 samples.
    """
    lengths = np.array([224, 512, 736]) * window
    # What follows a clip is loud, not zero, and has no effect.
    batch = np.stack([music(lengths[-1])[::-1]] * 3)
    for row, length in enumerate(lengths):
        batch[row, :length] = music(length)
    together = pooled(mert, batch, lengths, window)
    for row, (length, windows) in enumerate(zip(lengths, (1, 2, 3), strict=True)):
        states = np.stack(hubert_states(model, music(length)[None]))[:, 0]
        frames = states.mean(axis=0)
        parts = [
            frames[start : start + window] for start in range(0, 3 * window, window)
        ]
        expected = np.stack([part.mean(axis=0) for part in parts if len(part)])
        assert len(expected) == windows
        assert_close(together[row, :windows], expected)
        np.testing.assert_array_equal(together[row, windows:], 0)


def test_a_padded_batch_gives_each_clip_its_own_features(tmp_path):
    config = MERTS["330M"]
    model = hubert(config, noise=0.1, folder=tmp_path, old_spelling=True)
    mert = weights.load_encoder(tmp_path, dtype=np.float32, mesh=None)
    check_padded_batch(mert, model, window=25)


@pytest.mark.slow
@pytest.mark.parametrize("config", [MERT_330M, MERT_95M], ids=["330M", "95M"])
def test_ten_seconds_of_music_through_a_whole_mert(tmp_path, config):
    model = hubert(config, noise=0.01, folder=tmp_path, old_spelling=True)
    mert = weights.load_encoder(tmp_path, dtype=np.float32, mesh=None)
    (tmp_path / "model.safetensors").unlink()
    waveform = music(240_000)[None]
    expected = hubert_states(model, waveform)
    states = mert_states(mert, waveform)
    assert states.shape == (
        config["num_hidden_layers"] + 1,
        1,
        749,
        mert.config.hidden_size,
    )
    for ours, theirs in zip(states, expected, strict=True):
        assert_close(ours, theirs)
    check_padded_batch(mert, model, window=325)


def llama_model(config_json, folder):
    """A random torch model, in evaluation mode, saved."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**config_json)
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # The initial weights are so small that a wrong angle would not show.
            scale = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 1.0
            parameter.copy_(scale * torch.randn_like(parameter))
        # As small as trained ones, so that the norm's epsilon shows.
        model.model.embed_tokens.weight.mul_(0.1)
    tensors = model.state_dict()
    if config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    save(folder, config_json, tensors)
    return model


TOKENS = np.random.default_rng(0).integers(0, 96, (2, 40))
# As far apart as the slowest angles need to show.
POSITIONS = np.broadcast_to(50 * np.arange(40), (2, 40))


@torch.no_grad()
def llama_torch_states(model):
    """[depth + 1] hidden states, the last one after the final norm, and the logits."""
    tokens, positions = torch.tensor(TOKENS), torch.tensor(POSITIONS)
    output = model(
        tokens,
        attention_mask=torch.ones_like(tokens),
        position_ids=positions,
        output_hidden_states=True,
    )
    return [x.float().numpy() for x in (*output.hidden_states, output.logits)]


@jax.jit
def llama_states(llama):
    """The same of ours, with a loop over the layers, and again the last two without."""
    where = {
        "positions": jnp.asarray(POSITIONS),
        "segments": jnp.ones((2, 40), jnp.int32),
    }
    rotations = llama.config.rotations()
    x = embeddings = llama.embed(jnp.asarray(TOKENS))
    states = [x]
    for index in range(llama.config.depth):
        layer = jax.tree.map(lambda stack, i=index: stack[i], llama.layers)
        x = layer(
            x,
            rotation=rotations[index],
            window=0,
            blocks=attention_blocks.DEFAULT,
            added=None,
            tuning=LayerTuning(),
            **where,
        )
        states.append(x)
    states[-1] = llama.norm(x)
    hidden = llama(embeddings, remat="everything", **where)
    return [*states, llama.logits(states[-1])], [hidden, llama.logits(hidden)]


@pytest.mark.quick("LLaMA-1", "Llama 3.1", "LLaMA-2 70B")
@pytest.mark.parametrize("name", LLAMAS)
def test_every_hidden_state_and_the_logits_of_a_llama(tmp_path, name):
    model = llama_model(small_llama(name), tmp_path)
    expected = llama_torch_states(model)
    assert len(expected) == 4
    llama = weights.load_language_model(
        tmp_path, dtype=np.float32, quantization="", mesh=None
    )
    looped, scanned = llama_states(llama)
    for ours, theirs in zip(looped, expected, strict=True):
        assert_close(ours, theirs)
    for ours, theirs in zip(scanned, expected[-2:], strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("name", LLAMAS)
def test_rotary_frequencies_of_the_released_widths(name):
    released, _ = LLAMAS[name]
    theirs = LlamaRotaryEmbedding(transformers.LlamaConfig(**released))
    ours = LlamaConfig.from_dict(released).rope_frequencies()
    np.testing.assert_array_max_ulp(ours, theirs.inv_freq.numpy(), maxulp=1)
    assert np.mean(ours == theirs.inv_freq.numpy()) > 0.95


def error(states, expected):
    """Root of the mean squared difference, for each state."""
    assert {x.dtype for x in states} == {np.dtype(np.float32)}
    pairs = zip(states, expected, strict=True)
    return [np.sqrt(np.mean((np.asarray(x) - y) ** 2)) for x, y in pairs]


@pytest.mark.quick("95M")
@pytest.mark.parametrize("name", ["330M", "95M"])
def test_bfloat16_costs_a_mert_no_more_than_it_costs_torch(tmp_path, name):
    model = hubert(MERTS[name], noise=0.1, folder=tmp_path, old_spelling=False)
    waveform = music(9_000)[None]
    exact = hubert_states(model, waveform)
    rounded = hubert_states(model.to(torch.bfloat16), waveform)
    mert = weights.load_encoder(tmp_path, dtype=jnp.bfloat16, mesh=None)
    ours = error(mert_states(mert, waveform), exact)
    for our_error, their_error in zip(ours, error(rounded, exact), strict=True):
        assert 0 < our_error <= their_error


@pytest.mark.parametrize("name", ["Vicuna v0", "Llama 3.2"])
def test_bfloat16_costs_a_llama_no_more_than_it_costs_torch(tmp_path, name):
    exact = llama_torch_states(llama_model(small_llama(name), tmp_path))
    # Rounds the weights, but not the rotary frequencies.
    rounded = transformers.LlamaForCausalLM.from_pretrained(
        tmp_path, dtype=torch.bfloat16
    ).eval()
    llama = weights.load_language_model(
        tmp_path, dtype=jnp.bfloat16, quantization="", mesh=None
    )
    ours = error(llama_states(llama)[0], exact)
    theirs = error(llama_torch_states(rounded), exact)
    for our_error, their_error in zip(ours, theirs, strict=True):
        assert 0 < our_error <= their_error

"""Decoders of every family against the public library's torch models, random and small.

The windows are shorter than the texts, so that a layer without its window would show.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from helpers.quick_jit import quick_jit
from safetensors.torch import save_file

from musilingo_jax.models import attention_blocks, decoder_families
from musilingo_jax.models.decoder_families import FAMILIES
from musilingo_jax.models.llama import unstacked
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.lora import LayerTuning
from musilingo_jax.pretrained import weights
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.sharding import batch_sharding, make_mesh

pytestmark = pytest.mark.medium

COMMON = {
    "vocab_size": 96,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "hidden_act": "silu",
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SLIDING = {"use_sliding_window": True, "sliding_window": 7}
CONFIGS = {
    "llama with biases": {
        "model_type": "llama",
        "attention_bias": True,
        "mlp_bias": True,
    },
    "mistral": {"model_type": "mistral", "sliding_window": 9, "head_dim": 16},
    "mistral without a window": {"model_type": "mistral", "sliding_window": None},
    "qwen2": {"model_type": "qwen2", "use_sliding_window": False},
    "qwen2 with windows": {"model_type": "qwen2", "max_window_layers": 2} | SLIDING,
    "qwen3": {"model_type": "qwen3", "head_dim": 16, "attention_bias": False},
    "qwen3, tied, with windows": {
        "model_type": "qwen3",
        "head_dim": 16,
        "attention_bias": True,
        "max_window_layers": 1,
        "tie_word_embeddings": True,
    }
    | SLIDING,
    "smollm3": {
        "model_type": "smollm3",
        "no_rope_layer_interval": 4,
        "use_sliding_window": False,
        "tie_word_embeddings": True,
    },
    "smollm3 with windows": {"model_type": "smollm3", "no_rope_layers": [1, 0, 1, 0]}
    | SLIDING,
}
TOKENS = np.random.default_rng(0).integers(0, 96, (8, 24))
MORE = 12


def config_json(name):
    return COMMON | CONFIGS[name]


@pytest.fixture(scope="module", params=CONFIGS)
def both(request, tmp_path_factory):
    """The torch model, and ours from its files."""
    torch.manual_seed(0)
    said = config_json(request.param)
    config = transformers.AutoConfig.for_model(**said)
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            scale = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.5
            parameter.copy_(scale * torch.randn_like(parameter) + (parameter.ndim < 2))
    folder = tmp_path_factory.mktemp("model")
    tensors = model.state_dict()
    if config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(said))
    return model, folder


def load(folder, *, quantization="", mesh=None):
    return weights.load_language_model(
        folder, dtype=np.float32, quantization=quantization, mesh=mesh
    )


@quick_jit
def read(llama, tokens, positions, segments):
    hidden = llama(
        llama.embed(tokens), positions=positions, segments=segments, remat="nothing"
    )
    return llama.logits(hidden)


def whole(llama, tokens):
    """Logits of rows that are one text each."""
    places = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    return read(llama, jnp.asarray(tokens), places, np.ones(tokens.shape, np.int32))


def torch_logits(model, tokens):
    with torch.no_grad():
        return model(torch.tensor(tokens)).logits.numpy()


def assert_close(ours, theirs, tolerance=1e-4):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert np.abs(ours - theirs).max() < tolerance * np.abs(theirs).max()


def test_logits_are_those_of_torch(both):
    model, folder = both
    assert_close(whole(load(folder), TOKENS), torch_logits(model, TOKENS))


def test_every_hidden_state_is_that_of_torch(both):
    model, folder = both
    with torch.no_grad():
        output = model(torch.tensor(TOKENS), output_hidden_states=True)
    expected = [state.numpy() for state in output.hidden_states]

    @quick_jit
    def states(llama):
        windows = llama.config.windows or (0,) * llama.config.depth
        places = jnp.broadcast_to(jnp.arange(24), TOKENS.shape)
        x = llama.embed(jnp.asarray(TOKENS))
        found = [x]
        for index, window in enumerate(windows):
            layer = jax.tree.map(lambda stack, i=index: stack[i], llama.layers)
            x = layer(
                x,
                positions=places,
                segments=jnp.ones(TOKENS.shape, jnp.int32),
                rotation=llama.config.rotations()[index],
                window=window,
                blocks=attention_blocks.DEFAULT,
                added=None,
                tuning=LayerTuning(),
            )
            found.append(x)
        return [*found[:-1], llama.norm(x)]

    for ours, theirs in zip(states(load(folder)), expected, strict=True):
        assert_close(ours, theirs)


@pytest.mark.quick("mistral", "qwen3", "smollm3 with windows", "llama with biases")
def test_the_text_after_a_prompt_is_that_of_torch(both):
    """Greedy, through a cache: prompts of three lengths, then token after token."""
    model, folder = both
    llama = unstacked(load(folder))
    lengths = np.array([24, 11, 3], np.int32)
    cache = llama.empty_cache(batch=3, slots=24 + MORE)

    @quick_jit
    def step(llama, cache, tokens, lengths):
        hidden, cache = llama(llama.embed(tokens), cache, lengths=lengths)
        return llama.logits(hidden), cache

    logits, cache = step(llama, cache, TOKENS[:3], lengths)
    chosen = np.asarray(logits)[np.arange(3), lengths - 1].argmax(-1)
    said = [chosen]
    for _ in range(MORE - 1):
        logits, cache = step(llama, cache, chosen[:, None], np.ones(3, np.int32))
        chosen = np.asarray(logits)[:, 0].argmax(-1)
        said.append(chosen)
    for row, length in enumerate(lengths):
        text = TOKENS[row, :length]
        for _ in range(MORE):
            after = torch_logits(model, text[None])[0, -1].argmax()
            text = np.append(text, after)
        assert text[length:].tolist() == [int(one[row]) for one in said]


@pytest.mark.quick("qwen3, tied, with windows", "llama with biases")
def test_packed_texts_are_read_as_if_alone(both):
    llama = load(both[1])
    packed = np.concatenate([TOKENS[0, :13], TOKENS[1, :11]])[None]
    places = np.concatenate([np.arange(13), np.arange(11)])[None]
    segments = np.array([[1] * 13 + [2] * 11], np.int32)
    found = read(llama, jnp.asarray(packed), places, segments)[0]
    assert_close(found[:13], whole(llama, TOKENS[:1, :13])[0])
    assert_close(found[13:], whole(llama, TOKENS[1:2, :11])[0])


@pytest.mark.parametrize(
    "quantization", ["", pytest.param("int8", marks=pytest.mark.slow)]
)
def test_eight_devices_are_one(both, quantization):
    expected = whole(load(both[1], quantization=quantization), TOKENS)
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    llama = load(both[1], quantization=quantization, mesh=mesh)
    tokens = jax.device_put(TOKENS, batch_sharding(mesh))
    places = np.broadcast_to(np.arange(24), TOKENS.shape)
    segments = np.ones(TOKENS.shape, np.int32)
    found = read(llama, tokens, places, segments)
    assert_close(found, expected, 2e-4 if not quantization else 2e-2)


def test_int8_is_near(both):
    expected = torch_logits(both[0], TOKENS)
    found = np.asarray(whole(load(both[1], quantization="int8"), TOKENS))
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.05 * expected.std()


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_written_is_read_by_both(name):
    config = LlamaConfig.from_dict(config_json(name))
    written = json.loads(json.dumps(config.to_dict()))
    assert LlamaConfig.from_dict(written) == config
    theirs = transformers.AutoConfig.for_model(**written)
    for whole_file in (True, False):
        again = json.loads(theirs.to_json_string(use_diff=not whole_file))
        assert LlamaConfig.from_dict(again | config_json(name)) == config
    assert theirs.architectures == [FAMILIES[config.family].architecture]


def test_a_smollm3_that_does_not_say_so_is_tied():
    """Version 4 of the public library writes only what is unusual for its models."""
    said = config_json("smollm3")
    del said["tie_word_embeddings"]
    assert transformers.SmolLM3Config(**said).tie_word_embeddings
    assert LlamaConfig.from_dict(said).tied and decoder_families.tied(said)
    assert not LlamaConfig.from_dict(said | {"tie_word_embeddings": False}).tied
    for name in ("mistral", "qwen2", "qwen3"):
        said = config_json(name)
        del said["tie_word_embeddings"]
        assert not LlamaConfig.from_dict(said).tied


def test_windows_may_begin_with_the_first_layer():
    said = config_json("qwen2") | SLIDING | {"max_window_layers": 0}
    assert set(transformers.Qwen2Config(**said).layer_types) == {"sliding_attention"}
    assert LlamaConfig.from_dict(said).windows == (7,) * 4


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("qwen2", {"use_sliding_window": True}, "sliding_window is not given"),
        ("qwen2", SLIDING, "max_window_layers is None"),
        ("qwen2", SLIDING | {"max_window_layers": -1}, "max_window_layers is -1"),
        ("qwen2", SLIDING | {"sliding_window": -3}, "sliding_window is -3"),
        ("qwen2", {"use_sliding_window": "no"}, "use_sliding_window is 'no'"),
        ("qwen2", {"layer_types": ["sliding_attention"] * 4}, "contradict"),
        ("qwen2", {"layer_types": ["full_attention"]}, "a list of 4 types"),
        ("qwen2", {"layer_types": ["linear"] * 4}, "a list of 4 types"),
        ("qwen2", {"use_mrope": True}, "use_mrope is True"),
        ("mistral", {"layer_types": ["full_attention"] * 4}, "layer_types is"),
        ("mistral", {"sliding_window": 2.5}, "sliding_window is 2.5"),
        ("smollm3", {"no_rope_layers": [1, 0]}, "a list of 4 numbers"),
        ("smollm3", {"no_rope_layer_interval": 0}, "no_rope_layer_interval is 0"),
        ("qwen3", {"num_experts": 128}, "unknown attribute 'num_experts'"),
    ],
)
def test_a_config_that_means_something_else_is_refused(name, change, complaint):
    with pytest.raises(UserError, match=complaint) as refusal:
        LlamaConfig.from_dict(config_json(name) | change)
    assert "config.json" in str(refusal.value)

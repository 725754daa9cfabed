"""LLaMA against itself, and against odd files."""

import dataclasses
import json
import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from flax import nnx
from helpers.released_configs import (
    CODE_LLAMA_7B,
    LLAMA_1_7B,
    LLAMA_2_13B,
    LLAMA_3_1_8B,
    LLAMA_3_2_1B_COPY,
    LLAMA_3_2_3B,
    LLAMA_3_70B,
    VICUNA_7B_V0,
    VICUNA_7B_V1_5_16K,
)

from musilingo_jax.models.llama import (
    IGNORED,
    NAMES,
    KVCache,
    Llama,
    LlamaConfig,
    LlamaLayer,
)
from musilingo_jax.runtime.errors import UserError

LLAMA_1 = {
    "model_type": "llama",
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 72,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "max_position_embeddings": 64,
}
LLAMA_3 = LLAMA_1 | {
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "rope_theta": 500_000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
}
SHAPES = {"llama-1": LLAMA_1, "llama-3": LLAMA_3}
RELEASED = [
    LLAMA_1_7B,
    VICUNA_7B_V0,
    VICUNA_7B_V1_5_16K,
    LLAMA_2_13B,
    CODE_LLAMA_7B,
    LLAMA_3_70B,
    LLAMA_3_1_8B,
    LLAMA_3_2_1B_COPY,
    LLAMA_3_2_3B,
]


@cache
def make(shape):
    """A random model, norms included, so that a missing one would show."""
    config = LlamaConfig.from_dict(SHAPES[shape])
    abstract = jax.eval_shape(lambda: Llama(config, rngs=nnx.Rngs(0)))
    leaves, structure = jax.tree.flatten(abstract)
    generator = np.random.default_rng(0)
    arrays = []
    for leaf in leaves:
        scale = leaf.shape[-1] ** -0.5
        arrays.append(jnp.asarray(scale * generator.normal(size=leaf.shape), "float32"))
    return structure.unflatten(arrays)


def parameters_of(llama):
    """Pairs of a dotted path and its Param."""
    leaves = jax.tree_util.tree_leaves_with_path(
        llama, is_leaf=lambda node: isinstance(node, nnx.Param)
    )
    return [
        (jax.tree_util.keystr(path, simple=True, separator="."), parameter)
        for path, parameter in leaves
    ]


def causal(batch, time):
    return jnp.broadcast_to(jnp.tril(jnp.ones((time, time), bool)), (batch, time, time))


def steps(batch, time):
    return jnp.broadcast_to(jnp.arange(time), (batch, time))


@jax.jit
def read_all(llama, tokens):
    batch, time = tokens.shape
    hidden, _ = llama(
        llama.embed(tokens),
        positions=steps(batch, time),
        attend=causal(batch, time),
        cache=None,
        remat=False,
    )
    return hidden, llama.logits(hidden)


def assert_close(ours, theirs):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


def test_scan_over_the_stack_is_a_loop_over_layers():
    llama = make("llama-3")
    x = jax.random.normal(jax.random.key(1), (2, 9, 32))
    where = {"positions": steps(2, 9), "attend": causal(2, 9)}
    scanned, _ = jax.jit(partial(Llama.__call__, cache=None, remat=True, **where))(
        llama, x
    )
    for index in range(llama.config.depth):
        layer = jax.tree.map(lambda stack, i=index: stack[i], llama.layers)
        x, _ = jax.jit(partial(LlamaLayer.__call__, index=index, **where))(
            layer, x, None
        )
    np.testing.assert_allclose(scanned, llama.norm(x), atol=2e-5)


def test_recomputation_leaves_the_gradient_alone():
    llama = make("llama-3")
    x = jax.random.normal(jax.random.key(2), (1, 6, 32))

    @partial(jax.jit, static_argnames="remat")
    @jax.grad
    def slope(x, remat):
        hidden, _ = llama(
            x, positions=steps(1, 6), attend=causal(1, 6), cache=None, remat=remat
        )
        return jnp.sum(jnp.sin(hidden))

    plain, again = slope(x, remat=False), slope(x, remat=True)
    assert float(jnp.abs(plain).max()) > 0
    np.testing.assert_allclose(plain, again, atol=1e-5)


@pytest.mark.parametrize("shape", ["llama-1", "llama-3"])
def test_decoding_with_a_cache_is_reading_all_at_once(shape):
    """Prompts of 7, 3 and 5 tokens, padded on the right, then 6 more, one at a time."""
    llama = make(shape)
    lengths, prompt, more = np.array([7, 3, 5]), 7, 6
    tokens = np.random.default_rng(3).integers(0, 61, (3, prompt + more))

    @jax.jit
    def step(cache, tokens, lengths):
        time = tokens.shape[1]
        hidden, filled = llama(
            llama.embed(tokens),
            positions=cache.positions(time),
            attend=cache.attend(time),
            cache=cache,
            remat=False,
        )
        ends = cache.ends + lengths
        return llama.logits(hidden), dataclasses.replace(filled, ends=ends)

    cache = KVCache.create(llama, batch=3, slots=prompt + more)
    read, cache = step(cache, tokens[:, :prompt], lengths)
    said = []
    for index in range(more):
        following = tokens[np.arange(3), lengths + index]
        logits, cache = step(cache, following[:, None], np.ones(3, np.int32))
        said.append(logits)
    assert cache.ends.tolist() == (lengths + more).tolist()
    said = np.concatenate(said, axis=1)
    # What comes after a token does not matter to it.
    _, expected = read_all(llama, jnp.asarray(tokens))
    for row, length in enumerate(lengths):
        assert_close(read[row, :length], expected[row, :length])
        assert_close(said[row], expected[row, length : length + more])


def test_rows_of_a_cache_are_taken_and_put():
    llama = make("llama-3")
    cache = KVCache.create(llama, batch=4, slots=5)
    fill = jnp.arange(1.0, 5.0)
    cache = jax.tree.map(
        lambda x: x + fill.reshape(4, *[1] * (x.ndim - 1)).astype(x.dtype), cache
    )
    two = cache.take(jnp.array([3, 0]))
    assert two.ends.tolist() == [4, 1]
    assert np.unique(two.value[1][0]).tolist() == [4.0]
    wide = two.widen(2)
    assert wide.slots == 7 and not np.any(wide.key[2][:, :, 5:])
    back = KVCache.create(llama, batch=4, slots=7).put(jnp.array([1, 4]), two)
    assert back.ends.tolist() == [0, 4, 0, 0]
    assert np.unique(back.key[0][1, :, :5]).tolist() == [4.0]
    assert not np.any(back.key[0][jnp.array([0, 2, 3])])
    assert not np.any(back.key[0][1, :, 5:])


def test_an_unstacked_model_is_the_same_model():
    llama = make("llama-3")
    tokens = jnp.asarray(np.random.default_rng(5).integers(0, 61, (2, 9)))
    _, expected = read_all(llama, tokens)
    copied = jax.tree.map(jnp.copy, llama)
    _, logits = read_all(copied.unstack(), tokens)
    assert_close(logits, expected)
    assert copied.layers.query.kernel[...].is_deleted()


@pytest.mark.parametrize("rows", [1, 3])
def test_bfloat16_weights_keep_a_float32_stream(rows):
    llama = make("llama-1")
    tokens = jnp.asarray(np.random.default_rng(4).integers(0, 61, (rows, 1)))
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), llama)
    exact = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), rounded)
    hidden, logits = read_all(rounded, tokens)
    assert hidden.dtype == logits.dtype == jnp.float32
    expected = read_all(exact, tokens)[1]
    assert float(jnp.abs(logits - expected).max()) < 0.03 * jnp.abs(expected).max()


def test_a_token_beyond_the_vocabulary_is_not_a_word():
    llama = make("llama-3")
    assert bool(jnp.isnan(llama.embed(jnp.array([[61]]))).all())


def test_every_parameter_names_its_axes():
    config = LlamaConfig.from_dict(LLAMA_1)
    llama = jax.eval_shape(lambda: Llama(config, rngs=nnx.Rngs(0)))
    axes = {}
    for name, parameter in parameters_of(llama):
        axes[name] = parameter.get_metadata()["axes"]
        stacked = name.startswith("layers.")
        assert len(axes[name]) == len(parameter.shape) - stacked
    assert axes.keys() == NAMES.keys()
    assert axes["embedding"] == ("vocab", "embed")
    assert axes["layers.query.kernel"] == ("embed", "heads")
    assert axes["layers.out.kernel"] == ("heads", "embed")
    assert axes["layers.down.kernel"] == ("mlp", "embed")
    assert axes["head.kernel"] == ("embed", "vocab")


def test_the_only_tensors_without_use_are_rotary_buffers():
    old = "model.layers.31.self_attn.rotary_emb.inv_freq"
    assert any(re.fullmatch(pattern, old) for pattern in IGNORED)
    weight = "model.layers.31.self_attn.q_proj.weight"
    assert not any(re.fullmatch(pattern, weight) for pattern in IGNORED)


def test_a_vicuna_of_2023_says_less_and_means_the_same():
    config = LlamaConfig.from_dict(VICUNA_7B_V0)
    assert (config.vocab, config.head_dim, config.key_heads) == (32001, 128, 32)
    assert (config.rope_theta, config.rope_scaling) == (10_000.0, None)
    assert not config.tied


@pytest.mark.parametrize("released", RELEASED)
@pytest.mark.parametrize("whole", [True, False])
def test_the_public_library_rewrites_a_config_and_we_read_the_same(released, whole):
    written = transformers.LlamaConfig(**released).to_json_string(use_diff=not whole)
    rewritten = json.loads(written)
    assert "rope_parameters" in rewritten
    assert LlamaConfig.from_dict(rewritten) == LlamaConfig.from_dict(released)


@pytest.mark.parametrize("released", RELEASED)
def test_what_we_write_is_read_by_us_and_by_the_public_library(released):
    config = LlamaConfig.from_dict(released)
    written = json.loads(json.dumps(config.to_dict()))
    assert LlamaConfig.from_dict(written) == config
    theirs = transformers.LlamaConfig(**written)
    assert LlamaConfig.from_dict(theirs.to_dict()) == config


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"n_experts": 8}, "n_experts"),
        ({"model_type": "mistral"}, "model_type = 'mistral'"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
        ({"rope_scaling": {"type": "linear"}}, "factor is missing"),
        ({"rope_scaling": {"type": "linear", "factor": 2, "beta": 1}}, "beta"),
        ({"rope_theta": 1e6, "rope_parameters": {"rope_theta": 1e4}}, "contradict"),
        ({"rope_parameters": 7}, "rope_parameters = 7"),
        ({"hidden_size": "32"}, "hidden_size = '32'"),
        ({"rms_norm_eps": None}, "rms_norm_eps = None"),
        ({"num_key_value_heads": 3}, "not a multiple of num_key_value_heads = 3"),
        ({"head_dim": 7}, "head_dim = 7 is odd"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings = 'yes'"),
    ],
)
def test_a_config_that_would_compute_something_else_is_refused(change, complaint):
    with pytest.raises(UserError, match=re.escape(complaint)) as refusal:
        LlamaConfig.from_dict(LLAMA_1 | change)
    assert "config.json" in str(refusal.value)


def test_a_missing_attribute_is_named():
    odd = {k: v for k, v in LLAMA_1.items() if k != "vocab_size"}
    with pytest.raises(UserError, match="vocab_size is missing"):
        LlamaConfig.from_dict(odd)

"""LLaMA against itself: scanned, in a loop, recomputed, decoded with a cache."""

import dataclasses
import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.quick_jit import quick_jit
from helpers.random_weights import random_module

from musilingo_jax.models import attention_blocks
from musilingo_jax.models.decoder_families import ATTENTION, MLP
from musilingo_jax.models.kv_cache import KVCache
from musilingo_jax.models.llama import (
    IGNORED,
    NAMES,
    Llama,
    LlamaLayer,
    UnstackedLlama,
    unstacked,
)
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.lora import LayerTuning

pytestmark = pytest.mark.medium

LLAMA_1 = {
    "model_type": "llama",
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 72,
    "num_hidden_layers": 2,
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


@cache
def make(shape):
    config = LlamaConfig.from_dict(SHAPES[shape])
    return random_module(lambda: Llama(config, rngs=nnx.Rngs(0)))


def parameters_of(llama):
    """Pairs of a dotted path and its Param."""
    leaves = jax.tree_util.tree_leaves_with_path(
        llama, is_leaf=lambda node: isinstance(node, nnx.Param)
    )
    return [
        (jax.tree_util.keystr(path, simple=True, separator="."), parameter)
        for path, parameter in leaves
    ]


def noise(*shape):
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


def one_text(batch, time):
    return jnp.ones((batch, time), jnp.int32)


def steps(batch, time):
    return jnp.broadcast_to(jnp.arange(time), (batch, time))


@quick_jit
def read_all(llama, tokens):
    batch, time = tokens.shape
    hidden = llama(
        llama.embed(tokens),
        positions=steps(batch, time),
        segments=one_text(batch, time),
        remat="everything",
    )
    return hidden, llama.logits(hidden)


def assert_close(ours, theirs):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


def test_scan_over_the_stack_is_a_loop_over_layers():
    llama = make("llama-3")
    x = noise(2, 9, 32)
    where = {"positions": steps(2, 9), "segments": one_text(2, 9)}
    scanned = quick_jit(partial(Llama.__call__, remat="nothing", **where))(llama, x)
    for index in range(llama.config.depth):
        layer = jax.tree.map(lambda stack, i=index: stack[i], llama.layers)
        rotation = llama.config.rotations()[index]
        read = partial(
            LlamaLayer.__call__,
            rotation=rotation,
            window=0,
            blocks=attention_blocks.DEFAULT,
            added=None,
            tuning=LayerTuning(),
            **where,
        )
        x = quick_jit(read)(layer, x)
    np.testing.assert_allclose(scanned, llama.norm(x), atol=2e-5)


@pytest.mark.quick("dots")
@pytest.mark.parametrize("policy", ["nothing", "attention", "dots"])
def test_recomputation_leaves_the_gradient_alone(policy):
    llama = make("llama-3")
    x = noise(1, 6, 32)

    @partial(quick_jit, static_argnames="remat")
    @jax.grad
    def slope(x, remat):
        hidden = llama(x, positions=steps(1, 6), segments=one_text(1, 6), remat=remat)
        return jnp.sum(jnp.sin(hidden))

    plain, again = slope(x, remat="everything"), slope(x, remat=policy)
    assert float(jnp.abs(plain).max()) > 0
    np.testing.assert_allclose(plain, again, atol=1e-5)


@pytest.mark.parametrize("slots_first", [False, True])
@pytest.mark.parametrize("shape", ["llama-1", "llama-3"])
def test_decoding_with_a_cache_is_reading_all_at_once(shape, slots_first):
    """Prompts of 7, 3 and 5 tokens, padded on the right, then 6 more, one at a time."""
    stacked = make(shape)
    lengths, prompt, more = np.array([7, 3, 5], np.int32), 7, 6
    tokens = np.random.default_rng(3).integers(0, 61, (3, prompt + more))
    # What comes after a token does not matter to it.
    _, expected = read_all(stacked, jnp.asarray(tokens))

    copied = jax.tree.map(jnp.copy, stacked)
    llama = unstacked(copied)
    assert copied.layers.query.kernel[...].is_deleted()
    assert not copied.norm.scale[...].is_deleted()
    cache = KVCache.empty(
        llama.config,
        batch=3,
        slots=prompt + more,
        dtype=np.float32,
        slots_first=slots_first,
    )

    @quick_jit
    def step(llama, cache, tokens, lengths):
        hidden, cache = llama(llama.embed(tokens), cache, lengths=lengths)
        return llama.logits(hidden), cache

    read, cache = step(llama, cache, tokens[:, :prompt], lengths)
    following = []
    for index in range(more):
        next_ones = tokens[np.arange(3), lengths + index]
        one = np.ones(3, np.int32)
        logits, cache = step(llama, cache, next_ones[:, None], one)
        following.append(logits)
    assert cache.ends.tolist() == (lengths + more).tolist()
    following = np.concatenate(following, axis=1)
    for row, length in enumerate(lengths):
        assert_close(read[row, :length], expected[row, :length])
        assert_close(following[row], expected[row, length : length + more])


@pytest.mark.parametrize("tied", [True, False])
def test_on_cpus_a_model_decodes_with_rows_in_float32(tied):
    """Its products stay in bfloat16, that with a tied embedding, too."""
    config = LlamaConfig.from_dict(LLAMA_1 | {"tie_word_embeddings": tied})
    llama = random_module(lambda: Llama(config, rngs=nnx.Rngs(0)))
    llama = unstacked(jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), llama))
    assert isinstance(llama, UnstackedLlama)
    assert len(llama.layers) == config.depth
    assert llama.empty_cache(batch=1, slots=2).key[0].dtype == jnp.float32
    assert llama.embedding.dtype == (jnp.bfloat16 if tied else jnp.float32)
    assert llama.layers[1].query.kernel.dtype == jnp.bfloat16


@pytest.mark.parametrize("slots_first", [False, True])
def test_rows_of_a_cache_are_taken_and_put(slots_first):
    config = LlamaConfig.from_dict(LLAMA_3 | {"num_hidden_layers": 3})
    empty = partial(KVCache.empty, config, dtype=jnp.float32, slots_first=slots_first)

    def by_slot(layer):
        return layer if slots_first else layer.swapaxes(1, 2)

    assert empty(batch=4, slots=5).key[0].ndim == (3 if slots_first else 4)

    cache = empty(batch=4, slots=5)
    fill = jnp.arange(1.0, 5.0)
    cache = jax.tree.map(
        lambda x: x + fill.reshape(4, *[1] * (x.ndim - 1)).astype(x.dtype), cache
    )
    two = cache.take(jnp.array([3, 0]))
    assert two.ends.tolist() == [4, 1]
    assert np.unique(two.value[1][0]).tolist() == [4.0]
    wide = two.widen(2)
    assert wide.slots == 7 and not np.any(by_slot(wide.key[2])[:, 5:])
    back = empty(batch=4, slots=7).put(jnp.array([1, 4]), two)
    assert back.ends.tolist() == [0, 4, 0, 0]
    assert np.unique(by_slot(back.key[0])[1, :5]).tolist() == [4.0]
    assert not np.any(back.key[0][jnp.array([0, 2, 3])])
    assert not np.any(by_slot(back.key[0])[1, 5:])


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
    config = dataclasses.replace(
        LlamaConfig.from_dict(LLAMA_1), biases=ATTENTION + MLP, query_key_norm=True
    )
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
    assert axes["layers.gate.bias"] == ("mlp",)
    assert axes["head.kernel"] == ("embed", "vocab")


def test_the_only_tensors_without_use_are_rotary_buffers():
    old = "model.layers.31.self_attn.rotary_emb.inv_freq"
    assert any(re.fullmatch(pattern, old) for pattern in IGNORED)
    weight = "model.layers.31.self_attn.q_proj.weight"
    assert not any(re.fullmatch(pattern, weight) for pattern in IGNORED)

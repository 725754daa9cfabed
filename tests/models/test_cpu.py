"""XLA's CPU compiler still needs what models/cpu.py does for it.

Each test compiles the plain form, for shapes without arrays, and finds in the compiled
program what the docstring in cpu.py says of it: an array that is copied to a wider
type, or scores that pass through memory. Then it finds that the form in cpu.py avoids
it. When a newer jaxlib fails one of the first assertions, delete that form.
"""

import re
import time
from functools import partial
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from musilingo_jax.models import cpu
from musilingo_jax.models.attention import attention
from musilingo_jax.models.convolution import dense_convolution, direct_convolution
from musilingo_jax.models.kv_cache import KVCache
from musilingo_jax.models.layers import linear
from musilingo_jax.models.matmul import in_two_rows, int8_product, product
from musilingo_jax.models.mert import Mert
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.models.pooling import pool, reduced_windows
from musilingo_jax.runtime.sharding import batch_sharding, make_mesh, replicated
from musilingo_jax.runtime.tested_versions import release

FAN_IN, FAN_OUT = 512, 1024
KERNEL = FAN_IN * FAN_OUT
CPU_INFO = Path("/proc/cpuinfo")
has_bfloat16_units = pytest.mark.skipif(
    not CPU_INFO.is_file()
    or not re.search("avx512_bf16|amx_bf16", CPU_INFO.read_text()),
    reason="without bfloat16 units, XLA multiplies bfloat16 as float32 in any form",
)

# What a jaxlib that is not the oldest tested one compiles well by itself.
gone_in_0_12 = pytest.mark.skipif(
    release(metadata.version("jaxlib")) >= (0, 12),
    reason="jaxlib 0.12 copies neither; the workaround serves 0.10 and 0.11",
)


def array(dtype, *shape):
    return jax.ShapeDtypeStruct(shape, dtype)


def compiled(function, *shapes, **options):
    return jax.jit(function, **options).lower(*shapes).compile()


def temporary(function, *shapes, **options):
    """Bytes of the arrays that a compiled function makes and drops."""
    program = compiled(function, *shapes, **options)
    return program.memory_analysis().temp_size_in_bytes


@has_bfloat16_units
def test_a_product_of_one_bfloat16_row_copies_the_kernel():
    kernel = array(jnp.bfloat16, FAN_IN, FAN_OUT)
    row = array(jnp.float32, 1, 1, FAN_IN)
    assert temporary(product, row, kernel) >= 4 * KERNEL
    assert temporary(in_two_rows, row, kernel) < KERNEL / 10
    # And so a linear layer chooses.
    assert temporary(lambda x, k: linear(x, k, None, None), row, kernel) < KERNEL / 10


def test_one_row_of_two_is_that_row():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(1, 1, 24)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(24, 16)), jnp.bfloat16)
    y = in_two_rows(x, kernel)
    assert y.shape == (1, 1, 16)
    np.testing.assert_allclose(y, product(x, kernel), rtol=1e-6)


def test_a_row_on_each_device_is_multiplied_twice():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(8, 1, 24)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(24, 16)), jnp.bfloat16)
    mesh = make_mesh(8, 1, 1)
    spread = jax.device_put(x, batch_sharding(mesh))
    shared = jax.device_put(kernel, replicated(mesh))
    multiply = jax.jit(lambda x, kernel: linear(x, kernel, None, None))
    program = multiply.lower(spread, shared)
    assert "tensor<8x1x2x24xbf16>" in program.as_text()
    assert "x2x24xbf16" not in multiply.lower(x, kernel).as_text()
    y = multiply(spread, shared)
    assert y.sharding.is_equivalent_to(batch_sharding(mesh), y.ndim)
    # Processors differ in the order of their sums, so values that nearly cancel differ
    # by the rounding of what they are the sum of.
    rounding = jnp.finfo(jnp.float32).eps * product(jnp.abs(x), jnp.abs(kernel))
    difference = np.abs(np.asarray(y - product(x, kernel)))
    assert (difference <= rounding).all()


def test_a_product_of_bfloat16_and_int8_copies_the_kernel():
    kernel, scale = array(jnp.int8, FAN_OUT, FAN_IN), array(jnp.float32, FAN_OUT)
    # Five positions a row: no step of decoding.
    assert temporary(int8_product, array(jnp.float32, 4, 5, FAN_IN), kernel, scale) >= (
        2 * KERNEL
    )
    rows = array(jnp.float32, 1, 1, FAN_IN)
    assert temporary(int8_product, rows, kernel, scale) < KERNEL / 10


def test_a_product_of_one_int8_row_copies_the_kernel():
    """Else one digit's row would be enough for the high digits of a single row."""

    def multiply(x, kernel):
        contracted = ((1,), (1,)), ((), ())
        return jax.lax.dot_general(
            x, kernel, contracted, preferred_element_type=jnp.int32
        )

    kernel = array(jnp.int8, FAN_OUT, FAN_IN)
    assert temporary(multiply, array(jnp.int8, 1, FAN_IN), kernel) >= 2 * KERNEL
    assert temporary(multiply, array(jnp.int8, 2, FAN_IN), kernel) < KERNEL / 10


@gone_in_0_12
def test_a_scan_copies_stacks_of_bfloat16():
    def step(x, kernel):
        return jnp.tanh(product(x, kernel)), None

    x, stack = array(jnp.float32, 8, 256), array(jnp.bfloat16, 24, 256, 256)
    size = 24 * 256 * 256
    assert temporary(partial(jax.lax.scan, step), x, stack) >= 4 * size
    assert temporary(partial(cpu.scan_in_place, step), x, stack) < size / 2
    # In float32 it does not, and there a plain scan is used.
    stack = array(jnp.float32, 24, 256, 256)
    assert temporary(partial(jax.lax.scan, step), x, stack) < size / 2


def test_frozen_layers_in_bfloat16_are_not_copied():
    """Those of a whole encoder, through which gradients may flow to something else."""
    config = MertConfig(
        model_type="hubert",
        sample_rate=16_000,
        do_normalize=False,
        conv_dim=(16,),
        conv_kernel=(10,),
        conv_stride=(10,),
        conv_bias=False,
        feat_extract_norm="group",
        feat_proj_layer_norm=True,
        feature_extractor_cqt=False,
        feature_extractor_cqt_bins=84,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        hidden_size=256,
        num_hidden_layers=24,
        num_attention_heads=2,
        intermediate_size=64,
        do_stable_layer_norm=True,
        layer_norm_eps=1e-5,
    )
    mert = jax.eval_shape(lambda: Mert(config, rngs=nnx.Rngs(0)))
    mert = jax.tree.map(lambda leaf: array(jnp.bfloat16, *leaf.shape), mert)

    def pooled(mert, waveform, lengths):
        return mert(
            waveform, lengths, reduce=lambda x, valid: pool(x, valid, 6), remat=False
        )

    shapes = mert, array(jnp.float32, 1, 300), array(jnp.int32, 1)
    stack = sum(2 * leaf.size for leaf in jax.tree.leaves(mert.layers))
    assert temporary(pooled, *shapes) < stack / 4


@gone_in_0_12
def test_a_loop_that_reads_bfloat16_rows_copies_the_array():
    def decode(embedding, tokens):
        def step(_, tokens):
            rows = jnp.take(embedding, tokens, axis=0, mode="fill")
            return jnp.argmax(rows.astype(jnp.float32), axis=-1)

        return jax.lax.fori_loop(0, 9, step, tokens)

    vocab, width = 4096, 128
    copy = 4 * vocab * width
    tokens = array(jnp.int32, 4)
    assert temporary(decode, array(jnp.bfloat16, vocab, width), tokens) >= copy
    assert temporary(decode, array(cpu.ROW_DTYPE, vocab, width), tokens) < copy / 10


@gone_in_0_12
def test_writing_bfloat16_rows_copies_the_array():
    batch, heads, slots, head_dim = 4, 8, 256, 32
    new = array(jnp.float32, batch, 1, heads, head_dim)

    def cache(dtype):
        stored = array(dtype, batch, heads, slots, head_dim)
        ends = array(jnp.int32, batch)
        return KVCache((stored,), (stored,), ends, None, head_dim, slots_first=False)

    def write(cache, new):
        return cache.write(0, new, new)

    copy = 4 * batch * heads * slots * head_dim
    options = {"donate_argnums": 0}
    assert temporary(write, cache(jnp.bfloat16), new, **options) >= copy
    assert temporary(write, cache(cpu.ROW_DTYPE), new, **options) < copy / 10


def operands_of(text, opcode):
    """The types of the operands of all instructions of an opcode."""
    calls = re.findall(rf" {opcode}\((%[\w.]+), (%[\w.]+)\)", text)
    names = {name for pair in calls for name in pair}
    return {re.search(rf"{re.escape(name)} = (\w+)\[", text).group(1) for name in names}


@has_bfloat16_units
def test_a_convolution_in_bfloat16_is_one_in_float32():
    x, kernel = array(jnp.bfloat16, 1, 401, 64), array(jnp.bfloat16, 3, 64, 64)
    text = compiled(
        partial(dense_convolution, stride=2, dtype=jnp.float32), x, kernel
    ).as_text()
    assert operands_of(text, "convolution") == {"f32"}
    by_products = partial(cpu.convolution_by_products, stride=2, product=product)
    text = compiled(by_products, x, kernel).as_text()
    assert not operands_of(text, "convolution")
    assert operands_of(text, "dot") == {"bf16"}


def test_scores_of_all_heads_pass_through_memory():
    heads, time = 16, 256
    operand, attend = array(jnp.float32, 1, time, heads, 8), array(bool, 1, 1, time)
    shapes = operand, operand, operand, attend
    scores = 4 * heads * time * time
    assert temporary(attention, *shapes) > 1.5 * scores
    assert temporary(cpu.one_head_at_a_time(attention), *shapes) < scores / 2


def fastest(forms, *operands):
    """Seconds of each form, in turn: no memory shows these, so that they are timed."""
    times = [np.inf] * len(forms)
    for _ in range(9):
        for index, form in enumerate(forms):
            started = time.perf_counter()
            form(*operands).block_until_ready()
            times[index] = min(times[index], time.perf_counter() - started)
    return times


@pytest.mark.slow
def test_a_grouped_convolution_is_slow():
    rng = np.random.default_rng(0)
    operands = (
        # Of MERT-330M and four clips of ten seconds; with one clip, both take as long.
        jnp.asarray(rng.normal(size=(4, 749, 1024)), jnp.float32),
        jnp.asarray(rng.normal(size=(128, 64, 1024)), jnp.float32),
    )
    own, ours = fastest(
        [
            jax.jit(partial(form, groups=16))
            for form in (direct_convolution, cpu.fourier_convolution)
        ],
        *operands,
    )
    assert own > 1.3 * ours


@pytest.mark.slow
def test_sums_over_windows_are_slow():
    frames = np.random.default_rng(0).normal(size=(4, 749, 1024))
    own, ours = fastest(
        [
            jax.jit(partial(form, window=325))
            for form in (reduced_windows, cpu.sums_of_rows)
        ],
        jnp.asarray(frames, jnp.float32),
    )
    assert own > 1.2 * ours

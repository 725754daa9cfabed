"""Attention of whole rows, and to caches: kernels against the plain form."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musilingo_jax.models import cached_attention, flash_attention, splash_attention
from musilingo_jax.models.attention import (
    attend_mask,
    attention,
    by_cache_kernel,
    by_kernel,
    segment_attention,
)
from musilingo_jax.models.attention_blocks import Blocks
from musilingo_jax.models.kv_cache import KVCache
from musilingo_jax.runtime.sharding import batch_sharding, make_mesh

pytestmark = pytest.mark.medium

KERNELS = {"splash": splash_attention, "flash": flash_attention}
PACKED = [[1] * 70 + [2] * 50 + [3] * 41 + [0] * 39, [1] * 200]
RAGGED = [[1] * 131 + [0] * 69, [1] * 3 + [0] * 197]


def test_attend_mask_is_as_drawn():
    drawn = """
        x . . . . .
        x x . . . .
        x x x . . .
        . . . x . .
        . . . x x .
        . . . . . .
    """
    rows = [[mark == "x" for mark in line.split()] for line in drawn.split("\n")[1:-1]]
    mask = attend_mask(jnp.array([[1, 1, 1, 2, 2, 0]]))
    np.testing.assert_array_equal(mask[0], rows)


def operands(*, heads, key_heads, head_dim, dtype, rows=2):
    rng = np.random.default_rng(heads)
    return tuple(
        jnp.asarray(rng.normal(size=(rows, 200, count, head_dim)), jnp.float32).astype(
            dtype
        )
        for count in (heads, key_heads, key_heads)
    )


def plain(query, key, value, segments, *, causal):
    """By a mask that is written out."""
    mask = attend_mask(segments) if causal else (segments > 0)[:, None]
    return attention(query, key, value, mask)


def kernel_form(name, *, causal):
    """By a kernel of an accelerator, interpreted."""
    return partial(by_kernel, KERNELS[name], causal=causal, interpret=True)


def value_and_gradients(attend, operands, segments):
    """Of a sum in which every number that belongs to a text counts differently."""
    weights = np.random.default_rng(9).normal(size=operands[0].shape)
    weights = jnp.where(segments[..., None, None] > 0, weights, 0)

    def total(*operands):
        mixed = attend(*operands, segments)
        return jnp.sum(weights * mixed), mixed

    (_, mixed), gradients = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)(
        *operands
    )
    return jnp.where(segments[..., None, None] > 0, mixed, 0), *gradients


@pytest.mark.quick(
    "splash-float32-2e-05-ragged",
    "flash-float32-2e-05-packed",
    "flash-float32-2e-05-grouped",
)
@pytest.mark.parametrize(
    ("causal", "segments", "key_heads"),
    [(True, PACKED, 4), (True, PACKED, 2), (True, RAGGED, 1), (False, RAGGED, 4)],
    ids=["packed", "grouped", "ragged", "full"],
)
@pytest.mark.parametrize(
    ("kernel", "dtype", "tolerance"),
    [
        ("splash", jnp.float32, 2e-5),
        ("flash", jnp.float32, 2e-5),
        # The same kernels and masks in another type.
        pytest.param("splash", jnp.bfloat16, 1e-2, marks=pytest.mark.slow),
        pytest.param("flash", jnp.bfloat16, 1e-2, marks=pytest.mark.slow),
    ],
)
def test_kernels_are_the_plain_form(
    kernel, dtype, tolerance, causal, segments, key_heads
):
    inputs = operands(heads=4, key_heads=key_heads, head_dim=64, dtype=dtype)
    segments = jnp.asarray(segments)
    ours = kernel_form(kernel, causal=causal)
    exact = [x.astype(jnp.float32) for x in inputs]
    for one, other in zip(
        value_and_gradients(ours, inputs, segments),
        value_and_gradients(partial(plain, causal=causal), exact, segments),
        strict=True,
    ):
        one, other = np.asarray(one, np.float32), np.asarray(other)
        assert np.abs(other).max() > 0
        np.testing.assert_allclose(one, other, atol=tolerance * np.abs(other).max())


@pytest.mark.quick("tall")
@pytest.mark.parametrize(
    ("blocks", "causal"),
    [(Blocks(128, 256), True), (Blocks(256, 128), True), (Blocks(128, 128), False)],
    ids=["wide", "tall", "full"],
)
def test_blocks_change_neither_values_nor_gradients(blocks, causal, monkeypatch):
    """Rows of 200 are padded to 256, of which blocks of 128 skip a quarter."""
    kernels = {}
    make = splash_attention.splash.make_splash_mha

    def recorded(*masks, **settings):
        sizes = settings["block_sizes"]
        kernels[dataclasses.astuple(sizes)[:8]] = None
        return make(*masks, **settings)

    monkeypatch.setattr(splash_attention.splash, "make_splash_mha", recorded)
    inputs = operands(heads=4, key_heads=2, head_dim=64, dtype=jnp.float32)
    segments = jnp.asarray(PACKED if causal else RAGGED)
    ours = partial(kernel_form("splash", causal=causal), blocks=blocks)
    for one, other in zip(
        value_and_gradients(ours, inputs, segments),
        value_and_gradients(partial(plain, causal=causal), inputs, segments),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=2e-5 * np.abs(other).max())
    queries, keys = blocks.queries, blocks.keys
    forward, to_keys = (queries, keys, keys), (queries, keys, keys)
    assert list(kernels) == [(*forward, *to_keys, queries, keys)]


@pytest.mark.parametrize(
    ("time", "most", "sizes"),
    [
        (1280, (512, 512), (256, 256)),
        (1280, (640, 2048), (640, 1280)),
        (768, (512, 512), (384, 384)),
        (2304, (1024, 1024), (768, 768)),
        (1408, (1024, 128), (128, 128)),
    ],
)
def test_blocks_of_a_row_are_the_largest_that_divide_it(time, most, sizes):
    assert Blocks(*most).of(time) == Blocks(*sizes)


@pytest.mark.quick("50")
@pytest.mark.parametrize("window", [2, 50, 128, 199])
def test_a_window_is_that_of_the_plain_form(window):
    """Packed rows by splash attention; GPUs' kernel has no windows."""
    inputs = operands(heads=4, key_heads=2, head_dim=64, dtype=jnp.float32)
    segments = jnp.asarray(PACKED)
    assert not flash_attention.fits(*inputs[:2], window=window)
    assert splash_attention.fits(*inputs[:2], window=window)
    ours = partial(kernel_form("splash", causal=True), window=window)

    def exact(query, key, value, segments):
        back = jnp.arange(200)[:, None] - jnp.arange(200)
        return attention(query, key, value, attend_mask(segments) & (back < window))

    np.testing.assert_array_equal(
        attend_mask(segments, window), attend_mask(segments, jnp.int32(window))
    )
    for one, other in zip(
        value_and_gradients(ours, inputs, segments),
        value_and_gradients(exact, inputs, segments),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=2e-5 * np.abs(other).max())


@pytest.mark.quick("splash-shape1", "flash-shape0")
@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2), (1, 1, 8)])
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_on_eight_devices_are_the_plain_form(kernel, shape):
    """With two key heads, which eight devices cannot divide."""
    mesh = make_mesh(*shape)
    inputs = operands(heads=4, key_heads=2, head_dim=64, dtype=jnp.float32, rows=8)
    segments = jnp.asarray(PACKED * 4)
    spread = jax.device_put((*inputs, segments), batch_sharding(mesh))
    ours = jax.jit(kernel_form(kernel, causal=True))
    found = jnp.where(segments[..., None, None] > 0, ours(*spread), 0)
    expected = plain(*inputs, segments, causal=True)
    expected = jnp.where(segments[..., None, None] > 0, expected, 0)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_cpu_does_not_trace_the_kernels(monkeypatch):
    for kernel in KERNELS.values():
        monkeypatch.setattr(kernel, "attention", lambda *_, **__: pytest.fail("traced"))
    inputs = operands(heads=4, key_heads=2, head_dim=64, dtype=jnp.bfloat16)
    mesh = make_mesh(1, 1, 1)
    inputs = jax.device_put(inputs, batch_sharding(mesh))
    segments = jnp.asarray(PACKED)
    attend = jax.jit(partial(segment_attention, causal=True))
    found = attend(*inputs, segments)
    expected = plain(*inputs, segments, causal=True)
    np.testing.assert_allclose(found, expected, atol=1e-2)


def cache_of(ends, *, slots, key_heads, dtype=jnp.float32, head_dim=128):
    """A cache with one layer; what is behind a row's text is large, not zero."""
    rng = np.random.default_rng(slots)
    shape = len(ends), slots, key_heads * head_dim
    key, value = (jnp.asarray(rng.normal(size=shape), dtype) for _ in range(2))
    ends = jnp.asarray(ends, jnp.int32)
    return KVCache((key,), (value,), ends, None, head_dim, slots_first=True)


def next_queries(cache, *, time, heads):
    rng = np.random.default_rng(time)
    shape = len(cache.ends), time, heads, cache.head_dim
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


@pytest.mark.quick(
    "float32-2e-06-token",
    "float32-2e-06-odd parts",
    "float32-2e-06-odd prompt",
    "bfloat16-0.02-token",
)
@pytest.mark.parametrize(
    ("time", "heads", "key_heads", "slots"),
    [
        *((1, 4, 4, 600), (1, 8, 2, 512), (32, 4, 2, 700), (512, 2, 1, 640)),
        *((32 * 11, 1, 1, 400), (45, 2, 1, 128)),
    ],
    ids=["token", "grouped", "prompt", "long prompt", "odd parts", "odd prompt"],
)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(jnp.float32, 2e-6), (jnp.bfloat16, 2e-2)]
)
def test_attention_to_a_cache_is_the_plain_form(
    time, heads, key_heads, slots, dtype, tolerance
):
    """Rows that are empty, short, at the edge of a block, and full."""
    ends = [min(end, slots - time) for end in (0, 3, 127, 128, slots)]
    cache = cache_of(ends, slots=slots, key_heads=key_heads, dtype=dtype)
    query = next_queries(cache, time=time, heads=heads)
    query = query.astype(dtype)
    exact = jax.tree.map(lambda x: x.astype(jnp.float32), (query, *cache.read(0)))
    expected = attention(*exact, cache.attend(time))
    found = by_cache_kernel(query, cache, 0, interpret=True)
    assert found.dtype == dtype
    np.testing.assert_allclose(found.astype(jnp.float32), expected, atol=tolerance)


@pytest.mark.quick("1-1", "300-32")
@pytest.mark.parametrize("time", [1, 32])
@pytest.mark.parametrize("window", [1, 100, 128, 300])
def test_a_window_to_a_cache_is_that_of_the_plain_form(window, time):
    cache = cache_of([0, 90, 200, 500], slots=600, key_heads=2)
    query = next_queries(cache, time=time, heads=4)
    expected = attention(query, *cache.read(0), cache.attend(time, window))
    found = by_cache_kernel(query, cache, 0, window=window, interpret=True)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    everything = attention(query, *cache.read(0), cache.attend(time))
    assert np.abs(everything - expected).max() > 0.01


def test_what_is_behind_a_row_changes_nothing():
    """Neither a row's free slots nor its neighbours are seen: they may be NaN."""
    cache = cache_of([9, 300, 599], slots=600, key_heads=2)
    query = next_queries(cache, time=1, heads=4)
    clean = by_cache_kernel(query, cache, 0, interpret=True)
    free = jnp.arange(600)[None, :, None] > cache.ends[:, None, None]
    blocks = -(-(cache.ends + 1) // cached_attention.BLOCK) * cached_attention.BLOCK
    unread = jnp.arange(600)[None, :, None] >= blocks[:, None, None]

    def dirty(array):
        return jnp.where(unread, jnp.nan, jnp.where(free, 1e4, array))

    changed = KVCache(
        (dirty(cache.key[0]),),
        (dirty(cache.value[0]),),
        cache.ends,
        None,
        cache.head_dim,
        slots_first=True,
    )
    assert bool(jnp.isnan(changed.key[0]).any())
    found = by_cache_kernel(query, changed, 0, interpret=True)
    np.testing.assert_array_equal(found, clean)


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2), (1, 1, 8)])
def test_attention_to_a_cache_on_eight_devices_is_the_plain_form(shape):
    """With two key heads, which eight devices cannot divide."""
    cache = cache_of(range(0, 320, 40), slots=300, key_heads=2)
    query = next_queries(cache, time=1, heads=4)
    expected = attention(query, *cache.read(0), cache.attend(1))
    query, spread = jax.device_put((query, cache), batch_sharding(make_mesh(*shape)))
    found = jax.jit(
        lambda query, cache: by_cache_kernel(query, cache, 0, interpret=True)
    )(query, spread)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_row_reads_its_own_blocks():
    ends = jnp.array([0, 255, 256, 1279, 2000])
    assert cached_attention.slots_read(ends, slots=1280) == 128 * (1 + 2 + 3 + 10 + 10)
    assert cached_attention.slots_read(jnp.array([0, 599]), slots=600) == 128 + 600

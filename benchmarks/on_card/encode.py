"""The encoder alone, on sound that is in the device's memory already."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from musilingo_jax.models.mert import Mert
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.models.pooling import pool
from musilingo_jax.runtime.sharding import batch_sharding, make_mesh
from on_card.ceilings import Ceilings
from on_card.part import Part, times
from on_card.sizes import Sizes
from on_card.weights import random_mert

# Frames of a vector that the language model hears, as released: 4.33 s.
WINDOW = 325


def measure_encode(sizes: Sizes, ceilings: Ceilings, part: Part) -> None:
    """Each size of batches."""
    mesh = make_mesh(1, 1, 1)
    mert = random_mert(sizes.mert, mesh)
    seconds = sizes.clip_seconds
    operations = forward_flops(sizes.mert, sizes.samples(seconds))
    for clips in sizes.encode_batches:

        def figures(clips: int = clips) -> dict[str, float | None]:
            run = encoding(mert, noise(sizes, clips, seconds), mesh)
            found = times(run)
            rate = clips / found["seconds"]
            return found | {
                "times_real_time": rate * seconds,
                "tflop_per_second": rate * operations / 1e12,
                "mfu": ceilings.share_of_flops(rate * operations),
            }

        part.measure(f"{clips} × {seconds:g} s", figures, clips=clips, length=seconds)


@jax.jit
def encode(
    mert: Mert, waveform: Float[Array, "batch samples"], lengths: Int[Array, " batch"]
) -> Float[Array, "batch windows width"]:
    """The vectors of each clip."""
    return mert(
        waveform, lengths, reduce=lambda x, v: pool(x, v, WINDOW)[0], remat=False
    )


def encoding(mert: Mert, waveform: np.ndarray, mesh: Mesh) -> Callable[[], object]:
    """A function that encodes a batch and waits for it."""
    lengths = np.full(len(waveform), waveform.shape[1], np.int32)
    placed = jax.device_put((waveform, lengths), batch_sharding(mesh))
    return lambda: jax.block_until_ready(encode(mert, *placed))


def noise(sizes: Sizes, clips: int, seconds: float) -> np.ndarray:
    """Waveforms [clips, samples]."""
    shape = clips, sizes.samples(seconds)
    return np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)


def forward_flops(config: MertConfig, samples: int) -> float:
    """Operations of a clip's products and convolutions, by their definitions."""
    total, frames, channels = 0, samples, 1
    for width, stride, features in zip(
        config.conv_kernel, config.conv_stride, config.conv_dim, strict=True
    ):
        frames = (frames - width) // stride + 1
        total += 2 * frames * width * channels * features
        channels = features
    width, inner = config.hidden_size, config.intermediate_size
    per_group = width // config.num_conv_pos_embedding_groups
    total += 2 * frames * width * channels
    total += 2 * frames * width * per_group * config.num_conv_pos_embeddings
    weights = 4 * width**2 + 2 * width * inner
    layer = 2 * frames * weights + 4 * frames**2 * width
    return total + config.num_hidden_layers * layer

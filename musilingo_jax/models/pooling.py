"""Means over time: from the encoder's frames to a few vectors per song.

The encoder gives 75 vectors a second; a language model needs one every few seconds.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num
from numpy import ndarray

from musilingo_jax.models import cpu


def windows_of(
    frames: int | Int[Array | ndarray, "*batch"], window: int
) -> int | Int[Array | ndarray, "*batch"]:
    """Windows that hold `frames` frames: ⌈frames / window⌉, of an int or an array."""
    return -(-frames // window)


def pool(
    x: Float[Array | ndarray, "batch time width"],
    valid: Bool[Array | ndarray, "batch time"],
    window: int,
) -> tuple[Float[Array, "batch windows width"], Bool[Array, "batch windows"]]:
    """Mean over the valid frames of each window, in float32; the last may be shorter.

    With window = 3, for a clip that fills 7 frames and one that fills 4 of them
    (letters are frames, dots are padding):

        a b c | d e f | g        →  mean(a b c)  mean(d e f)  mean(g)    True True True
        h i j | k . . | .        →  mean(h i j)  mean(k)      zeros      True True False

    Padding neither enters a mean nor changes its divisor, so that a clip gets the same
    vectors in any batch.

    Args:
      x: frames.
      valid: True for frames of the clip, False for padding.
      window: frames per window.

    Returns:
      The means, and which windows have any valid frame.
    """
    valid = jnp.asarray(valid)
    # A select, not a product: padding may hold infinities, and 0 · ∞ is not 0.
    x = jnp.where(valid[..., None], jnp.asarray(x, jnp.float32), 0.0)
    total, count = window_sums(x, window), window_sums(valid.astype(jnp.int32), window)
    return total / jnp.maximum(count, 1)[..., None], count > 0


def window_sums(
    x: Num[Array, "batch time *rest"], window: int
) -> Num[Array, "batch windows *rest"]:
    """Sums over windows of time, of which the last may be shorter."""
    return jax.lax.platform_dependent(
        x,
        cpu=lambda x: cpu.sums_of_rows(x, window),
        default=lambda x: reduced_windows(x, window),
    )


def reduced_windows(
    x: Num[Array, "batch time *rest"], window: int
) -> Num[Array, "batch windows *rest"]:
    """`window_sums` by XLA's own, which reads each number where it is."""
    rest = x.ndim - 2
    missing = -x.shape[1] % window
    sizes = (1, window, *(1,) * rest)
    padding = ((0, 0), (0, missing), *((0, 0),) * rest)
    return jax.lax.reduce_window(
        x, np.zeros((), x.dtype), jax.lax.add, sizes, sizes, padding
    )

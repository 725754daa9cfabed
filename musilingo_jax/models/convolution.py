"""Convolutions over time, in the forms that are fast."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from musilingo_jax.models.matmul import product

LAYOUT = ("NWC", "WIO", "NWC")


def strided_convolution(
    x: Float[Array, "batch time channels"],
    kernel: Float[Array, "width channels features"],
    stride: int,
) -> Float[Array, "batch frames features"]:
    """A convolution without padding, in the kernel's type, accumulated in float32.

    XLA's own takes bfloat16 at the speed of float32 on CPUs; its products do not.
    """
    x = x.astype(kernel.dtype)
    if kernel.dtype != jnp.bfloat16:
        return built_in_convolution(x, kernel, stride)
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: convolution_by_products(x, kernel, stride),
        default=lambda x, kernel: built_in_convolution(x, kernel, stride),
    )


def built_in_convolution(
    x: Float[Array, "batch time channels"],
    kernel: Float[Array, "width channels features"],
    stride: int,
) -> Float[Array, "batch frames features"]:
    """`strided_convolution` as XLA has it.

    Where the kernel is a whole number of strides wide, blocks of `stride` samples
    become channels and the convolution has stride 1: width 4, stride 2,

        a b c d e f          ab cd ef
        ‾‾‾‾‾‾‾         →    ‾‾‾‾‾
            ‾‾‾‾‾‾‾             ‾‾‾‾‾

    the same sums, whose gradient costs XLA half as much on CPUs.
    """
    batch, time, channels = x.shape
    width, _, features = kernel.shape
    if width % stride == 0:
        x = x[:, : time // stride * stride].reshape(batch, -1, stride * channels)
        kernel = kernel.reshape(width // stride, stride * channels, features)
        stride = 1
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride,),
        padding="VALID",
        dimension_numbers=LAYOUT,
        preferred_element_type=jnp.float32,
    )


def convolution_by_products(
    x: Float[Array, "batch time channels"],
    kernel: Float[Array, "width channels features"],
    stride: int,
) -> Float[Array, "batch frames features"]:
    """`strided_convolution` as a sum of matrix products.

    Samples are cut into blocks of `stride`, and so is the kernel; its last piece may be
    narrower and then sees only the first samples of a block. Width 3, stride 2:

        blocks  ab cd ef g-    frame 0 = ab · kernel[:2] + c · kernel[2]
                               frame 1 = cd · kernel[:2] + e · kernel[2]
    """
    batch, time, channels = x.shape
    width, _, features = kernel.shape
    frames = (time - width) // stride + 1
    pieces = -(-width // stride)
    blocks = frames + pieces - 1
    # Less than nothing after the last sample cuts samples off that no frame sees.
    after = blocks * stride - time
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (0, after, 0), (0, 0, 0)))
    x = x.reshape(batch, blocks, stride * channels)
    total = jnp.zeros((batch, frames, features), jnp.float32)
    for piece in range(pieces):
        weights = kernel[piece * stride : (piece + 1) * stride].reshape(-1, features)
        seen = x[:, piece : piece + frames, : len(weights)]
        total += product(seen, weights)
    return total


def grouped_convolution(
    x: Float[Array, "batch time width"],
    kernel: Float[Array, "size channels width"],
    groups: int,
) -> Float[Array, "batch time width"]:
    """As many frames as before: y[t] = Σ kernel[j] · x[t + j − size // 2], by groups.

    On CPUs as a product of spectra, because XLA's own grouped convolution is many times
    slower there; elsewhere as the built-in one. They agree but for rounding.
    """
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: fourier_convolution(x, kernel, groups),
        default=lambda x, kernel: direct_convolution(x, kernel, groups),
    )


def direct_convolution(
    x: Float[Array, "batch time width"],
    kernel: Float[Array, "size channels width"],
    groups: int,
) -> Float[Array, "batch time width"]:
    """`grouped_convolution` as accelerators have it built in."""
    size = len(kernel)
    return jax.lax.conv_general_dilated(
        x.astype(kernel.dtype),
        kernel,
        window_strides=(1,),
        padding=[(size // 2, (size - 1) // 2)],
        dimension_numbers=LAYOUT,
        feature_group_count=groups,
        preferred_element_type=jnp.float32,
    )


def fourier_convolution(
    x: Float[Array, "batch time width"],
    kernel: Float[Array, "size channels width"],
    groups: int,
) -> Float[Array, "batch time width"]:
    """`grouped_convolution` through Fourier transforms of overlapping blocks.

    A block of 2 · size frames gives size + 1 frames of the answer; the others have
    wrapped around and are dropped ("overlap-save"):

        frames       0 1 2 3 4 5 6 7 8 …          size 3, blocks of 6
        block 0      · · · · · ·          →  answers 0 1 2 3
        block 1              · · · · · ·  →  answers 4 5 6 7

    So the kernel's spectrum, the largest array here, does not grow with time; and with
    one group after another, no more than a group's share of it is held at once.
    """
    batch, time, width = x.shape
    size = len(kernel)
    period, step = 2 * size, size + 1
    blocks = -(-time // step)
    after = (blocks - 1) * step + period - size // 2 - time
    x = jnp.pad(x, ((0, 0), (size // 2, after), (0, 0)))
    starts = range(0, blocks * step, step)
    x = jnp.stack([x[:, start : start + period] for start in starts], axis=1)
    x = x.reshape(batch * blocks, period, groups, -1).transpose(2, 1, 0, 3)
    kernel = kernel.reshape(size, width // groups, groups, -1).transpose(2, 0, 1, 3)
    forward, backward = fourier_matrices(period)

    def one_group(operands: tuple[Array, Array]) -> Array:
        x, kernel = operands  # [period, block, channel in], [size, in, channel out]
        real, imaginary = jnp.split(jnp.tensordot(forward, x, 1), 2)
        kernel = jnp.tensordot(forward[:, :size], kernel.astype(jnp.float32), 1)
        # The spectrum of x times the conjugate of the kernel's.
        both = jnp.concatenate([real, imaginary], axis=1)
        by_real, by_imaginary = (both @ part for part in jnp.split(kernel, 2))
        real_real, imaginary_real = jnp.split(by_real, 2, axis=1)
        real_imaginary, imaginary_imaginary = jnp.split(by_imaginary, 2, axis=1)
        spectrum = jnp.concatenate(
            [real_real + imaginary_imaginary, imaginary_real - real_imaginary]
        )
        return jnp.tensordot(backward[:step], spectrum, 1)

    y = jax.lax.map(one_group, (x, kernel))  # [group, step, block, channel out]
    return y.transpose(2, 1, 0, 3).reshape(batch, blocks * step, width)[:, :time]


def fourier_matrices(
    period: int,
) -> tuple[Float[Array, "parts period"], Float[Array, "period parts"]]:
    """The transform of `period` (an even number of) real values, and its inverse.

    The spectrum's real parts come first, then its imaginary parts. For periods of a few
    hundred, products with these take CPUs less time than XLA's fast transform.
    """
    frequencies = np.arange(period // 2 + 1)
    angles = 2 * np.pi / period * np.outer(frequencies, np.arange(period))
    forward = np.concatenate([np.cos(angles), -np.sin(angles)])
    # All frequencies but the lowest and the highest stand for their negatives, too.
    once = (frequencies == 0) | (frequencies == period // 2)
    weights = np.tile(np.where(once, 1, 2) / period, 2)
    backward = (weights[:, None] * forward).T
    return jnp.asarray(forward, jnp.float32), jnp.asarray(backward, jnp.float32)

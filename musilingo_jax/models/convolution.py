"""Convolutions over time, in the forms that are fast."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LAYOUT = ("NWC", "WIO", "NWC")


def strided_convolution(
    x: Float[Array, "batch time channels"],
    kernel: Float[Array, "width channels features"],
    stride: int,
) -> Float[Array, "batch frames features"]:
    """A convolution without padding, in the kernel's type, accumulated in float32.

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
        x.astype(kernel.dtype),
        kernel,
        window_strides=(stride,),
        padding="VALID",
        dimension_numbers=LAYOUT,
        preferred_element_type=jnp.float32,
    )


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

    So the kernel's spectrum, the largest array here, does not grow with time.
    """
    batch, time, width = x.shape
    size = len(kernel)
    period, step = 2 * size, size + 1
    blocks = -(-time // step)
    after = (blocks - 1) * step + period - size // 2 - time
    x = jnp.pad(x, ((0, 0), (size // 2, after), (0, 0)))
    starts = range(0, blocks * step, step)
    x = jnp.stack([x[:, start : start + period] for start in starts], axis=1)
    x = x.reshape(batch * blocks, period, groups, -1)
    kernel = kernel.astype(jnp.float32).reshape(size, width // groups, groups, -1)
    # Time goes last, where the transform is fastest; g, i, o, n, f stand for group,
    # channel in, channel out, block and frequency.
    x = jnp.fft.rfft(x.transpose(2, 3, 0, 1), period)
    kernel = jnp.fft.rfft(kernel.transpose(2, 1, 3, 0), period)
    spectrum = jnp.einsum("ginf,giof->gonf", x, kernel.conj())
    y = jnp.fft.irfft(spectrum, period)[..., :step]
    return y.transpose(2, 3, 0, 1).reshape(batch, blocks * step, width)[:, :time]

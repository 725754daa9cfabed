"""Convolutions over time."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float
from numpy import ndarray

from musilingo_jax.models import cpu
from musilingo_jax.models.matmul import product

LAYOUT = ("NWC", "WIO", "NWC")


def strided_convolution(
    x: Float[Array | ndarray, "batch time channels"],
    kernel: Float[Array | ndarray, "width channels features"],
    stride: int,
) -> Float[Array, "batch frames features"]:
    """A convolution without padding, in the kernel's type, accumulated in float32.

    What accelerators return was rounded to the kernel's type once, after it was summed:
    the stack's activations are the largest arrays of the encoder.
    """
    x, kernel = jnp.asarray(x, kernel.dtype), jnp.asarray(kernel)
    if kernel.dtype != jnp.bfloat16:
        return dense_convolution(x, kernel, stride, dtype=jnp.float32)
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: cpu.convolution_by_products(x, kernel, stride, product),
        # Written to memory as it will be multiplied again, in half the bytes.
        default=lambda x, kernel: dense_convolution(
            x, kernel, stride, dtype=kernel.dtype
        ).astype(jnp.float32),
    )


def dense_convolution(
    x: Float[Array, "batch time channels"],
    kernel: Float[Array, "width channels features"],
    stride: int,
    *,
    dtype: DTypeLike,
) -> Float[Array, "batch frames features"]:
    """`strided_convolution` by XLA's own.

    If the width is a multiple of the stride, blocks of `stride` samples become channels
    and the stride becomes 1 ("space to depth"). Width 4, stride 2:

        a b c d e f          ab cd ef
        ‾‾‾‾‾‾‾         →    ‾‾‾‾‾
            ‾‾‾‾‾‾‾             ‾‾‾‾‾

    The sums are the same, but the matrices are larger, and the gradient has no holes.

    Args:
      x: of the type of the kernel.
      kernel: of each place.
      stride: samples from one frame to the next.
      dtype: of the result; accelerators sum in float32 in any case.
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
        preferred_element_type=dtype,
    )


def grouped_convolution(
    x: Float[Array | ndarray, "batch time width"],
    kernel: Float[Array | ndarray, "size channels width"],
    groups: int,
) -> Float[Array, "batch time width"]:
    """y[t] = Σ kernel[j] · x[t + j − size // 2], by groups, as many frames as in x."""
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: cpu.fourier_convolution(x, kernel, groups),
        default=lambda x, kernel: direct_convolution(x, kernel, groups),
    )


def direct_convolution(
    x: Float[Array | ndarray, "batch time width"],
    kernel: Float[Array | ndarray, "size channels width"],
    groups: int,
) -> Float[Array, "batch time width"]:
    """`grouped_convolution` by XLA's own, in the kernel's type."""
    size = len(kernel)
    return jax.lax.conv_general_dilated(
        jnp.asarray(x, kernel.dtype),
        jnp.asarray(kernel),
        window_strides=(1,),
        padding=[(size // 2, (size - 1) // 2)],
        dimension_numbers=LAYOUT,
        feature_group_count=groups,
        preferred_element_type=jnp.float32,
    )

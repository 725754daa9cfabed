"""The convolutions of MERT: the strided stack on the waveform, and the positional one.

Each clip of a batch gets the numbers that it would get alone: what depends on time as a
whole (`group_norm`) leaves out the padding.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int
from numpy import ndarray

from musilingo_jax.models.convolution import grouped_convolution, strided_convolution
from musilingo_jax.models.layers import Norm, parameter
from musilingo_jax.models.mert_config import MertConfig

# The norms of the convolutional stack do not follow `layer_norm_eps`.
CONVOLUTION_EPS = 1e-5


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x · Φ(x), by its definition; `jax.nn.gelu` computes it by the slower erfc."""
    return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))


def valid_mask(
    frames: Int[Array | ndarray, " batch"], time: int
) -> Bool[Array, "batch time"]:
    """True for frames of the clip, False for padding.

    Of 2 and 3 frames in a time of 4:

        1 1 0 0
        1 1 1 0
    """
    return jnp.arange(time) < frames[:, None]


def group_norm(
    x: Float[Array, "batch time channels"],
    valid: Bool[Array, "batch time"],
    scale: Float[Array, " channels"],
    bias: Float[Array, " channels"],
) -> Float[Array, "batch time channels"]:
    """Each channel to mean 0 and variance 1 over the valid frames, in float32.

    The means are products with a row of weights, which is 0 for padding; in full
    precision, because they are sums over a whole clip.
    """
    weights = valid / jnp.maximum(jnp.sum(valid, axis=1, keepdims=True), 1)
    weights = weights.astype(jnp.float32)[:, None]
    mean = jnp.matmul(weights, x, precision="highest")
    variance = jnp.matmul(weights, jnp.square(x - mean), precision="highest")
    return (x - mean) * (jax.lax.rsqrt(variance + CONVOLUTION_EPS) * scale) + bias


class Convolution(nnx.Module):
    """One layer of the stack: `kernel` [width, channels, features], norm, GELU."""

    def __init__(self, config: MertConfig, index: int, *, rngs: nnx.Rngs):
        channels = config.conv_dim[index - 1] if index else 1
        shape = (config.conv_kernel[index], channels, config.conv_dim[index])
        scale = (2 / (shape[0] * shape[1])) ** 0.5
        self.kernel = parameter(
            scale * jax.random.normal(rngs.params(), shape), (None, None, None)
        )
        bias = jnp.zeros(shape[2])
        self.bias = parameter(bias, (None,)) if config.conv_bias else None
        by_group = config.feat_extract_norm == "group"
        norm = Norm(shape[2], bias=True, eps=CONVOLUTION_EPS)
        self.norm = None if by_group and index else norm
        self.by_group = by_group
        self.stride = config.conv_stride[index]

    def __call__(
        self, x: Float[Array, "batch time channels"], frames: Int[Array, " batch"]
    ) -> Float[Array, "batch frames features"]:
        """One layer; `frames` counts each clip's frames in the result."""
        x = strided_convolution(x, self.kernel[...], self.stride)
        if self.bias is not None:
            x += self.bias[...].astype(jnp.float32)
        if self.norm is not None and self.by_group:
            assert self.norm.bias is not None
            valid = valid_mask(frames, x.shape[1])
            x = group_norm(x, valid, self.norm.scale[...], self.norm.bias[...])
        elif self.norm is not None:
            x = self.norm(x)
        return gelu(x)


class PositionalConvolution(nnx.Module):
    """Encodes positions relative to their neighbours: a wide grouped convolution.

    `kernel` [frames, channels per group, width] is the product of the magnitude and the
    direction into which weight norm splits it in released files.
    """

    def __init__(self, config: MertConfig, *, rngs: nnx.Rngs):
        width, size = config.hidden_size, config.num_conv_pos_embeddings
        self.groups = config.num_conv_pos_embedding_groups
        shape = (size, width // self.groups, width)
        scale = (2 / (shape[0] * shape[1])) ** 0.5
        self.kernel = parameter(
            scale * jax.random.normal(rngs.params(), shape), (None, None, None)
        )
        self.bias = parameter(jnp.zeros(width), (None,))

    def __call__(
        self, x: Float[Array, "batch time width"]
    ) -> Float[Array, "batch time width"]:
        """What is added to x to mark its positions."""
        y = grouped_convolution(x, self.kernel[...], self.groups)
        return gelu(y + self.bias[...].astype(jnp.float32))

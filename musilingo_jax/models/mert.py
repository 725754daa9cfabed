"""MERT, the encoder of music: convolutions over the waveform, then a transformer.

Li et al. 2023, "MERT: Acoustic Music Understanding Model with Large-Scale
Self-Supervised Training". The architecture is HuBERT's (Hsu et al. 2021). What is
wanted of it here is the mean over all its hidden states, so that is what it returns.

    waveform [batch, samples]
      → convolutional stack, strided     [batch, frames, channels] (+ constant-Q bins)
      → norm, projection                 [batch, frames, width]
      → + positional convolution         hidden state 0
      → transformer layers               hidden states 1 to depth
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from musilingo_jax.models.convolution import grouped_convolution, strided_convolution
from musilingo_jax.models.cqt import cqt
from musilingo_jax.models.layers import (
    Linear,
    Norm,
    attention,
    attention_in_turn,
    parameter,
    scan_layers,
)
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.models.names import Derived, Names

# The norms of the convolutional stack do not follow `layer_norm_eps`.
CONVOLUTION_EPS = 1e-5

Reduce = Callable[[Float[Array, "batch time width"], Bool[Array, "batch time"]], Any]


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x · Φ(x), exactly. By erf, which XLA computes faster on CPUs than erfc."""
    return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))


def valid_mask(frames: Int[Array, " batch"], time: int) -> Bool[Array, "batch time"]:
    """Which frames are of the clip and not of its padding: frames 2, 3 of time 4 →

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

    The means are products with a row of weights, because a matrix product sums over
    time faster than a reduction does on CPUs; hence the precision.
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
        x = strided_convolution(x, self.kernel[...], self.stride)
        if self.bias is not None:
            x += self.bias[...].astype(jnp.float32)
        if self.norm is not None and self.by_group:
            valid = valid_mask(frames, x.shape[1])
            x = group_norm(x, valid, self.norm.scale[...], self.norm.bias[...])
        elif self.norm is not None:
            x = self.norm(x)
        return gelu(x)


class PositionalConvolution(nnx.Module):
    """Tells frames apart by their surroundings: a wide grouped convolution.

    `kernel` [frames, channels per group, width] is stored as the product of what the
    released files keep as weight norm's magnitude and direction.
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
        y = grouped_convolution(x, self.kernel[...], self.groups)
        return gelu(y + self.bias[...].astype(jnp.float32))


class MertLayer(nnx.Module):
    """Attention and a two-layer network, each with its norm before or after it."""

    def __init__(self, config: MertConfig, *, rngs: nnx.Rngs):
        width, inner = config.hidden_size, config.intermediate_size
        eps = config.layer_norm_eps

        def linear(fan_in: int, fan_out: int, *axes: str) -> Linear:
            return Linear(fan_in, fan_out, axes=axes, bias=True, rngs=rngs)

        self.query = linear(width, width, "embed", "heads")
        self.key = linear(width, width, "embed", "heads")
        self.value = linear(width, width, "embed", "heads")
        self.out = linear(width, width, "heads", "embed")
        self.attention_norm = Norm(width, bias=True, eps=eps)
        self.up = linear(width, inner, "embed", "mlp")
        self.down = linear(inner, width, "mlp", "embed")
        self.mlp_norm = Norm(width, bias=True, eps=eps)
        self.heads = config.num_attention_heads
        self.pre_norm = config.do_stable_layer_norm

    def attend(
        self, x: Float[Array, "batch time width"], valid: Bool[Array, "batch time"]
    ) -> Float[Array, "batch time width"]:
        batch, time, width = x.shape
        dtype = self.query.kernel.dtype
        query, key, value = (
            projection(x).astype(dtype).reshape(batch, time, self.heads, -1)
            for projection in (self.query, self.key, self.value)
        )
        mixed = jax.lax.platform_dependent(
            query,
            key,
            value,
            valid[:, None],
            cpu=attention_in_turn,
            default=attention,
        )
        return self.out(mixed.reshape(batch, time, width))

    def __call__(
        self, x: Float[Array, "batch time width"], valid: Bool[Array, "batch time"]
    ) -> Float[Array, "batch time width"]:
        if self.pre_norm:
            x = x + self.attend(self.attention_norm(x), valid)
            return x + self.down(gelu(self.up(self.mlp_norm(x))))
        x = self.attention_norm(x + self.attend(x, valid))
        return self.mlp_norm(x + self.down(gelu(self.up(x))))


class Mert(nnx.Module):
    """The encoder; its equal layers are one `MertLayer` with a leading axis."""

    def __init__(self, config: MertConfig, *, rngs: nnx.Rngs):
        self.config = config
        indices = range(len(config.conv_dim))
        self.convolutions = nnx.data(
            tuple(Convolution(config, index, rngs=rngs) for index in indices)
        )
        channels = config.conv_dim[-1]
        if config.feature_extractor_cqt:
            channels += config.feature_extractor_cqt_bins
        eps = config.layer_norm_eps
        self.projection_norm = (
            Norm(channels, bias=True, eps=eps) if config.feat_proj_layer_norm else None
        )
        self.projection = Linear(
            channels, config.hidden_size, axes=(None, "embed"), bias=True, rngs=rngs
        )
        self.positional = PositionalConvolution(config, rngs=rngs)
        # After the last layer when pre-norm, before the first one when post-norm.
        self.norm = Norm(config.hidden_size, bias=True, eps=eps)
        keys = jax.random.split(rngs.params(), config.num_hidden_layers)
        self.layers = jax.vmap(lambda key: MertLayer(config, rngs=nnx.Rngs(key)))(keys)

    def frames(self, lengths: Int[Array, " batch"]) -> Int[Array, " batch"]:
        """Frames that the convolutional stack makes of so many samples."""
        return self.config.frames(lengths)

    def __call__(
        self,
        waveform: Float[Array, "batch samples"],
        lengths: Int[Array, " batch"],
        *,
        reduce: Reduce,
        remat: bool,
    ) -> Any:
        """The mean over all hidden states of a reduction of each.

        The states are reduced and summed as they come: no stack of them is ever held.

        Args:
          waveform: at `config.sample_rate`; what lies beyond `lengths` has no effect.
          lengths: samples of each clip.
          reduce: (hidden state [batch, time, width], which frames are valid
            [batch, time]) → array or pytree of arrays.
          remat: compute the layers again in the backward pass instead of keeping what
            is inside them.
        """
        x, valid = self.embed(waveform, lengths)

        def step(carry: tuple[Array, Any], layer: MertLayer) -> tuple[tuple, None]:
            x, total = carry
            total = jax.tree.map(jnp.add, total, reduce(x, valid))
            return (layer(x, valid), total), None

        shapes = jax.eval_shape(reduce, x, valid)
        total = jax.tree.map(lambda part: jnp.zeros(part.shape, part.dtype), shapes)
        step = jax.checkpoint(step) if remat else step
        (x, total), _ = scan_layers(step, (x, total), self.layers)
        total = jax.tree.map(jnp.add, total, reduce(self.finish(x), valid))
        states = self.config.num_hidden_layers + 1
        return jax.tree.map(lambda part: part / states, total)

    def each(
        self,
        waveform: Float[Array, "batch samples"],
        lengths: Int[Array, " batch"],
        *,
        reduce: Reduce,
    ) -> Any:
        """The reduction of each hidden state, stacked: [depth + 1, …].

        As in `__call__`, the states themselves are not kept.
        """
        x, valid = self.embed(waveform, lengths)

        def step(x: Array, layer: MertLayer) -> tuple[Array, Any]:
            return layer(x, valid), reduce(x, valid)

        x, reduced = scan_layers(step, x, self.layers)
        last = reduce(self.finish(x), valid)
        return jax.tree.map(
            lambda first, end: jnp.concatenate([first, end[None]]), reduced, last
        )

    def hidden_states(
        self, waveform: Float[Array, "batch samples"], lengths: Int[Array, " batch"]
    ) -> Float[Array, "states batch time width"]:
        """All depth + 1 hidden states, the last one after the final norm."""
        return self.each(waveform, lengths, reduce=lambda x, valid: x)

    def embed(
        self, waveform: Float[Array, "batch samples"], lengths: Int[Array, " batch"]
    ) -> tuple[Float[Array, "batch time width"], Bool[Array, "batch time"]]:
        """The transformer's input (hidden state 0), and which frames are valid."""
        config = self.config
        waveform = waveform.astype(jnp.float32)
        within = valid_mask(lengths, waveform.shape[1])
        waveform = jnp.where(within, waveform, 0)
        if config.do_normalize:
            waveform = normalize(waveform, within)
        x, frames = waveform[:, :, None], lengths
        for convolution in self.convolutions:
            width = convolution.kernel.shape[0]
            frames = (frames - width) // convolution.stride + 1
            x = convolution(x, frames)
        time = x.shape[1]
        if config.feature_extractor_cqt:
            magnitudes = cqt(
                waveform,
                sample_rate=config.sample_rate,
                bins=config.feature_extractor_cqt_bins,
                hop=config.samples_per_frame,
                first_centre=(config.receptive_field - 1) / 2,
                frames=time,
            )
            bins = jax.lax.stop_gradient(jnp.log1p(100 * magnitudes))
            x = jnp.concatenate([x, bins], axis=-1)
        if self.projection_norm is not None:
            x = self.projection_norm(x)
        valid = valid_mask(frames, time)
        x = jnp.where(valid[:, :, None], self.projection(x), 0)
        x = x + self.positional(x)
        return (x if config.do_stable_layer_norm else self.norm(x)), valid

    def finish(
        self, x: Float[Array, "batch time width"]
    ) -> Float[Array, "batch time width"]:
        """What follows the last layer: the final norm, when pre-norm."""
        return self.norm(x) if self.config.do_stable_layer_norm else x


def normalize(
    waveform: Float[Array, "batch samples"], within: Bool[Array, "batch samples"]
) -> Float[Array, "batch samples"]:
    """Each clip to mean 0 and variance 1; 1e-7 is that of the released extractor."""
    count = jnp.maximum(jnp.sum(within, axis=1, keepdims=True), 1)
    mean = jnp.sum(waveform, axis=1, keepdims=True) / count
    centred = jnp.where(within, waveform - mean, 0)
    variance = jnp.sum(jnp.square(centred), axis=1, keepdims=True) / count
    return centred * jax.lax.rsqrt(variance + 1e-7)


def read_weight_norm(magnitude: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """g · v / ‖v‖, the norm being over all axes but time; then the axes reversed."""
    norm = np.sqrt(np.sum(np.square(direction), axis=(0, 1), keepdims=True))
    return np.ascontiguousarray((magnitude * direction / norm).T)


def write_weight_norm(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    direction = np.ascontiguousarray(kernel.T)
    return np.sqrt(np.sum(np.square(direction), axis=(0, 1), keepdims=True)), direction


def _linear_names(ours: str, theirs: str) -> Names:
    return {f"{ours}.kernel": f"{theirs}.weight", f"{ours}.bias": f"{theirs}.bias"}


def _norm_names(ours: str, theirs: str) -> Names:
    return {f"{ours}.scale": f"{theirs}.weight", f"{ours}.bias": f"{theirs}.bias"}


# More rows than any released model has convolutions; a model uses its own.
CONVOLUTIONS = 12
_CONVOLUTION = "feature_extractor.conv_layers"
_LAYER = "encoder.layers.{}"
_POSITIONAL = "encoder.pos_conv_embed.conv"

NAMES: Names = {
    **{
        ours: theirs
        for i in range(CONVOLUTIONS)
        for ours, theirs in (
            _linear_names(f"convolutions.{i}", f"{_CONVOLUTION}.{i}.conv")
            | _norm_names(f"convolutions.{i}.norm", f"{_CONVOLUTION}.{i}.layer_norm")
        ).items()
    },
    **_norm_names("projection_norm", "feature_projection.layer_norm"),
    **_linear_names("projection", "feature_projection.projection"),
    "positional.kernel": Derived(
        spellings=(
            (
                f"{_POSITIONAL}.parametrizations.weight.original0",
                f"{_POSITIONAL}.parametrizations.weight.original1",
            ),
            (f"{_POSITIONAL}.weight_g", f"{_POSITIONAL}.weight_v"),
        ),
        read=read_weight_norm,
        write=write_weight_norm,
    ),
    "positional.bias": f"{_POSITIONAL}.bias",
    **_norm_names("norm", "encoder.layer_norm"),
    **_linear_names("layers.query", f"{_LAYER}.attention.q_proj"),
    **_linear_names("layers.key", f"{_LAYER}.attention.k_proj"),
    **_linear_names("layers.value", f"{_LAYER}.attention.v_proj"),
    **_linear_names("layers.out", f"{_LAYER}.attention.out_proj"),
    **_norm_names("layers.attention_norm", f"{_LAYER}.layer_norm"),
    **_linear_names("layers.up", f"{_LAYER}.feed_forward.intermediate_dense"),
    **_linear_names("layers.down", f"{_LAYER}.feed_forward.output_dense"),
    **_norm_names("layers.mlp_norm", f"{_LAYER}.final_layer_norm"),
}

# Tensors of released files that no feature depends on, as regular expressions: the
# vector that stands for masked frames, and heads of the pre-training task or of CTC.
IGNORED = (
    r"masked_spec_embed",
    r"(final_proj|label_embs_concat|lm_head|project_hid|project_q|quantizer)(\..*)?",
)

"""MERT, the encoder of music: convolutions over the waveform, then a transformer.

Li et al. 2023, "MERT: Acoustic Music Understanding Model with Large-Scale
Self-Supervised Training". The architecture is HuBERT's (Hsu et al. 2021). MusiLingo
reads the mean over all hidden states, so that is what a call returns.

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
from numpy import ndarray

from musilingo_jax.models.attention import segment_attention
from musilingo_jax.models.attention_blocks import Blocks
from musilingo_jax.models.cqt import cqt
from musilingo_jax.models.layers import Linear, Norm, scan_layers
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.models.mert_convolutions import (
    Convolution,
    PositionalConvolution,
    gelu,
    valid_mask,
)
from musilingo_jax.models.names import Derived, Names

BLOCKS = Blocks(queries=1024, keys=1024)
"""Of attention on TPUs: a clip of 10 s is a single block, one of 30 s has 3 × 3."""

Reduce = Callable[[Float[Array, "batch time width"], Bool[Array, "batch time"]], Any]


class MertLayer(nnx.Module):
    """Attention and a two-layer network, each with its norm before or after it."""

    def __init__(self, config: MertConfig, *, rngs: nnx.Rngs):
        width, inner = config.hidden_size, config.intermediate_size
        eps = config.layer_norm_eps

        def linear(
            fan_in: int, fan_out: int, fan_in_axis: str, fan_out_axis: str
        ) -> Linear:
            axes = fan_in_axis, fan_out_axis
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
        """Attention from every frame to all valid frames."""
        batch, time, width = x.shape
        dtype = self.query.kernel.dtype
        query, key, value = (
            projection(x).astype(dtype).reshape(batch, time, self.heads, -1)
            for projection in (self.query, self.key, self.value)
        )
        segments = valid.astype(jnp.int32)
        mixed = segment_attention(
            query, key, value, segments, causal=False, blocks=BLOCKS
        )
        return self.out(mixed.reshape(batch, time, width))

    def __call__(
        self, x: Float[Array, "batch time width"], valid: Bool[Array, "batch time"]
    ) -> Float[Array, "batch time width"]:
        """The next hidden state."""
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

    def frames(self, lengths: Int[Array | ndarray, " batch"]) -> Int[Array, " batch"]:
        """Frames that the convolutional stack makes of `lengths` samples."""
        return jnp.asarray(self.config.frames(lengths))

    def __call__(
        self,
        waveform: Float[Array | ndarray, "batch samples"],
        lengths: Int[Array | ndarray, " batch"],
        *,
        reduce: Reduce,
        remat: bool,
    ) -> Any:
        """The mean over all hidden states of a reduction of each.

        States are reduced and summed as they are computed, and never stacked.

        Args:
          waveform: at `config.sample_rate`; samples beyond `lengths` have no effect.
          lengths: samples of each clip.
          reduce: (hidden state [batch, time, width], which frames are valid
            [batch, time]) → array or pytree of arrays.
          remat: recompute the inside of each layer in the backward pass instead of
            keeping it.
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
        waveform: Float[Array | ndarray, "batch samples"],
        lengths: Int[Array | ndarray, " batch"],
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

    def embed(
        self,
        waveform: Float[Array | ndarray, "batch samples"],
        lengths: Int[Array | ndarray, " batch"],
    ) -> tuple[Float[Array, "batch time width"], Bool[Array, "batch time"]]:
        """The transformer's input (hidden state 0), and which frames are valid."""
        config = self.config
        waveform = jnp.asarray(waveform, jnp.float32)
        within = valid_mask(lengths, waveform.shape[1])
        waveform = jnp.where(within, waveform, 0)
        if config.do_normalize:
            waveform = normalize(waveform, within)
        x, frames = waveform[:, :, None], jnp.asarray(lengths)
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
        """Applies the final norm of a pre-norm encoder to the last hidden state."""
        return self.norm(x) if self.config.do_stable_layer_norm else x


def normalize(
    waveform: Float[Array, "batch samples"], within: Bool[Array, "batch samples"]
) -> Float[Array, "batch samples"]:
    """Each clip to mean 0 and variance 1; the released extractor, too, adds 1e-7."""
    count = jnp.maximum(jnp.sum(within, axis=1, keepdims=True), 1)
    mean = jnp.sum(waveform, axis=1, keepdims=True) / count
    centred = jnp.where(within, waveform - mean, 0)
    variance = jnp.sum(jnp.square(centred), axis=1, keepdims=True) / count
    return centred * jax.lax.rsqrt(variance + 1e-7)


def read_weight_norm(magnitude: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """g · v / ‖v‖, the norm over all axes but time; then the axes reversed."""
    norm = np.sqrt(np.sum(np.square(direction), axis=(0, 1), keepdims=True))
    return np.ascontiguousarray((magnitude * direction / norm).T)


def write_weight_norm(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The kernel as direction, and its norm as magnitude: undoes `read_weight_norm`."""
    direction = np.ascontiguousarray(kernel.T)
    return np.sqrt(np.sum(np.square(direction), axis=(0, 1), keepdims=True)), direction


def _linear_names(ours: str, theirs: str) -> Names:
    return {f"{ours}.kernel": f"{theirs}.weight", f"{ours}.bias": f"{theirs}.bias"}


def _norm_names(ours: str, theirs: str) -> Names:
    return {f"{ours}.scale": f"{theirs}.weight", f"{ours}.bias": f"{theirs}.bias"}


# More than any released model has; a model uses the names of its own convolutions.
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

IGNORED = (
    r"masked_spec_embed",
    r"(final_proj|label_embs_concat|lm_head|project_hid|project_q|quantizer)(\..*)?",
)
"""Tensors of released files that no feature depends on, as regular expressions.

The vector that replaces masked frames, and the heads of pre-training and of CTC.
"""

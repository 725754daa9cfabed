"""MU-LLaMA's bridge: one vector per clip, added inside the upper layers.

Liu et al. 2023, "Music Understanding LLaMA"; the gates are those of Zhang et al. 2023,
"LLaMA-Adapter".

    25 states of the encoder, each averaged over the clip     [states, width_in]
      → mixed by learnt weights, brought to length 1          [width_in]
      → projected, three gated blocks                         [width]      "audio"
    layer i:  + tanh(gate_i) · value_i(audio + query_i)       [heads, head_dim]

`value_i` is the language model's own frozen map, without its norm, without rotation
and without what is trained beside it. A gate is one number per head. Since all of it
depends on the clip alone, it is computed once, and the language model only adds it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from numpy import ndarray

from musilingo_jax.models.heard import Heard
from musilingo_jax.models.layers import Linear, Norm, parameter
from musilingo_jax.models.llama import Llama, UnstackedLlama
from musilingo_jax.models.names import Names
from musilingo_jax.runtime.settings import read_section, setting

_SMALLEST_LENGTH = 1e-12
# The released model weighs its inputs by their share of their sum plus 1e-6, and has a
# single one.
_SHARE = 1 / (1 + 1e-6)
_EPS = 1e-6

NAMES: Names = {
    "mix.kernel": "mix.weight",
    "mix.bias": "mix.bias",
    "projection.kernel": "projection.weight",
    "projection.bias": "projection.bias",
    "blocks.norm.scale": "blocks.{}.norm.weight",
    "blocks.gate.kernel": "blocks.{}.gate_proj.weight",
    "blocks.up.kernel": "blocks.{}.up_proj.weight",
    "blocks.down.kernel": "blocks.{}.down_proj.weight",
    "queries": "queries",
    "gates": "gates",
}


@dataclass(frozen=True)
class GatedValuesConfig:
    """The sizes of the bridge, under the names of its `config.json`.

    Attributes:
      encoder_states: hidden states of the encoder that are mixed, all of them: its
        depth + 1.
      encoder_width: of a hidden state.
      language_model_width: of the language model.
      language_model_depth: its layers.
      language_model_heads: its heads of queries.
      query_layers: how many of the last layers hear.
      blocks: gated blocks after the projection.
      block_width: of their inner vectors.
    """

    encoder_states: int = setting(at_least=1)
    encoder_width: int = setting(at_least=1)
    language_model_width: int = setting(at_least=1)
    language_model_depth: int = setting(at_least=1)
    language_model_heads: int = setting(at_least=1)
    query_layers: int = setting(at_least=1)
    blocks: int = setting(at_least=1)
    block_width: int = setting(at_least=1)

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> "GatedValuesConfig":
        """Reads the part of a `config.json` that is about sizes.

        Raises:
          UserError: a size is missing or is not a positive whole number.
        """
        return read_section(cls, described, "config.json", allow_others=True)


class Mix(nnx.Module):
    """Σ kernel_s · state_s + bias: 1 + `states` numbers."""

    def __init__(self, states: int, *, rngs: nnx.Rngs):
        bound = states**-0.5
        kernel = jax.random.uniform(rngs.params(), (states, 1), minval=-1.0)
        self.kernel = parameter(bound * kernel, (None, None))
        self.bias = parameter(jnp.zeros(1), (None,))

    def __call__(
        self, states: Float[Array, "*batch states width"]
    ) -> Float[Array, "*batch width"]:
        """The weighted sum of the states."""
        return (
            jnp.einsum("...sw,so->...w", states, self.kernel[...], precision="highest")
            + self.bias[...]
        )


class Block(nnx.Module):
    """x + down(silu(gate(n)) · up(n)), n = norm(x)."""

    def __init__(self, config: GatedValuesConfig, *, rngs: nnx.Rngs):
        width, inner = config.language_model_width, config.block_width

        def linear_map(fan_in: int, fan_out: int, *axes: str) -> Linear:
            first, second = axes
            return Linear(fan_in, fan_out, axes=(first, second), bias=False, rngs=rngs)

        self.norm = Norm(width, bias=False, eps=_EPS)
        self.gate = linear_map(width, inner, "embed", "mlp")
        self.up = linear_map(width, inner, "embed", "mlp")
        self.down = linear_map(inner, width, "mlp", "embed")

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        """The next vector of the clip."""
        normed = self.norm(x)
        return x + self.down(jax.nn.silu(self.gate(normed)) * self.up(normed))


class GatedValues(nnx.Module):
    """From the encoder's states to what each layer adds.

    Attributes:
      config: its sizes.
      mix, projection, blocks: from the states to one vector in the language model's
        width; `blocks` is one `Block` with a leading axis.
      queries: [query_layers, width], added to that vector; the last is for the last
        layer.
      gates: [depth, heads] before tanh; those of layers without a query are not used.
    """

    splices: ClassVar[bool] = False
    marks: ClassVar[bool] = False
    reduction: ClassVar[str] = "layers"

    def __init__(self, config: GatedValuesConfig, *, rngs: nnx.Rngs):
        self.config = config
        width = config.language_model_width
        self.mix = Mix(config.encoder_states, rngs=rngs)
        self.projection = Linear(
            config.encoder_width, width, axes=(None, "embed"), bias=True, rngs=rngs
        )
        keys = jax.random.split(rngs.params(), config.blocks)
        self.blocks = jax.vmap(lambda key: Block(config, rngs=nnx.Rngs(key)))(keys)
        queries = jax.random.normal(rngs.params(), (config.query_layers, width))
        self.queries = parameter(queries, (None, "embed"))
        gates = jnp.zeros((config.language_model_depth, config.language_model_heads))
        self.gates = parameter(gates, (None, None))

    @property
    def sizes(self) -> dict[str, int]:
        """What `config.json` says of it."""
        return asdict(self.config)

    @property
    def width(self) -> int:
        """Of the language model."""
        return self.config.language_model_width

    def __call__(
        self,
        features: Float[Array | ndarray, "batch rows width_in"],
        llama: Llama | UnstackedLlama,
    ) -> Heard:
        """What each layer adds for each clip.

        Args:
          features: states of the encoder, averaged over the clip; those of several
            clips stand below each other, `encoder_states` rows for each. Rows that are
            left over are padding.
          llama: the language model, of which the value maps are used.
        """
        config, depth = self.config, self.config.language_model_depth
        batch, rows, width_in = features.shape
        clips = rows // config.encoder_states
        states = jnp.asarray(features, jnp.float32)[:, : clips * config.encoder_states]
        states = states.reshape(batch, clips, config.encoder_states, width_in)
        audio = self.vector(states)

        deaf = depth - config.query_layers
        queries = jnp.pad(self.queries[...], ((deaf, 0), (0, 0)))
        values = llama.values(audio + queries[:, None, None])
        keys = values.reshape(depth, batch, clips, -1, llama.config.head_dim)
        heads = jnp.repeat(keys, config.language_model_heads // keys.shape[3], axis=3)
        hears = jnp.arange(depth) >= deaf
        gates = jnp.where(hears[:, None], jnp.tanh(self.gates[...]), 0.0)
        added = gates[:, None, None, :, None] * heads
        return Heard(spliced=None, added=added.reshape(depth, batch, clips, -1))

    def vector(
        self, states: Float[Array, "*batch states width_in"]
    ) -> Float[Array, "*batch width"]:
        """One vector per clip, in the language model's width."""
        mixed = self.mix(states)
        length = jnp.sqrt(jnp.sum(jnp.square(mixed), axis=-1, keepdims=True))
        x = self.projection(mixed / jnp.maximum(length, _SMALLEST_LENGTH) * _SHARE)
        x, _ = jax.lax.scan(lambda x, block: (block(x), None), x, self.blocks)
        return x

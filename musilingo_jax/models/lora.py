"""LoRA: small matrices that are trained beside frozen ones.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models":

    y = x · kernel + (x · a · b) · alpha / rank      a [fan_in, rank], b [rank, fan_out]

`b` begins with zeros, so that training begins with the frozen model. Beside the
factors, biases may be added to frozen maps, and the scales of norms replaced (Gao et
al. 2023, "LLaMA-Adapter V2"). All of it is float32, over weights in any type (int8:
Dettmers et al. 2023, "QLoRA"), and stacked by layer like the language model, whose scan
carries both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from numpy import ndarray

from musilingo_jax.models.layers import Linear, Norm, linear, parameter, rms_norm
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.names import Names
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import setting

MAPS = ("query", "key", "value", "out", "gate", "up", "down")
"""The linear maps of a layer."""


NAMES: Names = {
    **{
        f"layers.{name}.{part}": f"tuning.layers.{{}}.{name}.{part}"
        for name in MAPS
        for part in ("a", "b", "bias")
    },
    "layers.attention_norm": "tuning.layers.{}.attention_norm",
    "layers.mlp_norm": "tuning.layers.{}.mlp_norm",
    "norm": "tuning.norm",
}
"""Our name → the one in an adapter's file; no other program writes these."""


@dataclass(frozen=True)
class TuningConfig:
    """What is trained beside a language model's frozen weights.

    Attributes:
      rank: of the factors; 0 for none.
      alpha: the factors' product counts `alpha / rank` times.
      targets: the maps that get factors, of `MAPS`.
      biases: the maps that get a bias in addition to what they have, of `MAPS`.
      norms: whether the scales of all norms of the residual stream are trained too.
    """

    rank: int = setting(at_least=0)
    alpha: float = setting(above=0)
    targets: tuple[str, ...] = setting()
    biases: tuple[str, ...] = setting()
    norms: bool = setting()

    def check(self, where: str) -> None:
        """Checks what the fields alone do not say.

        Args:
          where: the section's name.

        Raises:
          UserError: a name is not of `MAPS` or is there twice, or nothing is trained.
        """
        for key in ("targets", "biases"):
            names = getattr(self, key)
            unknown = [name for name in names if name not in MAPS]
            if unknown or len(set(names)) < len(names):
                raise UserError(
                    f"{where}.{key} is {', '.join(map(str, names))}: it must name each "
                    f"map at most once, of {', '.join(MAPS)}"
                )
        if self.rank and not self.targets:
            raise UserError(
                f"{where}.rank is {self.rank}, but {where}.targets names no map"
            )

    @property
    def anything(self) -> bool:
        """Whether anything is trained."""
        return bool(self.rank or self.biases or self.norms)


NOTHING = TuningConfig(rank=0, alpha=16.0, targets=MAPS, biases=(), norms=False)
"""Of configs that were written before anything could be trained beside the weights."""


@dataclass(frozen=True)
class MapSizes:
    """The sizes of a language model's linear maps.

    Attributes:
      depth: layers.
      width: of the residual stream.
      queries: of all heads of queries together.
      keys: of all heads of keys together, and of values.
      mlp: inside the gated mlp.
    """

    depth: int = setting(at_least=1)
    width: int = setting(at_least=1)
    queries: int = setting(at_least=1)
    keys: int = setting(at_least=1)
    mlp: int = setting(at_least=1)

    @classmethod
    def of(cls, config: LlamaConfig) -> "MapSizes":
        """Those of a language model."""
        return cls(
            depth=config.depth,
            width=config.width,
            queries=config.heads * config.head_dim,
            keys=config.key_heads * config.head_dim,
            mlp=config.mlp_width,
        )

    def ends(self) -> Mapping[str, tuple[tuple[int, str], tuple[int, str]]]:
        """(fan_in, its axis), (fan_out, its axis) of each of a layer's `MAPS`."""
        width, queries = (self.width, "embed"), (self.queries, "heads")
        keys, mlp = (self.keys, "heads"), (self.mlp, "mlp")
        return {
            "query": (width, queries),
            "key": (width, keys),
            "value": (width, keys),
            "out": (queries, width),
            "gate": (width, mlp),
            "up": (width, mlp),
            "down": (mlp, width),
        }


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LinearTuning:
    """What is added to a frozen linear map: factors, a bias, or both.

    Attributes:
      a: [fan_in, rank]; None without factors.
      b: [rank, fan_out]; None without factors.
      bias: [fan_out]; None without a bias.
      scale: how often the product of the factors counts.
    """

    a: nnx.Param | None
    b: nnx.Param | None
    bias: nnx.Param | None
    scale: float = field(metadata={"static": True})

    def __call__(
        self, x: Float[Array | ndarray, "*batch fan_in"]
    ) -> Float[Array, "*batch fan_out"]:
        """(x · a · b) · scale + bias, in float32."""
        y = jnp.zeros(())
        if self.a is not None and self.b is not None:
            inner = linear(x, self.a[...], None, None)
            y = self.scale * linear(inner, self.b[...], None, None)
        return y if self.bias is None else y + self.bias[...]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LayerTuning:
    """What is trained beside one layer, named as in `LlamaLayer`; None: nothing.

    Attributes:
      attention_norm, mlp_norm: scales in place of the frozen ones.
      query, key, value, out, gate, up, down: added to the frozen maps.
    """

    attention_norm: nnx.Param | None = None
    query: LinearTuning | None = None
    key: LinearTuning | None = None
    value: LinearTuning | None = None
    out: LinearTuning | None = None
    mlp_norm: nnx.Param | None = None
    gate: LinearTuning | None = None
    up: LinearTuning | None = None
    down: LinearTuning | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Tuning:
    """What is trained beside a whole language model.

    Attributes:
      layers: one `LayerTuning` with a leading axis of depth; in decoding, one for each
        layer, with arrays of its own.
      norm: the scale of the final norm, in place of the frozen one; None to keep that.
      config: what is trained.
      sizes: of the language model's maps; None if nothing is trained.
    """

    layers: LayerTuning | tuple[LayerTuning, ...]
    norm: nnx.Param | None
    config: TuningConfig = field(metadata={"static": True})
    sizes: MapSizes | None = field(metadata={"static": True})

    @classmethod
    def fresh(
        cls, sizes: MapSizes, tuning: TuningConfig, *, rngs: nnx.Rngs
    ) -> "Tuning":
        """The first values: factors and biases change nothing, scales are 1."""

        def norm() -> nnx.Param | None:
            return parameter(jnp.ones(sizes.width), (None,)) if tuning.norms else None

        def layer(key: jax.Array) -> LayerTuning:
            rngs = nnx.Rngs(key)
            maps = {
                name: _fresh_map(*ends, tuning, name, rngs)
                for name, ends in sizes.ends().items()
                if (tuning.rank and name in tuning.targets) or name in tuning.biases
            }
            return LayerTuning(attention_norm=norm(), mlp_norm=norm(), **maps)

        keys = jax.random.split(rngs.params(), sizes.depth)
        return cls(jax.vmap(layer)(keys), norm(), tuning, sizes)

    def unstacked(self) -> "Tuning":
        """With arrays of its own for each layer, which are copies."""
        if self.sizes is None:
            return self
        stacks, structure = jax.tree.flatten(self.layers)
        layers = [
            structure.unflatten([stack[index] for stack in stacks])
            for index in range(self.sizes.depth)
        ]
        return replace(self, layers=tuple(layers))


UNTUNED = Tuning(LayerTuning(), None, NOTHING, None)
"""Nothing is trained beside the language model."""


def _fresh_map(
    before: tuple[int, str],
    after: tuple[int, str],
    tuning: TuningConfig,
    name: str,
    rngs: nnx.Rngs,
) -> LinearTuning:
    """Factors whose product is zero, and a bias of zeros."""
    (fan_in, in_axis), (fan_out, out_axis) = before, after
    rank = tuning.rank if name in tuning.targets else 0
    a = b = bias = None
    if rank:
        # As in PEFT and LLaMA-Adapter: Kaiming's uniform values with a slope of √5.
        drawn = jax.random.uniform(rngs.params(), (fan_in, rank), minval=-1.0)
        a = parameter(fan_in**-0.5 * drawn, (in_axis, None))
        b = parameter(jnp.zeros((rank, fan_out)), (None, out_axis))
    if name in tuning.biases:
        bias = parameter(jnp.zeros(fan_out), (out_axis,))
    return LinearTuning(a, b, bias, scale=tuning.alpha / rank if rank else 0.0)


def tuned(
    frozen: Linear, beside: LinearTuning | None, x: Float[Array, "*batch fan_in"]
) -> Float[Array, "*batch fan_out"]:
    """A frozen map of x, with what is trained beside it."""
    y = frozen(x)
    return y if beside is None else y + beside(x)


def tuned_norm(
    frozen: Norm, scale: nnx.Param | None, x: Float[Array, "*batch width"]
) -> Float[Array, "*batch width"]:
    """An RMS norm of x, with a trained scale if there is one."""
    return frozen(x) if scale is None else rms_norm(x, scale[...], eps=frozen.eps)

"""Floating point operations of an update, and peak rates of devices.

A product of [m, k] and [k, n] is 2·m·k·n operations; the rest (norms, softmax, rotary
angles) is left out, as usual. Model FLOPs are the operations that the mathematics asks
for: on tokens without padding, and each once. A compiled program does more: padding,
masked pairs, layers that the backward pass computes again. `plan/program_costs.py`
counts those.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
from jax.sharding import Mesh

from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.parts import Parts

if TYPE_CHECKING:
    from musilingo_jax.training.batches import Batches

PEAK_FLOPS: dict[str, float] = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 2307e12 / 2,
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100": 989.4e12,
    "NVIDIA H200": 989.4e12,
}
"""bfloat16 operations per second of one device in matrix products, without sparsity.

The keys are the beginnings of the names that JAX gives devices (`device_kind`). There,
v5e is "TPU v5 lite", v5p "TPU v5" and v6e "TPU v6 lite"; a chip is one device, but of a
TPU7x two. Sources: for TPUs, "Peak compute per chip" in cloud.google.com/tpu/docs/v4,
/v5e, /v5p, /v6e and /tpu7x; for GPUs,
NVIDIA's data sheets of the A100, H100 (SXM unless the name states another; half of the
figure with sparsity) and H200.
"""


def peak_flops(device_kind: str) -> float | None:
    """Published bfloat16 operations per second of a device; None if unknown.

    Args:
      device_kind: as `jax.devices()[0].device_kind`, e.g. "NVIDIA H100 80GB HBM3".
    """
    # The name of a TPU must match whole: a "TPU v5 lite" is not a "TPU v5". NVIDIA's
    # names continue, for example with the memory; there the longest match counts, since
    # an "H100 PCIe" is another device than an "H100".
    fitting = [
        name
        for name in PEAK_FLOPS
        if device_kind == name
        or (name.startswith("NVIDIA") and re.match(rf"{name}[ -]", device_kind))
    ]
    return PEAK_FLOPS[max(fitting, key=len)] if fitting else None


def peak_of(mesh: Mesh) -> float | None:
    """The same of all devices of a mesh together."""
    peak = peak_flops(mesh.devices.flat[0].device_kind)
    return None if peak is None else peak * mesh.devices.size


def layer_weights(config: LlamaConfig) -> int:
    """Elements of the seven kernels of a layer, by which each token is multiplied."""
    queries = config.heads * config.head_dim
    keys = config.key_heads * config.head_dim
    attention = config.width * (2 * queries + 2 * keys)
    return attention + 3 * config.width * config.mlp_width


@dataclass(frozen=True)
class Multiplied:
    """What an update multiplies by, beside the language model's own weights.

    Attributes:
      window: elements of a bridge that turns each audio vector into a position.
      example: elements of a bridge that adds to layers, used once for each example.
      token: elements of LoRA's factors, by which each token is multiplied.
      bridge_learns: whether the bridge learns; else only what it makes is needed.
      layers_learn: whether the language model's layers learn, too.
    """

    window: int = 0
    example: int = 0
    token: int = 0
    bridge_learns: bool = True
    layers_learn: bool = False

    @classmethod
    def by(
        cls, parts: Parts, *, bridge_learns: bool, layers_learn: bool
    ) -> "Multiplied":
        """What a bridge, and what is tuned beside the layers, multiply by.

        Args:
          parts: with a bridge, and with what is tuned if anything is; their arrays, or
            only the shapes.
          bridge_learns: as in the attributes.
          layers_learn: as in the attributes.
        """
        bridge, tuning = parts.bridge, parts.tuning
        assert bridge is not None
        size = sum(leaf.size for leaf in _kernels(bridge, dimensions=2))
        # Factors have an axis of layers, too; a bias or the scale of a norm is no
        # product.
        factors = [] if tuning is None else _kernels(tuning.layers, dimensions=3)
        return cls(
            window=size if bridge.splices else 0,
            example=0 if bridge.splices else size,
            token=sum(leaf.size for leaf in factors),
            bridge_learns=bridge_learns,
            layers_learn=layers_learn,
        )


def _kernels(tree: Any, *, dimensions: int) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(tree) if leaf.ndim >= dimensions]


def step_flops(
    config: LlamaConfig,
    multiplied: Multiplied,
    *,
    examples: float,
    windows: float,
    tokens: float,
    targets: float,
    attended: float,
) -> float:
    """Model FLOPs of one update of what learns.

    A weight costs 2 operations forward and 2 backward for each vector it multiplies:
    frozen weights pass the gradient on but have none themselves, the first weights that
    learn have a gradient but do not pass it on. Layers that learn and LoRA's factors do
    both, and take the familiar 6 per weight and token; so does a bridge that adds,
    which is several layers deep. A pair of positions in attention costs
    2·heads·head_dim for its score and as many for its value, and twice that backward,
    since both factors of these products have a gradient.

    Args:
      config: the language model's shapes.
      multiplied: by what else.
      examples: in the update.
      windows: audio vectors among the words, over all examples of the update.
      tokens: positions that hold a token or an audio vector, without padding.
      targets: target tokens; logits over the vocabulary are needed for these only.
      attended: pairs of a position and one that it attends to: n·(n + 1) / 2 for each
        example of n positions.

    Returns:
      Operations, over all devices. The backward pass counts all positions, although
      it is not needed for those before the first audio vector of an example.
    """
    spliced, added = (4, 6) if multiplied.bridge_learns else (2, 2)
    bridge = spliced * multiplied.window * windows
    bridge += added * multiplied.example * examples
    each = 6 if multiplied.layers_learn else 4
    layers = each * layer_weights(config) * config.depth * tokens
    factors = 6 * multiplied.token * tokens
    pairs = 12 * config.heads * config.head_dim * config.depth * attended
    head = 4 * config.width * config.vocab * targets
    return float(bridge + layers + factors + pairs + head)


def batch_flops(
    config: LlamaConfig, multiplied: Multiplied, batches: "Batches", step: int
) -> float:
    """Model FLOPs of the update on batch `step`, counted from 0."""
    return step_flops(
        config,
        multiplied,
        examples=len(batches.clips(step)),
        windows=batches.windows(step),
        tokens=batches.tokens(step),
        targets=batches.targets(step),
        attended=batches.attended(step),
    )

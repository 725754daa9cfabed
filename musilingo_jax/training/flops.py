"""Floating point operations of an update, and peak rates of devices.

A product of [m, k] and [k, n] is 2·m·k·n operations; the rest (norms, softmax, rotary
angles) is left out, as usual. Model FLOPs are the operations that the mathematics asks
for: on tokens without padding, and each once. A compiled program does more: padding,
masked pairs, layers that the backward pass computes again. `plan/program_costs.py`
counts those.
"""

import re
from typing import TYPE_CHECKING

from jax.sharding import Mesh

from musilingo_jax.models.llama_config import LlamaConfig

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


def step_flops(
    config: LlamaConfig,
    *,
    encoder_width: int,
    windows: float,
    tokens: float,
    targets: float,
    attended: float,
    layers_learn: bool = False,
) -> float:
    """Model FLOPs of one update of what learns.

    A weight costs 2 operations forward and 2 backward for each vector it multiplies:
    frozen weights pass the gradient on but have none themselves, the adapter's weights
    have a gradient but do not pass it on. Layers that learn do both, and take the
    familiar 6 per weight and token. What is trained beside the weights is left out: of
    a LoRA of rank 16 it is half a percent. A pair of positions in attention costs
    2·heads·head_dim for its score and as many for its value, and twice that backward,
    since both factors of these products have a gradient.

    Args:
      config: the language model's shapes.
      encoder_width: of a feature vector.
      windows: audio vectors, over all examples of the update.
      tokens: positions that hold a token or an audio vector, without padding.
      targets: target tokens; logits over the vocabulary are needed for these only.
      attended: pairs of a position and one that it attends to: n·(n + 1) / 2 for each
        example of n positions.
      layers_learn: whether the layers learn, too.

    Returns:
      Operations, over all devices. The backward pass counts all positions, although
      it is not needed for those before the first audio vector of an example.
    """
    adapter = 4 * encoder_width * config.width * windows
    layers = (6 if layers_learn else 4) * layer_weights(config) * config.depth * tokens
    pairs = 12 * config.heads * config.head_dim * config.depth * attended
    head = 4 * config.width * config.vocab * targets
    return float(adapter + layers + pairs + head)


def batch_flops(
    config: LlamaConfig, batches: "Batches", step: int, *, layers_learn: bool
) -> float:
    """Model FLOPs of the update on batch `step`, counted from 0."""
    return step_flops(
        config,
        encoder_width=batches.width,
        windows=batches.windows(step),
        tokens=batches.tokens(step),
        targets=batches.targets(step),
        attended=batches.attended(step),
        layers_learn=layers_learn,
    )

"""What an update must compute, in floating point operations, and what a chip can do.

A product of [m, k] and [k, n] is 2·m·k·n operations; all else (norms, softmax, rotary
angles) is left out, as is usual. Model FLOPs are those that the mathematics asks for:
real tokens only, nothing twice. A program computes more (padding, masked pairs, layers
that are recomputed in the backward pass); `plan/program_costs.py` counts those.
"""

import re

from musilingo_jax.models.llama_config import LlamaConfig

PEAK_FLOPS: dict[str, float] = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100": 989.4e12,
    "NVIDIA H200": 989.4e12,
}
"""bfloat16 products per second of one device, two operations each, without sparsity.

By the beginning of the name that JAX gives the device (`device_kind`); v5e calls itself
"TPU v5 lite", v5p "TPU v5", v6e "TPU v6 lite". TPUs: "Peak compute per chip" in
cloud.google.com/tpu/docs/v4, /v5e, /v5p and /v6e. GPUs: NVIDIA's data sheets of the
A100, H100 (SXM unless the name says otherwise; half of what is given with sparsity) and
H200.
"""


def peak_flops(device_kind: str) -> float | None:
    """Published bfloat16 operations per second of a device; None where unknown.

    Args:
      device_kind: as `jax.devices()[0].device_kind`, e.g. "NVIDIA H100 80GB HBM3".
    """
    # TPUs have no other name, and a "TPU v5 lite" is no "TPU v5"; NVIDIA's say the
    # memory besides, and an H100 PCIe is another H100: the longest name that fits.
    fitting = [
        name
        for name in PEAK_FLOPS
        if device_kind == name
        or (name.startswith("NVIDIA") and re.match(rf"{name}[ -]", device_kind))
    ]
    return PEAK_FLOPS[max(fitting, key=len)] if fitting else None


def layer_weights(config: LlamaConfig) -> int:
    """Elements of the seven kernels of a layer: what a token is multiplied with."""
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
) -> float:
    """Model FLOPs of one update of the adapter.

    A weight costs 2 operations forward and 2 backward for each vector it multiplies:
    the frozen ones pass the gradient on but get none, the adapter's get theirs but pass
    none on. (Training all weights would be the familiar 6 per weight and token.) A pair
    of attention costs 2·heads·head_dim for its score and as many for its value, and
    twice that backward, because both sides of each product have a gradient.

    Args:
      config: the language model's shapes.
      encoder_width: of a feature vector.
      windows: audio vectors, over all examples of the update.
      tokens: positions that hold a token or an audio vector, without padding.
      targets: tokens to be said; only there are the scores of the vocabulary needed.
      attended: pairs of a position and one that it looks at: n·(n + 1) / 2 for each
        example of n positions.

    Returns:
      Operations, over all devices. The backward pass counts all positions, though
      those before the first audio vector of an example need none.
    """
    adapter = 4 * encoder_width * config.width * windows
    layers = 4 * layer_weights(config) * config.depth * tokens
    pairs = 12 * config.heads * config.head_dim * config.depth * attended
    head = 4 * config.width * config.vocab * targets
    return float(adapter + layers + pairs + head)

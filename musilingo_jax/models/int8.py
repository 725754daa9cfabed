"""The language model in 8 bits: half the size of bfloat16 in memory and bandwidth.

The weights of one output channel are stored as integers from -127 to 127 and one
float32 scale, so that the largest of them is ±127 exactly. A channel is a column of a
kernel [fan_in, fan_out]; here it becomes a row, as in released files, so that it is
contiguous, which makes the product several times as fast on CPUs:

    kernel   0.50  -0.02        values   127   -64        scale   0.00394
            -0.25   0.05                 -51   127                0.00039

No weight changes by more than half a scale. Only kernels of linear layers are stored
this way: activations and sums keep their types (`matmul.py`), and so do the embedding
and the norms.

Symmetric round-to-nearest per channel is the weight-only int8 of Dettmers et al. 2022
("LLM.int8()", section 2.1) and of every serving library since; at 8 bits, finer methods
gain nothing (Frantar et al. 2023, "GPTQ", table 2).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int8
from numpy import ndarray

from musilingo_jax.models.layers import Linear, parameter
from musilingo_jax.models.llama import Llama
from musilingo_jax.runtime.errors import UserError

CHOICES = ("", "int8")
"""What `config.model.quantization` may be; "" leaves the weights as floats."""

LARGEST = 127  # Not -128, which has no counterpart.


def check(quantization: str) -> None:
    """Checks that a quantization is one of the `CHOICES`.

    Raises:
      UserError: it is not.
    """
    if quantization not in CHOICES:
        raise UserError(
            f"config.model.quantization is {quantization!r}: choose 'int8', or '' for "
            "weights in config.model.dtype"
        )


def quantize(
    rows: Float[Array | ndarray, "*stack fan_out fan_in"],
) -> tuple[
    Int8[Array | ndarray, "*stack fan_out fan_in"],
    Float[Array | ndarray, "*stack fan_out"],
]:
    """Quantises rows, one per output channel; of NumPy arrays, in NumPy.

    NumPy and XLA agree on scales, but may round values halfway between two integers
    (one in ten thousand) differently, because XLA's division is not exact to the last
    bit.

    Returns:
      The integers, and a scale for each row. The scale of a row of zeros is 1; that of
      a row with NaN or infinity is NaN or infinity, so that every product shows it.
    """
    xp = rows.__array_namespace__()
    rows = rows.astype(jnp.float32)
    # A product, because XLA turns division by a constant into one.
    scale = xp.max(xp.abs(rows), axis=-1, keepdims=True) * (1 / LARGEST)
    scale = xp.where(scale == 0, xp.ones_like(scale), scale)
    values = xp.clip(xp.rint(rows / scale), -LARGEST, LARGEST)
    return values.astype(jnp.int8), scale[..., 0]


def quantize_language_model(llama: Llama) -> Llama:
    """The same model with the kernels of all linear layers, head included, in int8.

    A pure function of the arrays: under `jax.eval_shape` it describes such a model.
    """

    def quantized(node: Any) -> Any:
        if not isinstance(node, Linear):
            return node
        values, scale = quantize(jnp.swapaxes(node.kernel[...], -1, -2))
        fan_in, fan_out = node.kernel.get_metadata()["axes"]
        linear = jax.tree.map(lambda leaf: leaf, node)
        linear.kernel = parameter(jnp.asarray(values), (fan_out, fan_in))
        linear.scale = nnx.data(parameter(jnp.asarray(scale), (fan_out,)))
        return linear

    return jax.tree.map(quantized, llama, is_leaf=lambda n: isinstance(n, Linear))

"""The language model in 8 bits: half the memory of bfloat16, and half to read.

The weights of one output channel are stored as whole numbers from -127 to 127 and one
float32 scale, so that the largest of them is ±127 exactly. A channel is a column of a
kernel [fan_in, fan_out]; here it becomes a row, as in released files, because that lies
in one piece and the CPU's product reads it three times as fast:

    kernel   0.50  -0.02        values   127   -64        scale   0.00394
            -0.25   0.05                 -51   127                0.00039

No weight moves by more than half a scale. Only weights are stored so; activations and
sums keep their types (`products.py`), and what is no matrix of a linear layer, the
embedding and the norms, stays as it is.

Symmetric round-to-nearest per channel is the weight-only int8 of Dettmers et al. 2022
("LLM.int8()", section 2.1) and of every serving library since; at 8 bits nothing
cleverer is needed (Frantar et al. 2023, "GPTQ", table 2).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int8

from musilingo_jax.models.layers import Linear, parameter
from musilingo_jax.models.llama import Llama
from musilingo_jax.runtime.errors import UserError

CHOICES = ("", "int8")
"""What `config.model.quantization` may be; "" leaves the weights as floats."""

LARGEST = 127  # Not -128, which has no counterpart.


def check(quantization: str) -> None:
    """Refuses what is none of the `CHOICES`.

    Raises:
      UserError: it is none.
    """
    if quantization not in CHOICES:
        raise UserError(
            f"config.model.quantization is {quantization!r}: choose 'int8', or '' for "
            "weights in config.model.dtype"
        )


def quantize(
    rows: Float[Array, "*stack fan_out fan_in"],
) -> tuple[Int8[Array, "*stack fan_out fan_in"], Float[Array, "*stack fan_out"]]:
    """A row per output channel → its values and float32 scales; NumPy stays NumPy.

    Both agree on scales; of values halfway between two numbers (one in ten thousand)
    they may choose different ones, as XLA's division is not exact to the last bit.

    A row of zeros has the scale 1. One with a NaN or an infinity has that as its scale,
    so that it cannot go unnoticed.
    """
    xp = rows.__array_namespace__()
    rows = rows.astype(jnp.float32)
    # Times, because XLA makes divisions by a constant so.
    scale = xp.max(xp.abs(rows), axis=-1, keepdims=True) * (1 / LARGEST)
    scale = xp.where(scale == 0, xp.ones_like(scale), scale)
    values = xp.clip(xp.rint(rows / scale), -LARGEST, LARGEST)
    return values.astype(jnp.int8), scale[..., 0]


def dequantize(
    values: Int8[Array, "*stack fan_out fan_in"], scale: Float[Array, "*stack fan_out"]
) -> Float[Array, "*stack fan_out fan_in"]:
    """The float32 weights that values and scales stand for."""
    return values.astype(jnp.float32) * scale[..., None]


def quantize_language_model(llama: Llama) -> Llama:
    """The same model with all kernels of linear layers, the head's included, in int8.

    A pure function of the arrays: under `jax.eval_shape` it describes such a model.
    """

    def quantized(node: Any) -> Any:
        if not isinstance(node, Linear):
            return node
        values, scale = quantize(jnp.swapaxes(node.kernel[...], -1, -2))
        fan_in, fan_out = node.kernel.get_metadata()["axes"]
        linear = jax.tree.map(lambda leaf: leaf, node)
        linear.kernel = parameter(values, (fan_out, fan_in))
        linear.scale = nnx.data(parameter(scale, (fan_out,)))
        return linear

    return jax.tree.map(quantized, llama, is_leaf=lambda n: isinstance(n, Linear))

"""The weights that int8 values and scales represent."""

import jax.numpy as jnp


def dequantize(values, scale):
    """Values [*stack, fan_out, fan_in] and scales [*stack, fan_out] → float32."""
    return values.astype(jnp.float32) * scale[..., None]

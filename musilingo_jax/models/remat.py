"""What the backward pass keeps of each layer, and what it computes again.

A layer of the language model has a dozen activations, each as large as its input or
larger. Kept for the backward pass, they fill a chip; computed again, they cost time:

    policy       kept of a layer, besides its input            computed again
    nothing                                                    the whole layer
    attention    query, key, value, mixed, middle              gate, up
    dots         the same, gate, up                            no matrix product
    everything   whatever the gradient uses                    nothing

The names are those that `LlamaLayer` gives to its activations.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

POLICIES: dict[str, tuple[str, ...] | None] = {
    "nothing": (),
    "attention": ("query", "key", "value", "mixed", "middle"),
    "dots": ("query", "key", "value", "mixed", "middle", "gate", "up"),
    "everything": None,
}

Step = Callable[[jax.Array, Any, Any], jax.Array]


def recomputing(step: Step, policy: str, dtype: DTypeLike) -> Step:
    """A layer that keeps less for its backward pass.

    Args:
      step: (residual stream, layer, what is the same for all layers) → residual stream.
      policy: a key of `POLICIES`.
      dtype: in which the input of a layer is kept with the policy `nothing`.
    """
    names = POLICIES[policy]
    if names is None:
        return step
    if not names:
        return _from_input(step, dtype)
    # Inside a scan, nothing could be merged with the recomputation anyway.
    return jax.checkpoint(
        step,
        prevent_cse=False,
        policy=jax.checkpoint_policies.save_only_these_names(*names),
    )


def _from_input(step: Step, dtype: DTypeLike) -> Step:
    """A layer that keeps nothing but its input, rounded to `dtype`.

    The inputs of all layers are what a deep model keeps, and so half of its temporary
    memory if they are float32. The forward pass is exact. The backward pass is that of
    a layer whose input was rounded as its products round it anyway.
    """

    @jax.custom_vjp
    def from_input(x: jax.Array, layer: Any, common: Any) -> jax.Array:
        return step(x, layer, common)

    def forward(x: jax.Array, layer: Any, common: Any) -> tuple[jax.Array, Any]:
        return step(x, layer, common), (x.astype(dtype), layer, common)

    def backward(kept: Any, gradient: jax.Array) -> tuple[jax.Array, Any]:
        x, layer, common = kept
        _, pull = jax.vjp(step, x.astype(jnp.float32), layer, common)
        return pull(gradient)

    from_input.defvjp(forward, backward)
    return from_input

"""What the device can do: the rate of large products, and of copying memory.

The other parts are measured against these, not against a data sheet.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from on_card.part import Part, times
from on_card.sizes import Sizes

_PRODUCTS, _COPIES = 10, 10
_OUTPUTS = ("bfloat16", "float32")


@dataclass
class Ceilings:
    """The best rates that were measured; None before, or if nothing could be.

    Attributes:
      flops: operations per second in products of bfloat16.
      bandwidth: bytes per second, read and written ones together.
    """

    flops: float | None = None
    bandwidth: float | None = None

    def share_of_flops(self, rate: float) -> float | None:
        """A rate as a share of that of products."""
        return None if self.flops is None else rate / self.flops

    def share_of_bandwidth(self, rate: float) -> float | None:
        """A rate as a share of that of memory."""
        return None if self.bandwidth is None else rate / self.bandwidth


def measure_peak(sizes: Sizes, ceilings: Ceilings, part: Part) -> None:
    """Products of square matrices in bfloat16, summed in float32, of several sizes."""
    for size in sizes.products:
        for output in _OUTPUTS:
            made = part.measure(
                f"{size} × {size} × {size}, {output} out",
                lambda size=size, output=output: _product(size, output),
                size=size,
                output=output,
            )
            if made:
                rate = made["tflop_per_second"] * 1e12
                ceilings.flops = max(ceilings.flops or 0.0, rate)


def measure_copy(sizes: Sizes, ceilings: Ceilings, part: Part) -> None:
    """An array is read and written, and one is only read, as weights are."""
    for what, function in (("copied", _copy), ("read", _read)):
        made = part.measure(
            f"{sizes.copied / 2**20:,.0f} MiB {what}",
            lambda function=function: function(sizes.copied),
            bytes=sizes.copied,
        )
        if made:
            rate = made["gb_per_second"] * 1e9
            ceilings.bandwidth = max(ceilings.bandwidth or 0.0, rate)


def _product(size: int, output: str) -> dict[str, float]:
    # Of this scale, products of products keep their size.
    matrix = jax.jit(
        lambda: (
            jax.random.normal(jax.random.key(0), (size, size), jnp.bfloat16)
            * size**-0.5
        )
    )()

    @jax.jit
    def multiply(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
        def once(_: int, x: jax.Array) -> jax.Array:
            y = jnp.matmul(x, matrix, preferred_element_type=jnp.dtype(output))
            return y.astype(x.dtype)

        return jax.lax.fori_loop(0, _PRODUCTS, once, matrix)

    found = times(lambda: jax.block_until_ready(multiply(matrix)))
    operations = _PRODUCTS * 2 * size**3
    return found | {"tflop_per_second": operations / found["seconds"] / 1e12}


def _copy(size: int) -> dict[str, float]:
    array = jax.jit(lambda: jnp.zeros(size // 4, jnp.int32))()
    # In another array, or it would be one that is only written to.
    add = jax.jit(lambda array: array + 1)

    def run() -> None:
        copied = array
        for _ in range(_COPIES):
            copied = add(copied)
        jax.block_until_ready(copied)

    found = times(run)
    moved = _COPIES * 2 * array.nbytes
    return found | {"gb_per_second": moved / found["seconds"] / 1e9}


def _read(size: int) -> dict[str, float]:
    array = jax.jit(lambda: jnp.ones(size // 4, jnp.float32))()
    total = jax.jit(jnp.sum)

    def run() -> None:
        jax.block_until_ready([total(array) for _ in range(_COPIES)])

    found = times(run)
    return found | {"gb_per_second": _COPIES * array.nbytes / found["seconds"] / 1e9}

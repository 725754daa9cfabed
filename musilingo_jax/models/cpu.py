"""Everything that XLA's CPU compiler needs written differently than TPUs and GPUs.

Each function computes what the plain form beside its call computes, but for rounding.
Where the program is lowered, `jax.lax.platform_dependent` chooses between the two; only
`ROW_DTYPE` is chosen by the device of the weights. All behaviours were seen with jaxlib
0.10.2; in 0.12.0, those of `scan_in_place` and `ROW_DTYPE` are gone.
tests/models/test_cpu.py compiles the plain forms too, and fails once XLA:CPU compiles
one of them as well as its replacement: then delete that.

    given to XLA:CPU                 what it does                replaced by
    bfloat16 rows · int8 kernel      kernel → bfloat16           int8_by_digits
    scan over bfloat16 stacks        stacks → float32            scan_in_place
    rows of a bfloat16 array, read   array → float32             ROW_DTYPE
      or written in a loop
    bfloat16 convolution             operands → float32          convolution_by_products
    convolution in groups            slow loops                  fourier_convolution
    attention of many heads          all scores through memory   one_head_at_a_time
    sums over windows                slow loops                  sums_of_rows

What costs other platforms nothing is not here: the exact `gelu`, int8 kernels stored by
outputs, strided convolutions as dense ones.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int8, Num

Product = Callable[[Array, Array], Array]
Attention = Callable[[Array, Array, Array, Array], Array]

ROW_DTYPE = jnp.float32
"""Of arrays on CPUs of which a loop reads or writes a few rows: KV cache, embedding.

XLA:CPU gathers and scatters in float32 only. Of a bfloat16 array it makes a float32
copy: before the loop if the array stays the same (the embedding), and there and back in
every step if it changes (the cache).
"""


_LARGEST = 127.0


def int8_by_digits(
    x: Float[Array, "*batch fan_in"], kernel: Int8[Array, "fan_out fan_in"]
) -> Float[Array, "*batch fan_out"]:
    """x · kernelᵀ in integers: each number of x is written with two int8 digits.

    XLA:CPU multiplies int8 by int8 directly, but copies an int8 kernel to bfloat16
    before it multiplies it by bfloat16, which takes ten times as long as the product.
    One int8 digit would lose too much of x, and products of a single row copy the
    kernel anyway (`matmul.in_two_rows`); so there are two digits, and two rows:

        x           0.8000   -0.3000    0.0011       unit = max|x| / 127 = 0.0063
        high           127       -48         0
        low              0        95        44       in 254ths of a unit

    The remainder is below unit / 508, a hundredth of what bfloat16 drops from the
    largest numbers. Sums of integers are exact in any order: an int32 holds 2¹⁷
    products of 127 · 127.
    """
    rows = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    unit = jnp.max(jnp.abs(rows), axis=-1, keepdims=True) / _LARGEST
    unit = jnp.where(unit == 0, 1.0, unit)
    high = jnp.rint(rows / unit)
    low = jnp.rint((rows / unit - high) * (2 * _LARGEST))
    digits = jnp.concatenate([high, low]).astype(jnp.int8)
    sums = jax.lax.dot_general(
        digits, kernel, (((1,), (1,)), ((), ())), preferred_element_type=jnp.int32
    )
    high, low = jnp.split(sums.astype(jnp.float32), 2)
    y = (high + low / (2 * _LARGEST)) * unit
    return y.reshape(*x.shape[:-1], kernel.shape[0])


def one_head_at_a_time(attention: Attention) -> Attention:
    """An attention of as many key heads as query heads, computed head by head.

    XLA:CPU writes the scores of all heads to memory, and reads them again, at each step
    between the two products. Those of one head stay in the processor's cache. At 16
    heads and 749 positions this takes 0.15 to 0.7 of the time.
    """

    def in_turn(
        query: Float[Array, "batch time heads head_dim"],
        key: Float[Array, "batch slots heads head_dim"],
        value: Float[Array, "batch slots heads head_dim"],
        attend: Bool[Array, " batch #time slots"],
    ) -> Float[Array, "batch time heads head_dim"]:
        def one_head(operands: tuple[Array, Array, Array]) -> Array:
            query, key, value = (x[:, :, None] for x in operands)
            return attention(query, key.swapaxes(1, 3), value, attend)[:, :, 0]

        # Keys are laid out with their slots last, as the product of scores reads them.
        heads = query.transpose(2, 0, 1, 3), key.transpose(2, 0, 3, 1)
        mixed = jax.lax.map(one_head, (*heads, value.transpose(2, 0, 1, 3)))
        return mixed.transpose(1, 2, 0, 3)

    return in_turn


def sums_of_rows(
    x: Num[Array, "batch time *rest"], window: int
) -> Num[Array, "batch windows *rest"]:
    """Sums over windows of time, each window a row of its own.

    XLA:CPU takes up to twice as long for its own sums over windows. (XLA:TPU copies the
    array to make rows of it, which takes longer than the sums.)
    """
    missing = -x.shape[1] % window
    x = jnp.pad(x, ((0, 0), (0, missing), *((0, 0),) * (x.ndim - 2)))
    rows = x.reshape(x.shape[0], -1, window, *x.shape[2:])
    return jnp.sum(rows, axis=2, dtype=x.dtype)


def scan_in_place(step: Callable, carry: Any, layers: Any) -> tuple[Any, Any]:
    """`jax.lax.scan` over stacks in bfloat16 that stay where they are.

    XLA:CPU slices bfloat16 as float32. In a plain scan it moves the conversion out of
    the loop and so copies the whole stack to float32: 1.2 GB for MERT-330M, and a tenth
    of its time. The barrier ties the stack to the loop's index, so that nothing can be
    moved. Gradients of the layers are right but slow this way: use it for frozen ones.

    Args:
      step: (carry, one layer) → (carry, output).
      carry: of the first step.
      layers: a pytree of arrays [depth, …].

    Returns:
      The last carry, and the outputs, stacked.
    """

    def step_at(carry: Any, index: Int[Array, ""]) -> tuple[Any, Any]:
        stack, index = jax.lax.optimization_barrier((layers, index))
        return step(carry, jax.tree.map(lambda array: array[index], stack))

    depth = len(jax.tree.leaves(layers)[0])
    return jax.lax.scan(step_at, carry, jnp.arange(depth))


def convolution_by_products(
    x: Float[Array, "batch time channels"],
    kernel: Float[Array, "width channels features"],
    stride: int,
    product: Product,
) -> Float[Array, "batch frames features"]:
    """A convolution without padding, as a sum of matrix products.

    XLA:CPU has no convolution in bfloat16: it converts both operands to float32. Its
    products have one.

    Samples are cut into blocks of `stride`, and so is the kernel; its last piece may be
    narrower, and then covers only the first samples of a block. Width 3, stride 2:

        blocks  ab cd ef g-    frame 0 = ab · kernel[:2] + c · kernel[2]
                               frame 1 = cd · kernel[:2] + e · kernel[2]
    """
    batch, time, channels = x.shape
    width, _, features = kernel.shape
    frames = (time - width) // stride + 1
    pieces = -(-width // stride)
    blocks = frames + pieces - 1
    # Negative padding cuts off samples that belong to no frame.
    after = blocks * stride - time
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (0, after, 0), (0, 0, 0)))
    x = x.reshape(batch, blocks, stride * channels)
    total = jnp.zeros((batch, frames, features), jnp.float32)
    for piece in range(pieces):
        weights = kernel[piece * stride : (piece + 1) * stride].reshape(-1, features)
        covered = x[:, piece : piece + frames, : len(weights)]
        total += product(covered, weights)
    return total


def fourier_convolution(
    x: Float[Array, "batch time width"],
    kernel: Float[Array, "size channels width"],
    groups: int,
) -> Float[Array, "batch time width"]:
    """A grouped convolution through Fourier transforms of overlapping blocks.

    XLA:CPU has a fast path only for convolutions of one group. MERT's positional
    convolution, of 128 frames and 16 groups, takes a third to a half of the time this
    way in batches and in clips of half a minute, and about the same for one clip of ten
    seconds.

    A block of 2 · size frames gives size + 1 frames of the result; the others wrap
    around and are dropped ("overlap-save"):

        frames       0 1 2 3 4 5 6 7 8 …          size 3, blocks of 6
        block 0      · · · · · ·          →  results 0 1 2 3
        block 1              · · · · · ·  →  results 4 5 6 7

    So the kernel's spectrum, the largest array here, does not grow with time; and since
    groups are computed one after another, only one group's share of it is ever held.
    """
    batch, time, width = x.shape
    size = len(kernel)
    period, step = 2 * size, size + 1
    blocks = -(-time // step)
    after = (blocks - 1) * step + period - size // 2 - time
    x = jnp.pad(x, ((0, 0), (size // 2, after), (0, 0)))
    starts = range(0, blocks * step, step)
    x = jnp.stack([x[:, start : start + period] for start in starts], axis=1)
    x = x.reshape(batch * blocks, period, groups, -1).transpose(2, 1, 0, 3)
    kernel = kernel.reshape(size, width // groups, groups, -1).transpose(2, 0, 1, 3)
    forward, backward = fourier_matrices(period)

    def one_group(operands: tuple[Array, Array]) -> Array:
        x, kernel = operands  # [period, block, channel in], [size, in, channel out]
        real, imaginary = jnp.split(jnp.tensordot(forward, x, 1), 2)
        kernel = jnp.tensordot(forward[:, :size], kernel.astype(jnp.float32), 1)
        # The spectrum of x times the conjugate of the kernel's.
        both = jnp.concatenate([real, imaginary], axis=1)
        by_real, by_imaginary = (both @ part for part in jnp.split(kernel, 2))
        real_real, imaginary_real = jnp.split(by_real, 2, axis=1)
        real_imaginary, imaginary_imaginary = jnp.split(by_imaginary, 2, axis=1)
        spectrum = jnp.concatenate(
            [real_real + imaginary_imaginary, imaginary_real - real_imaginary]
        )
        return jnp.tensordot(backward[:step], spectrum, 1)

    y = jax.lax.map(one_group, (x, kernel))  # [group, step, block, channel out]
    return y.transpose(2, 1, 0, 3).reshape(batch, blocks * step, width)[:, :time]


def fourier_matrices(
    period: int,
) -> tuple[Float[Array, "parts period"], Float[Array, "period parts"]]:
    """The transform of `period` (an even number of) real values, and its inverse.

    The spectrum's real parts come first, then its imaginary parts: so it is a real
    array, and the products of spectra are real products. At a few hundred numbers, the
    transform takes a small part of the time of those.
    """
    frequencies = np.arange(period // 2 + 1)
    angles = 2 * np.pi / period * np.outer(frequencies, np.arange(period))
    forward = np.concatenate([np.cos(angles), -np.sin(angles)])
    # All frequencies but the lowest and the highest also represent their negatives.
    once = (frequencies == 0) | (frequencies == period // 2)
    weights = np.tile(np.where(once, 1, 2) / period, 2)
    backward = (weights[:, None] * forward).T
    return jnp.asarray(forward, jnp.float32), jnp.asarray(backward, jnp.float32)

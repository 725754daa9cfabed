"""A digest of the arrays of a training state, equal on any mesh.

A checkpoint may be written by eight devices and read by four, so its digest may depend
on neither. Here each number, as its bits, is mixed with its place in the array, and the
results are added up modulo 2³². Sums of integers are the same in any order:

    array       0.5    -1.0    0.5
    bits        3f000000    bf800000    3f000000
    mixed       mix(bits ^ mix(0))    mix(bits ^ mix(1))    mix(bits ^ mix(2))

`mix` never gives one result for two numbers, so a digest always shows a change of one
number of an array, whatever its bits become. In a second sum each result is multiplied
by an odd number that depends on its place, which makes it improbable (2⁻⁶⁴) that
several changes cancel. It is computed where the arrays are, and only the sums leave the
devices.

`mix` is the last step of MurmurHash3 (Appleby 2008).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped, UInt32


def state_digest(state: Any) -> dict[str, str]:
    """The digest of each array of a pytree, in hexadecimal digits, by its path.

    If the arrays are sharded over several processes, all of them must call this, and
    each gets all digests.
    """
    named = jax.tree.leaves_with_path(state)
    sums = jax.device_get([_sums(jnp.asarray(leaf)) for _, leaf in named])
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): "".join(
            f"{int(value):08x}" for value in pair
        )
        for (path, _), pair in zip(named, sums, strict=True)
    }


@jax.jit
def _sums(array: Shaped[Array, "*shape"]) -> UInt32[Array, "2"]:
    """Two sums over the mixed numbers of an array."""
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(array, f"uint{8 * array.dtype.itemsize}")
    words = bits.astype(jnp.uint32)
    if array.dtype.itemsize == 8:
        words ^= _mix((bits >> 32).astype(jnp.uint32))
    place = jnp.zeros(array.shape, jnp.uint32)
    for axis, size in enumerate(array.shape):
        along = jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
        place = place * jnp.uint32(size) + along
    place = _mix(place)
    mixed = _mix(words ^ place)
    sums = jnp.sum(mixed), jnp.sum(mixed * (place | 1))
    return jnp.stack(sums)


def _mix(words: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    words = (words ^ (words >> 16)) * jnp.uint32(0x85EBCA6B)
    words = (words ^ (words >> 13)) * jnp.uint32(0xC2B2AE35)
    return words ^ (words >> 16)

"""The parts of an array that this process's devices will hold, on the host.

[4, 6] sharded over two devices by columns      parts [0:4, 0:3] and [0:4, 3:6]
[4, 6] replicated on two devices                one part, [0:4, 0:6]
"""

import jax
import numpy as np
from jax.sharding import Sharding

from musilingo_jax.pretrained import block_copy


class DeviceParts:
    """The parts of an array that this process's devices will hold, to be filled.

    Attributes:
      arrays: bounds → part. A part that several devices hold is there once.
    """

    def __init__(
        self, shape: tuple[int, ...], sharding: Sharding | None, dtype: np.dtype
    ):
        """Allocates the parts.

        Args:
          shape: of the whole array.
          sharding: where it goes; None is the default device.
          dtype: of the parts.
        """
        self._shape, self._sharding = shape, sharding
        if sharding is None:
            self._boxes = {None: tuple((0, size) for size in shape)}
        else:
            indices = sharding.addressable_devices_indices_map(shape)
            self._boxes = {
                device: _box(index, shape) for device, index in indices.items()
            }
        self.arrays: dict[block_copy.Box, np.ndarray] = {}
        for box in self._boxes.values():
            if box not in self.arrays:
                sizes = [stop - start for start, stop in box]
                self.arrays[box] = block_copy.empty(sizes, dtype)

    def layer(self, index: int) -> dict[block_copy.Box, np.ndarray]:
        """The parts of one stacked layer; layers are never sharded over devices."""
        return {box[1:]: part[index, ...] for box, part in self.arrays.items()}

    def on_devices(self) -> jax.Array:
        """The array, made of the parts."""
        arrays = [
            jax.device_put(self.arrays[box], device)
            for device, box in self._boxes.items()
        ]
        if self._sharding is None:
            return arrays[0]
        return jax.make_array_from_single_device_arrays(
            self._shape, self._sharding, arrays
        )


def _box(index: tuple[slice, ...] | None, shape: tuple[int, ...]) -> block_copy.Box:
    assert index is not None, "a device of the sharding holds no part"
    pairs = zip(index, shape, strict=True)
    return tuple(piece.indices(size)[:2] for piece, size in pairs)

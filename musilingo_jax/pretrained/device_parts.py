"""An array on its way to devices: only the parts that this process's devices will hold.

[4, 6] over two devices by columns          parts [0:4, 0:3] and [0:4, 3:6]
… whole on each of them                     one part, [0:4, 0:6]
"""

import jax
import numpy as np
from jax.sharding import Sharding

from musilingo_jax.pretrained import block_copy


class DeviceParts:
    """The parts of an array that this process's devices will hold, on the host.

    Attributes:
      arrays: bounds → part. Several devices may hold the same: it is there once.
    """

    def __init__(self, shape: tuple[int, ...], place: Sharding | None, dtype: np.dtype):
        self.shape, self.place = shape, place
        self.devices = {None: tuple((0, size) for size in shape)}
        if place is not None:
            indices = place.addressable_devices_indices_map(shape)
            self.devices = {
                device: _box(index, shape) for device, index in indices.items()
            }
        self.arrays: dict[block_copy.Box, np.ndarray] = {}
        for box in self.devices.values():
            if box not in self.arrays:
                sizes = [stop - start for start, stop in box]
                self.arrays[box] = block_copy.empty(sizes, dtype)

    def layer(self, index: int) -> dict[block_copy.Box, np.ndarray]:
        """Those of one of the stacked layers, which are never spread over devices."""
        return {box[1:]: part[index, ...] for box, part in self.arrays.items()}

    def on_devices(self) -> jax.Array:
        """The array that they are parts of."""
        arrays = [
            jax.device_put(self.arrays[box], device)
            for device, box in self.devices.items()
        ]
        if self.place is None:
            return arrays[0]
        return jax.make_array_from_single_device_arrays(self.shape, self.place, arrays)


def _box(index: tuple[slice, ...], shape: tuple[int, ...]) -> block_copy.Box:
    pairs = zip(index, shape, strict=True)
    return tuple(piece.indices(size)[:2] for piece, size in pairs)

"""A module's parameters, and the released tensors that each is made of."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import nnx

from musilingo_jax.models.names import Derived, Names
from musilingo_jax.pretrained.lazy_tensors import Tensors


@dataclass(frozen=True)
class Parameter:
    """One parameter of ours and the released tensors that it is made of.

    Attributes:
      path: where it stands in the module.
      shape: of all of it, with the stacked layers first, if there are any.
      stacked: whether there are.
      spellings: the alternatives; each has, for each layer (one if not stacked), the
        names of the layer's tensors.
      derived: how a layer is made of them, when it is not one of them.
      quantized: whether it is a kernel in int8, and thus two leaves of the module: its
        values, of this shape, and then their scales, which no released tensor holds.
    """

    path: str
    shape: tuple[int, ...]
    stacked: bool
    spellings: tuple[tuple[tuple[str, ...], ...], ...]
    derived: Derived | None
    quantized: bool

    def types(self, dtype: np.dtype) -> tuple[np.dtype, ...]:
        """Of its leaves in memory, if floating-point numbers are to be `dtype`."""
        quantized = np.dtype(np.int8), np.dtype(np.float32)
        return quantized if self.quantized else (dtype,)

    @property
    def layer_shape(self) -> tuple[int, ...]:
        """Of one layer, or of all of it if no layers are stacked."""
        return self.shape[1:] if self.stacked else self.shape

    @property
    def reversed(self) -> bool:
        """Whether the released tensor has the axes in the other order."""
        return self.path.split(".")[-1] == "kernel" and not self.quantized

    def spelling(self, tensors: Tensors) -> tuple[tuple[str, ...], ...]:
        """The one that a checkpoint uses: that of which least is missing."""

        def missing(layers: Iterable[tuple[str, ...]]) -> int:
            return sum(name not in tensors for names in layers for name in names)

        return min(self.spellings, key=missing)

    def write(self, layer: np.ndarray) -> tuple[np.ndarray, ...]:
        """One layer → its tensors."""
        if self.derived is not None:
            return self.derived.write(layer.astype(np.float32))
        return (layer.T if self.reversed else layer,)

    def written_shapes(self) -> list[tuple[int, ...]]:
        """What saving this shape would write is what loading must find."""
        layer = np.broadcast_to(np.float32(1), self.layer_shape)
        return [tensor.shape for tensor in self.write(layer)]


def parameters(module: Any, names: Names) -> list[Parameter]:
    """All of a module, in the order of its leaves; `names` as in `tensors.load`."""
    found = []
    nodes = iter(
        jax.tree.leaves_with_path(
            module, is_leaf=lambda node: isinstance(node, nnx.Variable)
        )
    )
    for keys, node in nodes:
        path, shape = jax.tree_util.keystr(keys, simple=True, separator="."), node.shape
        theirs = names[path]
        derived = theirs if isinstance(theirs, Derived) else None
        spellings = ((theirs,),) if derived is None else derived.spellings
        stacked = "{}" in spellings[0][0]
        layers = range(shape[0] if stacked else 1)
        expanded = tuple(
            tuple(tuple(name.format(layer) for name in spelling) for layer in layers)
            for spelling in spellings
        )
        quantized = node.dtype == np.int8
        if quantized:
            next(nodes)  # The scale, because leaves are in the order of their names.
        found.append(Parameter(path, shape, stacked, expanded, derived, quantized))
    return found

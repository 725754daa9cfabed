"""The parameters of a module, each with the released tensors that it is made of."""

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
    """A parameter of a module, and the released tensors that it is made of.

    Attributes:
      path: its path in the module, such as "layers.query.kernel".
      shape: its whole shape; stacked layers are the first axis.
      stacked: whether it holds stacked layers.
      spellings: the alternative names of its tensors. Each spelling holds, for each
        layer (one if not stacked), the names of the layer's tensors.
      derived: how a layer is computed from its tensors; None if it is one of them.
      quantized: whether it is a kernel in int8, and thus two leaves of the module: its
        values, of this shape, and their scales, which no released tensor holds.
    """

    path: str
    shape: tuple[int, ...]
    stacked: bool
    spellings: tuple[tuple[tuple[str, ...], ...], ...]
    derived: Derived | None
    quantized: bool

    def types(self, dtype: np.dtype) -> tuple[np.dtype, ...]:
        """The types of its leaves in memory; `dtype` is that of unquantised leaves."""
        quantized = np.dtype(np.int8), np.dtype(np.float32)
        return quantized if self.quantized else (dtype,)

    @property
    def layer_shape(self) -> tuple[int, ...]:
        """The shape of one layer, or the whole shape if it is not stacked."""
        return self.shape[1:] if self.stacked else self.shape

    @property
    def reversed(self) -> bool:
        """Whether the released tensor has its axes in reversed order."""
        return self.path.split(".")[-1] == "kernel" and not self.quantized

    def spelling(self, tensors: Tensors) -> tuple[tuple[str, ...], ...]:
        """The spelling that a checkpoint uses: the one that lacks the fewest names."""

        def missing(layers: Iterable[tuple[str, ...]]) -> int:
            return sum(name not in tensors for names in layers for name in names)

        return min(self.spellings, key=missing)

    def write(self, layer: np.ndarray) -> tuple[np.ndarray, ...]:
        """The tensors that a layer is stored as."""
        if self.derived is not None:
            return self.derived.write(layer.astype(np.float32))
        return (layer.T if self.reversed else layer,)

    def written_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the tensors of a layer, which a file must have.

        Those of a derived parameter are computed with an array of its size.
        """
        if self.derived is None:
            shape = self.layer_shape
            return [shape[::-1] if self.reversed else shape]
        layer = np.broadcast_to(np.float32(1), self.layer_shape)
        return [tensor.shape for tensor in self.write(layer)]


def parameters(module: Any, names: Names) -> list[Parameter]:
    """All parameters of a module, in the order of its leaves.

    Args:
      module: the module; an abstract one is enough.
      names: as in `tensor_map.load`.
    """
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
        spellings = theirs.spellings if isinstance(theirs, Derived) else ((theirs,),)
        stacked = "{}" in spellings[0][0]
        layers = range(shape[0] if stacked else 1)
        expanded = tuple(
            tuple(tuple(name.format(layer) for name in spelling) for layer in layers)
            for spelling in spellings
        )
        quantized = node.dtype == np.int8
        if quantized:
            next(nodes)  # Skips its scale: leaves are in the order of their names.
        found.append(Parameter(path, shape, stacked, expanded, derived, quantized))
    return found

"""Tensors that are checked for NaN and infinity while they are read.

A model with one such number answers with empty texts, and no later step finds out why.
So every weight that is loaded, converted or written passes here. Only a block of a few
megabytes is looked at, which is in the processor's cache: it was read a moment ago.

    bfloat16   0 01111111 0000000    1.0          as integers    0x3f80
               0 11111111 0000000    infinity                    0x7f80
               0 11111111 1000000    NaN                         0x7fc0
               1 11111111 0000000    -infinity                   0xff80

The largest of the numbers as signed integers shows whether one of the positive numbers
is not finite, and the largest as unsigned integers does so for the negative ones.
"""

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import Shaped

from musilingo_jax.pretrained.lazy_tensors import LazyTensor, Tensors
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import one_line

_LOWEST = {
    np.dtype(np.float64): 0x7FF0_0000_0000_0000,
    np.dtype(np.float32): 0x7F80_0000,
    np.dtype(np.float16): 0x7C00,
    np.dtype(ml_dtypes.bfloat16): 0x7F80,
    np.dtype(ml_dtypes.float8_e4m3fn): 0x7F,  # Its only NaN; it has no infinity.
    np.dtype(ml_dtypes.float8_e5m2): 0x7C,
}
"""Type → the bits of its infinity; larger ones are NaN."""


@dataclass(frozen=True)
class FiniteTensor:
    """A tensor in a file; `tensor[index]` reads that part of it, and checks it.

    Attributes:
      tensor: what is read.
      name: its name, for messages.
      source: the folder or file that it is in, for messages.
      cast: the type of what is returned; None for the stored type.
    """

    tensor: LazyTensor
    name: str
    source: str
    cast: np.dtype | None = None

    @property
    def where(self) -> str:
        """Its source and name, for messages."""
        return f"{one_line(self.source)}: {one_line(self.name)}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        return self.tensor.shape

    @property
    def dtype(self) -> str:
        """Its stored type as safetensors spells it."""
        return self.tensor.dtype

    @property
    def nbytes(self) -> int:
        """The size of all of its values in the file."""
        return self.tensor.nbytes

    def __getitem__(self, index: Any) -> np.ndarray:
        """A part of the tensor.

        Raises:
          UserError: it contains NaN or infinity, or a number that is too large for
            `cast`; or it cannot be read.
        """
        part = self.tensor[index]
        check_finite(part, self.where)
        return part if self.cast is None else cast_finite(part, self.cast, self.where)


def finite(tensors: Tensors, source: str) -> dict[str, FiniteTensor]:
    """The same tensors, each as a `FiniteTensor`.

    Args:
      tensors: by name.
      source: the folder or file that they are in, for messages.
    """
    return {name: FiniteTensor(t, name, source) for name, t in tensors.items()}


def is_finite(array: Shaped[np.ndarray, "..."]) -> bool:
    """Whether no number is NaN or infinite; integers never are."""
    lowest = _LOWEST.get(array.dtype)
    if lowest is None or not array.size:
        return True
    width = array.dtype.itemsize
    negative = lowest + (1 << (8 * width - 1))
    return bool(
        array.view(f"i{width}").max() < lowest
        and array.view(f"u{width}").max() < negative
    )


def check_finite(array: Shaped[np.ndarray, "..."], where: str) -> None:
    """Checks weights that were read.

    Args:
      array: the weights.
      where: their file and name, for the message.

    Raises:
      UserError: one is NaN or infinite.
    """
    if not is_finite(array):
        kind = "NaN" if np.isnan(array.astype(np.float32)).any() else "infinity"
        raise UserError(
            f"{where} contains {kind}, so the model could compute nothing: the file is "
            "damaged, or the training, merge or conversion that wrote it failed; get "
            "it from its source again, or make it again"
        )


def cast_finite(
    array: Shaped[np.ndarray, "..."], dtype: np.dtype, where: str
) -> Shaped[np.ndarray, "..."]:
    """Finite weights in another type.

    Args:
      array: the weights.
      dtype: the type.
      where: their file and name, for the message.

    Raises:
      UserError: a number is too large for the type, and would be infinite.
    """
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    both = {array.dtype, dtype}
    narrower = _LOWEST.keys() >= both and _is_narrower(dtype, array.dtype)
    if narrower and not is_finite(cast):
        raise UserError(
            f"{where} has numbers that are too large for {dtype.name}: use "
            f"{'bfloat16' if dtype.itemsize == 2 else 'float32'} instead"
        )
    return cast


def _is_narrower(dtype: np.dtype, than: np.dtype) -> bool:
    """Whether the largest number of a type is smaller than that of another."""
    return float(ml_dtypes.finfo(dtype).max) < float(ml_dtypes.finfo(than).max)

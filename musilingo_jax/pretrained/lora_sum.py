"""A matrix with a LoRA added to it, computed some rows at a time, when it is read.

    rows 2 and 3 of W + scale · B A

    W  · · · · ·      B  · ·      A  a a a a a
       · · · · ·         · ·         a a a a a
       w w w w w         b b
       w w w w w         b b

So a matrix is never in memory as a whole unless it is asked for as a whole. All numbers
are converted to float32 before the first product, and the sum is float32: it is rounded
once, to the type that is asked for.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from musilingo_jax.pretrained.finite_tensors import is_finite
from musilingo_jax.pretrained.lazy_tensors import LazyTensor, leading_rows
from musilingo_jax.runtime.errors import UserError

_BLOCK = 2**20  # Numbers that are added at once; they stay in the processor's cache.


@dataclass(frozen=True)
class LoraSum:
    """base + scale · B A in float32; `tensor[index]` computes the rows it needs.

    Attributes:
      base: the matrix that is added to, [out, in]; or an embedding, [rows, width].
      a: A, [r, in]; of an embedding [r, rows].
      b: B, [out, r]; of an embedding [width, r].
      scale: of the product.
      embeds: whether the base is an embedding, to which (B A)ᵀ is added.
      where: the LoRA and the name of the matrix, for messages.
    """

    base: LazyTensor
    a: LazyTensor
    b: LazyTensor
    scale: float
    embeds: bool
    where: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        return tuple(self.base.shape)

    @property
    def dtype(self) -> str:
        """Float32, so that the sum is rounded once: to the type that is asked for."""
        return "F32"

    @property
    def nbytes(self) -> int:
        """The size of all of its values."""
        return 4 * math.prod(self.shape)

    def __getitem__(self, index: Any) -> np.ndarray:
        """A part of the sum.

        Raises:
          UserError: a number of it is too large, though the base's is not.
        """
        rows, index = leading_rows(self.shape, index)
        first, last = rows.start, rows.stop
        if self.embeds:
            left, right = self.a[:, first:last].T, self.b[...].T
        else:
            left, right = self.b[first:last], self.a[...]
        left, right = left.astype(np.float32), right.astype(np.float32)
        total = np.empty((len(rows), self.shape[1]), np.float32)
        step = max(1, _BLOCK // max(1, self.shape[1]))
        # What is not finite is found in the sum, so numpy need not warn about it. If
        # it is in the base, whoever reads the sum says so.
        with np.errstate(invalid="ignore", over="ignore"):
            for start in range(0, len(rows), step):
                block = slice(start, min(start + step, len(rows)))
                here = total[block]
                np.matmul(left[block], right, out=here)
                here *= np.float32(self.scale)
                base = self.base[first + block.start : first + block.stop]
                here += base.astype(np.float32)
                if not is_finite(here) and is_finite(base):
                    raise UserError(
                        f"{self.where}: what is added is too large, times the scale "
                        f"{self.scale:g}: the LoRA is damaged, or its training failed; "
                        "get it from its source again"
                    )
        return np.asarray(total[index])

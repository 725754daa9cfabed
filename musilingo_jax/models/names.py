"""Rows of a NAMES table that are more than a renaming."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Derived:
    """A parameter computed from several released tensors.

    Attributes:
      spellings: the alternative names of the released tensors, each alternative a
        tuple of names (with `{}` for the layer index, if stacked). The first one is
        written.
      read: released arrays, in the order of a spelling → our array.
      write: our array → released arrays, in the same order; `read(*write(x))` is x.
    """

    spellings: tuple[tuple[str, ...], ...]
    read: Callable[..., np.ndarray]
    write: Callable[[np.ndarray], tuple[np.ndarray, ...]]


Names = dict[str, str | Derived]
"""Our parameter path → the released name, or how it is derived from several."""

"""Writes a module as the tensors of a released file: `tensor_map.load` reads them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.typing import DTypeLike

from musilingo_jax.models.names import Names
from musilingo_jax.pretrained import block_copy
from musilingo_jax.pretrained.finite_tensors import cast_finite, is_finite
from musilingo_jax.pretrained.parameters import Parameter, parameters
from musilingo_jax.pretrained.safetensors_writer import SafetensorsWriter, write_config
from musilingo_jax.pretrained.tensor_map import number_type
from musilingo_jax.runtime.errors import UserError


def layout(
    module: Any, names: Names, *, dtype: DTypeLike
) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """The name, shape and type of each tensor that a module is stored as, in order.

    Args:
      module: the module; an abstract one is enough.
      names: our parameter path → released name.
      dtype: the stored type.

    Raises:
      UserError: the module is quantised, as in `written`.
    """
    dtype = number_type(dtype)
    return {
        name: (shape, dtype)
        for row in _exact(module, names)
        for written in row.spellings[0]
        for name, shape in zip(written, row.written_shapes(), strict=True)
    }


def written(
    module: Any, names: Names, *, dtype: DTypeLike
) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors that a module is stored as, in the order of `layout`.

    One layer of one parameter is on the host at a time. If the module is sharded over
    several processes, all of them must call this, and each gets all tensors.

    Raises:
      UserError: a number is too large for `dtype`; or the module is quantised, so that
        its weights are rounded and a file would not hold the original model.
    """
    dtype = number_type(dtype)
    for row, leaf in zip(_exact(module, names), jax.tree.leaves(module), strict=True):
        for layer, spelled in enumerate(row.spellings[0]):
            array = _on_host(leaf[layer] if row.stacked else leaf)
            for name, tensor in zip(spelled, row.write(array), strict=True):
                yield name, _cast(name, tensor, dtype)


def save(
    module: Any,
    names: Names,
    folder: Path,
    *,
    dtype: DTypeLike,
    config: Mapping[str, Any],
    metadata: Mapping[str, str],
    shard_bytes: int,
) -> None:
    """Writes the safetensors and `config.json` of a module.

    All files are complete under temporary names before any of them replaces an old
    file. The config comes last, because a folder without one is not a model folder. If
    there are several processes, all must call this, and the first one writes.

    Args:
      module: the parameters.
      names: our parameter path → released name.
      folder: created if needed; other files in it stay.
      dtype: the stored type.
      config: the content of `config.json`, to which the dtype is added.
      metadata: text for the headers of the safetensors files.
      shard_bytes: the largest size of a file.

    Raises:
      UserError: a number is too large for `dtype`, or the disk is full.
    """
    dtype = number_type(dtype)
    stored = written(module, names, dtype=dtype)
    if jax.process_index() != 0:
        if any(map(_is_elsewhere, jax.tree.leaves(module))):
            for _ in stored:  # Sends this process's parts of the arrays to the first.
                pass
        return
    kinds = layout(module, names, dtype=dtype)
    with SafetensorsWriter(
        folder, kinds, shard_bytes=shard_bytes, metadata=metadata
    ) as writer:
        for name, array in stored:
            writer.write(name, array)
    write_config(folder, dict(config) | {"dtype": dtype.name})


def _exact(module: Any, names: Names) -> list[Parameter]:
    """The parameters of a module.

    Raises:
      UserError: the module is quantised.
    """
    rows = parameters(module, names)
    if any(row.quantized for row in rows):
        raise UserError(
            "a language model in int8 is not written to files, because its weights are "
            "rounded: load it with config.model.quantization = '' to write it"
        )
    return rows


def _is_elsewhere(leaf: Any) -> bool:
    """Whether other processes hold parts of an array."""
    return isinstance(leaf, jax.Array) and not leaf.is_fully_addressable


def _on_host(array: Any) -> np.ndarray:
    if _is_elsewhere(array):
        return multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)


def _cast(name: str, tensor: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The tensor in another type, in C order."""
    if not is_finite(tensor):
        raise UserError(
            f"{name} contains NaN or infinity, so the module is of no use and is not "
            "saved"
        )
    cast = cast_finite(tensor, dtype, name)
    if cast.flags.c_contiguous or not cast.flags.f_contiguous:
        return np.asarray(cast, order="C")
    copied = np.empty(cast.shape, dtype)
    block_copy.transpose(copied, cast.T)
    return copied

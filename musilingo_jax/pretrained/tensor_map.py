"""The parameters of a module ↔ the tensors of released files.

A module is described once, by its module, and its files once, by the NAMES table beside
it. Everything here follows from the two: the loader walks the parameters of the module
without making any, looks each up in the table, and reads only the parts that this
process's devices hold.

    ours      layers.query.kernel [3, 128, 64]     all layers stacked: [layer, in, out]
    theirs    model.layers.0.self_attn.q_proj.weight [64, 128]               [out, in]
              model.layers.1.… [64, 128],  model.layers.2.… [64, 128]

Our `kernel` is their weight with all axes reversed (linear maps and convolutions
alike); all else is copied; rows that are neither are `Derived`.
"""

import contextlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, Sharding
from jax.typing import DTypeLike

from musilingo_jax.models.names import Names
from musilingo_jax.pretrained import block_copy
from musilingo_jax.pretrained.device_parts import DeviceParts
from musilingo_jax.pretrained.lazy_tensors import LazyTensor, Tensors
from musilingo_jax.pretrained.parameters import Parameter, parameters
from musilingo_jax.pretrained.safetensors_writer import SafetensorsWriter, write_config
from musilingo_jax.pretrained.tensor_files import CONFIG
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.sharding import shardings

_FLOATING = {"F64", "F32", "F16", "BF16"}
_THREADS = 16  # at most; each holds some megabytes


def load(
    abstract_module: Any,
    names: Names,
    ignored: Sequence[str],
    tensors: Tensors,
    *,
    source: str,
    dtype: DTypeLike,
    mesh: Mesh | None,
) -> Any:
    """Fills an abstract module with released tensors.

    Memory holds the arrays and a few megabytes more; on accelerators, besides, one
    parameter (of all layers) on its way to the devices.

    Args:
      abstract_module: the module, made under `jax.eval_shape`.
      names: our parameter path → released name, for every parameter of the module.
      ignored: patterns of released tensors that have no use here.
      tensors: released name → tensor, read when it is asked for.
      source: what the tensors are called in messages: a folder or a name.
      dtype: of the arrays in memory, whatever is stored.
      mesh: where the arrays go, as `sharding.shardings` says; None is one device.

    Returns:
      The module with arrays.

    Raises:
      UserError: tensors are missing, unused or of another shape or kind than the
        module's, then all of them in one message; or a file cannot be read.
    """
    dtype = _number_type(dtype)
    rows = parameters(abstract_module, names)
    _check(rows, ignored, tensors, source)
    leaves, structure = jax.tree.flatten(abstract_module)
    places = [None] * len(leaves)
    if mesh is not None:
        places = jax.tree.leaves(shardings(abstract_module, mesh))
    arrays = []
    # Twice as many as processors: half of them wait for the disk.
    pool = ThreadPoolExecutor(min(_THREADS, 2 * (os.cpu_count() or 1)))
    try:
        for row in rows:
            read = _read_quantized if row.quantized else _read
            here = places[len(arrays) :]
            # Accelerators copy in the background, and the host's memory is not theirs.
            arrays += jax.block_until_ready(read(row, here, tensors, dtype, pool))
    finally:
        pool.shutdown(cancel_futures=True)
    return structure.unflatten(arrays)


def abstract(
    abstract_module: Any, names: Names, *, dtype: DTypeLike, mesh: Mesh
) -> Any:
    """What `load` would give, without numbers: each leaf knows its type and place."""
    dtype = _number_type(dtype)
    rows = parameters(abstract_module, names)
    types = [kind for row in rows for kind in row.types(dtype)]
    leaves, structure = jax.tree.flatten(abstract_module)
    places = jax.tree.leaves(shardings(abstract_module, mesh))
    return structure.unflatten(
        jax.ShapeDtypeStruct(leaf.shape, kind, sharding=place)
        for leaf, kind, place in zip(leaves, types, places, strict=True)
    )


def check(
    abstract_module: Any,
    names: Names,
    ignored: Sequence[str],
    tensors: Tensors,
    *,
    source: str,
) -> None:
    """What `load` does first; only names, shapes and types are looked at.

    Raises:
      UserError: as `load`, for arguments of the same meaning.
    """
    _check(parameters(abstract_module, names), ignored, tensors, source)


def without(tensors: Tensors, ignored: Sequence[str]) -> dict[str, LazyTensor]:
    """The tensors whose names are like none of the patterns."""
    useless = re.compile("|".join(f"(?:{pattern})" for pattern in ignored) or r"(?!)")
    return {name: t for name, t in tensors.items() if not useless.fullmatch(name)}


def layout(
    module: Any, names: Names, *, dtype: DTypeLike
) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """The name, shape and type of each tensor that a module is stored as, in order.

    Args:
      module: the module; an abstract one will do.
      names: our parameter path → released name.
      dtype: as stored.

    Raises:
      UserError: as `written`, if it is quantised.
    """
    dtype = _number_type(dtype)
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

    One layer of one parameter is on the host at a time. Of a module that is spread over
    several processes, all of them must ask, and each gets all.

    Raises:
      UserError: a number is too large for `dtype`, or the module is quantised: what
        was rounded to 8 bits is not the model any more that others expect in a file.
    """
    dtype = _number_type(dtype)
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
    """Writes the safetensors and `config.json` of a module: the inverse of `load`.

    All is complete under other names before any of it replaces its predecessor, and the
    config comes last: a folder without one is no model folder. With several processes
    all must call this, and the first one writes.

    Args:
      module: the parameters.
      names: our parameter path → released name.
      folder: made if need be; other files in it stay.
      dtype: as stored.
      config: the content of `config.json`, to which the dtype is added.
      metadata: notes for the headers of the safetensors files.
      shard_bytes: of a file, at most.

    Raises:
      UserError: a number is too large for `dtype`, or the disk is full.
    """
    dtype = _number_type(dtype)
    stored = written(module, names, dtype=dtype)
    if jax.process_index() != 0:
        if any(map(_is_elsewhere, jax.tree.leaves(module))):
            for _ in stored:  # The first process needs our parts of the arrays.
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
    """The parameters of a module that may be written, or a refusal."""
    rows = parameters(module, names)
    if any(row.quantized for row in rows):
        raise UserError(
            "a language model in int8 is not written to files, for its weights are "
            "rounded: load it with config.model.quantization = '' to write it"
        )
    return rows


def _check(
    rows: Iterable[Parameter], ignored: Sequence[str], tensors: Tensors, source: str
) -> None:
    """Raises one error that names all tensors in which a checkpoint is not ours."""
    missing, misfits, used = [], [], set()
    for row in rows:
        shapes = row.written_shapes()
        for names in row.spelling(tensors):
            used.update(names)
            for name, shape in zip(names, shapes, strict=True):
                if name not in tensors:
                    missing.append(name)
                    continue
                found, kind = tuple(tensors[name].shape), tensors[name].dtype
                if found != shape:
                    misfits.append(f"{name} {list(found)} instead of {list(shape)}")
                elif kind not in _FLOATING:
                    misfits.append(f"{name} {kind} instead of floating-point numbers")
    unused = [name for name in sorted(without(tensors, ignored)) if name not in used]
    problems = {"missing": missing, "unused": unused, "misshapen": misfits}
    found = [f"{kind}: {_listing(lines)}" for kind, lines in problems.items() if lines]
    if found:
        raise UserError(
            f"{source}: the tensors are not those that its {CONFIG} describes; "
            + "; ".join(found)
        )


def _listing(lines: Iterable[str]) -> str:
    """All of them; those that differ only in the layer as one: `layers.{0,1,2}.up`."""
    layers = defaultdict(list)
    for line in lines:
        pattern = re.sub(r"\.\d+\.", ".{}.", line, count=1)
        layers[pattern] += re.findall(r"\.(\d+)\.", line)[:1]
    alone, several = "{}", "{{{}}}"
    return ", ".join(
        pattern.replace(
            "{}", (several if n[1:] else alone).format(",".join(sorted(n, key=int)))
        )
        for pattern, n in layers.items()
    )


def _read(
    row: Parameter,
    places: Sequence[Sharding | None],
    tensors: Tensors,
    dtype: np.dtype,
    pool: ThreadPoolExecutor,
) -> list[jax.Array]:
    """One parameter, where the first of `places` says; None is the usual device."""
    parts = DeviceParts(row.shape, places[0], dtype)
    futures = []
    for layer, names in enumerate(row.spelling(tensors)):
        inside = parts.layer(layer) if row.stacked else parts.arrays
        if row.derived is not None or not row.layer_shape:
            futures.append(pool.submit(_read_whole, row, names, tensors, inside))
            continue
        if row.reversed:
            inside = {box[::-1]: part for box, part in inside.items()}
        futures += block_copy.read(tensors[names[0]], inside, pool, turned=row.reversed)
    for future in futures:
        future.result()
    return [parts.on_devices()]


def _read_quantized(
    row: Parameter,
    places: Sequence[Sharding | None],
    tensors: Tensors,
    dtype: np.dtype,
    pool: ThreadPoolExecutor,
) -> list[jax.Array]:
    """A kernel's values and scales, where the first two of `places` say."""
    shapes = row.shape, row.shape[:-1]
    values, scales = (
        DeviceParts(shape, place, kind)
        for shape, place, kind in zip(shapes, places[:2], row.types(dtype), strict=True)
    )
    futures = []
    for layer, (name,) in enumerate(row.spelling(tensors)):
        inside = values.layer(layer) if row.stacked else values.arrays
        around = scales.layer(layer) if row.stacked else scales.arrays
        futures += block_copy.read_quantized(tensors[name], inside, around, pool)
    for future in futures:
        future.result()
    return [values.on_devices(), scales.on_devices()]


def _read_whole(
    row: Parameter,
    names: Sequence[str],
    tensors: Tensors,
    parts: Mapping[block_copy.Box, np.ndarray],
) -> None:
    """Fills the parts of one layer from all of its tensors."""
    whole = [tensors[name][...].astype(np.float32) for name in names]
    layer = whole[0] if row.derived is None else row.derived.read(*whole)
    for box, part in parts.items():
        part[...] = layer[tuple(slice(*pair) for pair in box)]


def _is_elsewhere(leaf: Any) -> bool:
    """Whether other processes hold parts of it."""
    return isinstance(leaf, jax.Array) and not leaf.is_fully_addressable


def _on_host(array: Any) -> np.ndarray:
    if _is_elsewhere(array):
        return multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)


def _cast(name: str, tensor: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The tensor in another type, its rows in one piece each."""
    with np.errstate(over="ignore"):
        cast = tensor.astype(dtype, copy=False)
    if jnp.finfo(dtype).max < jnp.finfo(tensor.dtype).max and np.any(
        ~np.isfinite(cast) & np.isfinite(tensor)
    ):
        raise UserError(
            f"{name}: has numbers too large for {dtype.name}; save it as float32"
        )
    if cast.flags.c_contiguous or not cast.flags.f_contiguous:
        return np.asarray(cast, order="C")
    turned = np.empty(cast.shape, dtype)
    block_copy.transpose(turned, cast.T)
    return turned


def _number_type(dtype: DTypeLike) -> np.dtype:
    with contextlib.suppress(TypeError):
        if jnp.issubdtype(np.dtype(dtype), jnp.floating):
            return np.dtype(dtype)
    raise UserError(f"dtype {dtype!r}: no such type; use float32, bfloat16 or float16")

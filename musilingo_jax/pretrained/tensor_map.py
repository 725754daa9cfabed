"""Loads the tensors of released files into the parameters of a module.

A module declares its parameters, and the NAMES table beside it the names of its files'
tensors. Everything here follows from the two: the loader walks the parameters of an
abstract module, looks each up in the table, and reads only the parts that this
process's devices hold.

    ours      layers.query.kernel [3, 128, 64]     all layers stacked: [layer, in, out]
    theirs    model.layers.0.self_attn.q_proj.weight [64, 128]               [out, in]
              model.layers.1.… [64, 128],  model.layers.2.… [64, 128]

Our `kernel` is their weight with all axes reversed, for linear maps and convolutions
alike. Every other tensor is copied. Rows of the table that are neither are `Derived`.
`pretrained/module_writer.py` is the way back.
"""

import contextlib
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh, Sharding
from jax.typing import DTypeLike

from musilingo_jax.models.names import Names
from musilingo_jax.pretrained import block_copy
from musilingo_jax.pretrained.device_parts import DeviceParts
from musilingo_jax.pretrained.finite_tensors import (
    FiniteTensor,
    cast_finite,
    finite,
)
from musilingo_jax.pretrained.lazy_tensors import Tensors
from musilingo_jax.pretrained.parameters import Parameter, parameters
from musilingo_jax.pretrained.tensor_files import CONFIG
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import one_line
from musilingo_jax.runtime.sharding import shardings
from musilingo_jax.runtime.threads import MOST_THREADS

_FLOATING = {"F64", "F32", "F16", "BF16"}


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

    Memory holds the arrays and a few megabytes more; with accelerators, also one
    parameter (all of its layers) on its way to the devices.

    Args:
      abstract_module: the module, made under `jax.eval_shape`.
      names: our parameter path → released name, for every parameter of the module.
      ignored: patterns of released tensors that are not used.
      tensors: released name → tensor, read when it is indexed.
      source: the folder or name of the tensors, for messages.
      dtype: type of the arrays in memory, whatever the stored type is.
      mesh: where the arrays go, as `sharding.shardings` decides; None is one device.

    Returns:
      The module with arrays.

    Raises:
      UserError: tensors are missing, unused, or have another shape or type than the
        module's parameters (one message names all of them); one contains NaN, infinity
        or a number that is too large for `dtype`; or a file cannot be read.
    """
    dtype = number_type(dtype)
    rows = parameters(abstract_module, names)
    _check(rows, ignored, tensors, source)
    checked = finite(tensors, source)
    leaves, structure = jax.tree.flatten(abstract_module)
    places = [None] * len(leaves)
    if mesh is not None:
        places = jax.tree.leaves(shardings(abstract_module, mesh))
    arrays = []
    # Twice as many threads as processors, because half of them wait for the disk.
    pool = ThreadPoolExecutor(min(MOST_THREADS, 2 * (os.cpu_count() or 1)))
    try:
        for row in rows:
            read = _read_quantized if row.quantized else _read
            here = places[len(arrays) :]
            # Accelerators copy in the background. Waiting bounds the host's memory.
            arrays += jax.block_until_ready(read(row, here, checked, dtype, pool))
    finally:
        pool.shutdown(cancel_futures=True)
    return structure.unflatten(arrays)


def abstract(
    abstract_module: Any,
    names: Names,
    *,
    dtype: DTypeLike,
    mesh: Mesh | AbstractMesh,
) -> Any:
    """What `load` would return, as shapes, types and shardings without values."""
    dtype = number_type(dtype)
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
    """Checks the names, shapes and types of the tensors, as `load` does first.

    Raises:
      UserError: as `load`, whose arguments these are.
    """
    _check(parameters(abstract_module, names), ignored, tensors, source)


def without(tensors: Tensors, ignored: Sequence[str]) -> Tensors:
    """The tensors whose names match none of the patterns."""
    useless = re.compile("|".join(f"(?:{pattern})" for pattern in ignored) or r"(?!)")
    return {name: t for name, t in tensors.items() if not useless.fullmatch(name)}


def number_type(dtype: DTypeLike) -> np.dtype:
    """`dtype` as numpy knows it.

    Raises:
      UserError: it is not a floating-point type.
    """
    with contextlib.suppress(TypeError):
        if jnp.issubdtype(np.dtype(dtype), jnp.floating):
            return np.dtype(dtype)
    raise UserError(
        f"dtype {dtype!r}: is not supported; use float32, bfloat16 or float16"
    )


def _check(
    rows: Iterable[Parameter], ignored: Sequence[str], tensors: Tensors, source: str
) -> None:
    """Raises one UserError that names all tensors which do not fit the module."""
    missing, misfits, used = [], [], set()
    for row in rows:
        for names in row.spelling(tensors):
            used.update(names)
            absent = [name for name in names if name not in tensors]
            missing += absent
            held = sum(math.prod(tensors[n].shape) for n in names if n in tensors)
            if absent:
                continue
            if row.derived is not None and held < math.prod(row.layer_shape):
                # So what is computed is never larger than the file.
                misfits += [
                    f"{name} {list(tensors[name].shape)} instead of what makes "
                    f"{list(row.layer_shape)}"
                    for name in names
                ]
                continue
            for name, shape in zip(names, row.written_shapes(), strict=True):
                found, kind = tuple(tensors[name].shape), tensors[name].dtype
                if found != shape:
                    misfits.append(f"{name} {list(found)} instead of {list(shape)}")
                elif kind not in _FLOATING:
                    misfits.append(f"{name} {kind} instead of floating-point numbers")
    unused = [name for name in sorted(without(tensors, ignored)) if name not in used]
    problems = {"missing": missing, "unused": unused, "misshapen": misfits}
    found = [
        f"{kind}: {one_line(_listing(lines))}"
        for kind, lines in problems.items()
        if lines
    ]
    if found:
        raise UserError(
            f"{source}: the tensors do not fit its {CONFIG}; " + "; ".join(found)
        )


def _listing(lines: Iterable[str]) -> str:
    """All lines; those that differ only in the layer as one: `layers.{0,1,2}.up`."""
    layers = defaultdict(list)
    for line in lines:
        pattern = re.sub(r"\.\d+\.", ".{}.", line, count=1)
        layers[pattern] += re.findall(r"\.(\d+)\.", line)[:1]
    joined = {
        pattern: ",".join(sorted(numbers, key=int))
        for pattern, numbers in layers.items()
    }
    return ", ".join(
        pattern.replace("{}", f"{{{numbers}}}" if "," in numbers else numbers)
        for pattern, numbers in joined.items()
    )


def _read(
    row: Parameter,
    places: Sequence[Sharding | None],
    tensors: Mapping[str, FiniteTensor],
    dtype: np.dtype,
    pool: ThreadPoolExecutor,
) -> list[jax.Array]:
    """One parameter, with the first of the shardings; None is the default device."""
    parts = DeviceParts(row.shape, places[0], dtype)
    futures = []
    for layer, names in enumerate(row.spelling(tensors)):
        inside = parts.layer(layer) if row.stacked else parts.arrays
        if row.derived is not None or not row.layer_shape:
            futures.append(pool.submit(_read_whole, row, names, tensors, inside))
            continue
        if row.reversed:
            inside = {box[::-1]: part for box, part in inside.items()}
        tensor = replace(tensors[names[0]], cast=dtype)
        futures += block_copy.read(tensor, inside, pool, transposed=row.reversed)
    for future in futures:
        future.result()
    return [parts.on_devices()]


def _read_quantized(
    row: Parameter,
    places: Sequence[Sharding | None],
    tensors: Mapping[str, FiniteTensor],
    dtype: np.dtype,
    pool: ThreadPoolExecutor,
) -> list[jax.Array]:
    """A kernel's values and scales, with the first two of the shardings."""
    shapes = row.shape, row.shape[:-1]
    values, scales = (
        DeviceParts(shape, place, kind)
        for shape, place, kind in zip(shapes, places[:2], row.types(dtype), strict=True)
    )
    futures = []
    for layer, (name,) in enumerate(row.spelling(tensors)):
        inside = values.layer(layer) if row.stacked else values.arrays
        around = scales.layer(layer) if row.stacked else scales.arrays
        tensor = replace(tensors[name], cast=np.dtype(np.float32))
        futures += block_copy.read_quantized(tensor, inside, around, pool)
    for future in futures:
        future.result()
    return [values.on_devices(), scales.on_devices()]


def _read_whole(
    row: Parameter,
    names: Sequence[str],
    tensors: Mapping[str, FiniteTensor],
    parts: Mapping[block_copy.Box, np.ndarray],
) -> None:
    """Fills the parts of one layer from all of its tensors."""
    sources = [replace(tensors[name], cast=np.dtype(np.float32)) for name in names]
    whole = [source[...] for source in sources]
    layer = whole[0] if row.derived is None else row.derived.read(*whole)
    for box, part in parts.items():
        here = layer[tuple(slice(*pair) for pair in box)]
        part[...] = cast_finite(here, part.dtype, sources[0].where)

"""The parameters of a module ↔ the safetensors files of a folder.

A model is described once, by its module, and its files once, by the NAMES table beside
it. Everything here follows from the two: the loader walks the parameters of the module
without making any, looks each up in the table, and reads from memory-mapped files only
the slices that this process's devices hold.

    ours      layers.query.kernel [3, 128, 64]     all layers stacked: [layer, in, out]
    theirs    model.layers.0.self_attn.q_proj.weight [64, 128]               [out, in]
              model.layers.1.… [64, 128],  model.layers.2.… [64, 128]

Our `kernel` is their weight with all axes reversed (linear maps and convolutions
alike); all else is copied; rows that are neither are `Derived`.
"""

import contextlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from musilingo_jax.errors import UserError
from musilingo_jax.models.names import Derived, Names
from musilingo_jax.sharding import shardings

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

_FLOATING = {"F64", "F32", "F16", "BF16"}

Tensors = Mapping[str, Any]  # released name → lazy slice of a memory-mapped file
Index = tuple[slice, ...]


def load(
    abstract_module: Any,
    names: Names,
    ignored: Sequence[str],
    folder: Path,
    *,
    dtype: DTypeLike,
    mesh: Mesh | None,
) -> Any:
    """Fills an abstract module from the safetensors of a folder.

    Args:
      abstract_module: the module, made under `jax.eval_shape`.
      names: our parameter path → released name, for every parameter of the module.
      ignored: patterns of released tensors that have no use here.
      folder: holds one file, or several and their index.
      dtype: of the arrays in memory, whatever is stored.
      mesh: where the arrays go, as `sharding.shardings` says; None is one device.

    Returns:
      The module with arrays.

    Raises:
      UserError: files are missing or broken; or tensors are missing, unused or of
        another shape or kind than the module's, then all of them in one message.
    """
    dtype = _number_type(dtype)
    tensors = open_tensors(folder)
    rows = _rows(abstract_module, names)
    _check(folder, tensors, rows, ignored)
    leaves, structure = jax.tree.flatten(abstract_module)
    places = [None] * len(leaves)
    if mesh is not None:
        places = jax.tree.leaves(shardings(abstract_module, mesh))
    arrays = []
    for row, place in zip(rows, places, strict=True):
        read = _reader(row, tensors, dtype)
        if place is None:
            arrays.append(jax.device_put(read((slice(None),) * len(row.shape))))
        else:
            arrays.append(jax.make_array_from_callback(row.shape, place, read))
    return structure.unflatten(arrays)


def save(
    module: Any,
    names: Names,
    folder: Path,
    *,
    dtype: DTypeLike,
    config: Mapping[str, Any],
    metadata: Mapping[str, str],
) -> None:
    """Writes `model.safetensors` and `config.json`: the inverse of `load`.

    Both are complete under other names before either replaces its predecessor, and the
    config comes last: a folder without one is no model folder. With several processes
    the first one writes.

    Args:
      module: the parameters; the host must have room for them.
      names: our parameter path → released name.
      folder: made if need be; other files in it stay.
      dtype: as stored.
      config: the content of `config.json`, to which the dtype is added.
      metadata: notes for the header of the safetensors file.

    Raises:
      UserError: a number is too large for `dtype`.
    """
    if jax.process_index() != 0:
        return
    dtype = _number_type(dtype)
    tensors = {}
    for row, leaf in zip(_rows(module, names), jax.tree.leaves(module), strict=True):
        layers = np.asarray(leaf) if row.stacked else np.asarray(leaf)[None]
        for layer, written in zip(layers, row.spellings[0], strict=True):
            for name, tensor in zip(written, row.write(layer), strict=True):
                tensors[name] = _cast(name, tensor, dtype)
    text = json.dumps(dict(config) | {"dtype": dtype.name}, indent=2) + "\n"
    header = {"format": "pt"} | dict(metadata)  # transformers asks for a format
    folder.mkdir(parents=True, exist_ok=True)
    # The inner one is left first, so the weights take their place before the config.
    with _replacing(folder / CONFIG) as config_file:
        config_file.write_text(text, encoding="utf-8")
        with _replacing(folder / WEIGHTS) as weights_file:
            save_file(tensors, weights_file, metadata=header)


def open_tensors(folder: Path) -> Tensors:
    """All tensors of a folder by name, none of them read yet.

    Raises:
      UserError: there are no weights, some files are missing, or one is broken.
    """
    files = [WEIGHTS]
    if not (folder / WEIGHTS).is_file():
        if not (folder / INDEX).is_file():
            raise UserError(
                f"{folder}: not a model folder, for it has neither {WEIGHTS} nor "
                f"{INDEX}; weights of other formats must be converted to safetensors"
            )
        shards = read_json(folder / INDEX).get("weight_map")
        if not isinstance(shards, dict):
            raise UserError(f"{folder / INDEX}: has no weight_map; download it again")
        files = sorted({str(name) for name in shards.values()})
    if absent := [name for name in files if not (folder / name).is_file()]:
        raise UserError(
            f"{folder / INDEX}: names files that are not there: {', '.join(absent)}; "
            "download them again"
        )
    tensors = {}
    for path in (folder / name for name in files):
        try:
            file = safe_open(path, framework="numpy")
            tensors |= {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{path}: broken or cut off ({error}); download or save it again"
            ) from error
    return tensors


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
      UserError: the file holds none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}); download it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold a JSON object; download it again")
    return content


@dataclass(frozen=True)
class _Row:
    """One parameter of ours and the released tensors that it is made of.

    Attributes:
      path: where it stands in the module.
      shape: of all of it, with the stacked layers first, if there are any.
      stacked: whether there are.
      spellings: the alternatives; each has, for each layer (one if not stacked), the
        names of the layer's tensors.
      derived: how a layer is made of them, when it is not one of them.
    """

    path: str
    shape: tuple[int, ...]
    stacked: bool
    spellings: tuple[tuple[tuple[str, ...], ...], ...]
    derived: Derived | None

    @property
    def layer_shape(self) -> tuple[int, ...]:
        return self.shape[1:] if self.stacked else self.shape

    @property
    def reversed(self) -> bool:
        return self.path.split(".")[-1] == "kernel"

    def spelling(self, tensors: Tensors) -> tuple[tuple[str, ...], ...]:
        """The one that a checkpoint uses: that of which least is missing."""

        def missing(layers: Iterable[tuple[str, ...]]) -> int:
            return sum(name not in tensors for names in layers for name in names)

        return min(self.spellings, key=missing)

    def read(self, names: Sequence[str], tensors: Tensors, index: Index) -> np.ndarray:
        """A part of one layer."""
        if self.derived is not None:
            whole = (tensors[name][...].astype(np.float32) for name in names)
            return self.derived.read(*whole)[index]
        if self.reversed:
            return tensors[names[0]][index[::-1]].T
        return tensors[names[0]][index]

    def write(self, layer: np.ndarray) -> tuple[np.ndarray, ...]:
        """One layer → its tensors."""
        if self.derived is not None:
            return self.derived.write(layer.astype(np.float32))
        return (layer.T if self.reversed else layer,)


def _rows(module: Any, names: Names) -> list[_Row]:
    """A row for each parameter, in the order of the leaves."""
    rows = []
    for keys, node in jax.tree.leaves_with_path(
        module, is_leaf=lambda node: isinstance(node, nnx.Variable)
    ):
        path, shape = jax.tree_util.keystr(keys, simple=True, separator="."), node.shape
        row = names[path]
        derived = row if isinstance(row, Derived) else None
        spellings = ((row,),) if derived is None else derived.spellings
        stacked = "{}" in spellings[0][0]
        layers = range(shape[0] if stacked else 1)
        expanded = tuple(
            tuple(tuple(name.format(layer) for name in spelling) for layer in layers)
            for spelling in spellings
        )
        rows.append(_Row(path, shape, stacked, expanded, derived))
    return rows


def _check(
    folder: Path, tensors: Tensors, rows: Iterable[_Row], ignored: Sequence[str]
) -> None:
    """Raises one error that names all tensors in which a checkpoint is not ours."""
    missing, misfits, used = [], [], set()
    for row in rows:
        # What saving this shape would write is what loading must find.
        layer = np.broadcast_to(np.float32(1), row.layer_shape)
        shapes = [tensor.shape for tensor in row.write(layer)]
        for names in row.spelling(tensors):
            used.update(names)
            for name, shape in zip(names, shapes, strict=True):
                if name not in tensors:
                    missing.append(name)
                    continue
                found = tuple(tensors[name].get_shape())
                if found != shape:
                    misfits.append(f"{name} {list(found)} instead of {list(shape)}")
                elif (kind := tensors[name].get_dtype()) not in _FLOATING:
                    misfits.append(f"{name} {kind} instead of floating-point numbers")
    known = re.compile("|".join(f"(?:{pattern})" for pattern in ignored) or r"(?!)")
    unused = (name for name in tensors if name not in used)
    unused = [name for name in unused if not known.fullmatch(name)]
    problems = {"missing": missing, "unused": unused, "misshapen": misfits}
    found = [f"{kind}: {_listing(lines)}" for kind, lines in problems.items() if lines]
    if found:
        raise UserError(
            f"{folder}: the tensors are not those that its {CONFIG} describes; "
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
        pattern.replace("{}", (several if n[1:] else alone).format(",".join(n)))
        for pattern, n in layers.items()
    )


def _reader(row: _Row, tensors: Tensors, dtype: np.dtype) -> Callable:
    """A function from an index into our parameter to that part of it, in `dtype`."""
    layers = row.spelling(tensors)
    parts: dict[str, np.ndarray] = {}

    def read(index: Index) -> np.ndarray:
        # Asked once per device, also for parts of which several devices hold a copy.
        key = str(index)
        if key not in parts:
            chosen = layers[index[0]] if row.stacked else layers
            inner = index[1:] if row.stacked else index
            sizes = zip(row.layer_shape, inner, strict=True)
            shape = [len(range(size)[part]) for size, part in sizes]
            part = np.empty((len(chosen), *shape), dtype)
            for position, names in enumerate(chosen):
                part[position] = row.read(names, tensors, inner)
            parts[key] = part if row.stacked else part[0]
        return parts[key]

    return read


def _cast(name: str, tensor: np.ndarray, dtype: np.dtype) -> np.ndarray:
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(tensor.astype(dtype))
    if np.any(~np.isfinite(cast) & np.isfinite(tensor)):
        raise UserError(
            f"{name}: has numbers too large for {dtype.name}; save it as float32"
        )
    return cast


def _number_type(dtype: DTypeLike) -> np.dtype:
    try:
        return np.dtype(dtype)
    except TypeError as error:
        raise UserError(
            f"dtype {dtype!r}: no such type; use float32, bfloat16 or float16"
        ) from error


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A file to write in place of `path`, which it replaces at once when it is done."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)

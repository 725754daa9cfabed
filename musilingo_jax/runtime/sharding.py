"""Which device holds which part of which array.

A weight says what its axes mean where it is declared (`axes=("embed", "mlp")`); `RULES`
says here, once, over which axes of the mesh such an axis is spread. XLA derives the
rest, the exchange between devices included, from these and from the batch's sharding.

    mesh axis   holds                          exchanged
    data        other rows of the batch        gradients of the adapter
    fsdp        other rows, a part of weights  weights, gathered layer by layer
    tensor      a part of heads, mlp, vocab    activations, summed in every layer
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from musilingo_jax.runtime.errors import UserError

MESH_AXES = ("data", "fsdp", "tensor")

RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
}


def make_mesh(
    data: int,
    fsdp: int,
    tensor: int,
    *,
    devices: Sequence[jax.Device] | None = None,
) -> Mesh:
    """A mesh of devices with the axes `data`, `fsdp` and `tensor`.

    Args:
      data: devices along that axis; −1 in one of the three takes all that are left.
      fsdp: likewise.
      tensor: likewise.
      devices: to choose from; all that JAX has if None.

    Returns:
      A mesh whose collectives XLA inserts by itself (`AxisType.Auto`). With fewer
      devices asked for than there are, the first ones.

    Raises:
      UserError: a size is impossible with the devices at hand.
    """
    sizes = dict(zip(MESH_AXES, (data, fsdp, tensor), strict=True))
    asked = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
    free = [axis for axis, size in sizes.items() if size == -1]
    if len(free) > 1 or any(size < 1 and size != -1 for size in sizes.values()):
        raise UserError(
            f"mesh {asked}: each size must be at least 1, and at most one of them may "
            "be -1 (all devices that are left)"
        )
    chosen = jax.devices() if devices is None else devices
    available = len(chosen)
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if free:
        if available % fixed:
            raise UserError(
                f"mesh {asked}: {available} devices cannot be divided by {fixed}; "
                f"choose sizes whose product divides {available}"
            )
        sizes[free[0]] = available // fixed
    wanted = math.prod(sizes.values())
    if wanted > available:
        raise UserError(
            f"mesh {asked}: this needs {wanted} devices and there are {available}; "
            "choose smaller sizes, or -1 for one of them"
        )
    if devices is None and jax.process_count() > 1 and wanted != available:
        raise UserError(
            f"mesh {asked}: with several processes the mesh must use all {available} "
            f"devices and not {wanted}; choose -1 for one of the sizes"
        )
    # On a grid of TPU chips, neighbours in the mesh are neighbours in the grid, as far
    # as that can be had; an axis may take a part of a side of the grid.
    grid = mesh_utils.create_device_mesh(
        tuple(sizes.values()), chosen[:wanted], allow_split_physical_axes=True
    )
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def local_mesh() -> Mesh:
    """A mesh of this process's own devices, for work that it shares with no other."""
    devices = np.array(jax.local_devices()).reshape(-1, 1, 1)
    return Mesh(devices, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def shardings(tree: Any, mesh: Mesh) -> Any:
    """The same tree with a `NamedSharding` for every array.

    Works on modules, on their gradients and on optimiser states (which keep the names
    of the axes), with arrays or with `jax.ShapeDtypeStruct`s as leaves. An array whose
    axes nobody named is replicated.
    """
    nodes = jax.tree.leaves(tree, is_leaf=_is_variable)
    # A variable holds exactly one array, so nodes and leaves stand in the same order.
    leaves, structure = jax.tree.flatten(tree)
    specs = [
        _spec(leaf.shape, _axes(node), mesh)
        for node, leaf in zip(nodes, leaves, strict=True)
    ]
    return structure.unflatten([NamedSharding(mesh, spec) for spec in specs])


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch are spread over `data` and `fsdp`; other axes stay whole."""
    return NamedSharding(mesh, PartitionSpec(RULES["batch"]))


def cache_sharding(mesh: Mesh, shape: tuple[int, ...], *, rows: bool) -> NamedSharding:
    """Of the keys or values [batch, key_heads, slots, head_dim] of a layer's cache.

    Heads are spread as those of the weights and, with `rows`, rows as those of a
    batch; what does not divide stays whole.
    """
    axes = ("batch" if rows else None, "heads", None, None)
    return NamedSharding(mesh, _spec(shape, axes, mesh))


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Says over which devices an activation is spread, by the names of its axes.

    Left to choose, XLA may replicate a batch to save gathering the weights; told that
    rows stay where they are, it gathers each layer's weights as they are needed. The
    mesh is that of the arrays which `x` was computed from; without one, nothing is to
    be said. What does not divide stays whole.
    """
    mesh = jax.typeof(x).sharding.mesh
    if mesh.empty:
        return x
    place = NamedSharding(mesh, _spec(x.shape, axes, mesh))
    return jax.lax.with_sharding_constraint(x, place)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds all of the array."""
    return NamedSharding(mesh, PartitionSpec())


def _is_variable(node: Any) -> bool:
    return isinstance(node, nnx.Variable)


def _axes(node: Any) -> tuple[str | None, ...]:
    return node.get_metadata().get("axes", ()) if _is_variable(node) else ()


def _spec(
    shape: tuple[int, ...], axes: tuple[str | None, ...], mesh: Mesh
) -> PartitionSpec:
    """The parts of the mesh for each dimension, `None` where it stays whole.

    `axes` names the last dimensions; those before them are stacked layers, which are
    scanned over and therefore stay whole. On a mesh of fsdp=2, tensor=4:

        shape               axes                 spec
        (32, 4096, 11008)   ("embed", "mlp")     (None, "fsdp", "tensor")
        (32001, 4096)       ("vocab", "embed")   (None, "fsdp")    32001 is odd
        (32, 4096)          (None,)              (None, None)

    A part of the mesh is used once per array: the first dimension that wants it and
    divides has it.
    """
    stacked = len(shape) - len(axes)
    if stacked < 0:
        raise ValueError(f"axes {axes} name more dimensions than the shape {shape} has")
    parts: list[tuple[str, ...] | None] = [None] * stacked
    taken: set[str] = set()
    for size, axis in zip(shape[stacked:], axes, strict=True):
        part = RULES[axis] if axis is not None else ()
        devices = math.prod(mesh.shape[name] for name in part)
        if part and not taken.intersection(part) and size % devices == 0:
            taken.update(part)
            parts.append(part)
        else:
            parts.append(None)
    return PartitionSpec(*parts)

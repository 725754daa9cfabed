"""Decides which device holds which part of which array.

A weight names its axes where it is declared (`axes=("embed", "mlp")`). `RULES` states
here, once, over which axes of the mesh each of these axes is split. XLA derives the
rest, including the communication between devices, from these and from the sharding of
the batch.

    mesh axis   each device holds              communication
    data        other rows of the batch        gradients of the adapter
    fsdp        other rows, a part of weights  weights, gathered layer by layer
    tensor      a part of heads, mlp, vocab    activations, summed in every layer
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

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
    # jaxlib has no type stubs, so that a type checker does not see the class.
    devices: Sequence[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm]
) -> Mesh:
    """A mesh of devices with the axes `data`, `fsdp` and `tensor`.

    Args:
      data: devices along that axis. −1 for one of the three axes stands for the number
        that uses all devices.
      fsdp: likewise.
      tensor: likewise.
      devices: to choose from; None for all that JAX has.

    Returns:
      A mesh for which XLA inserts the collectives (`AxisType.Auto`). If it needs fewer
      devices than there are, it has the first ones.

    Raises:
      UserError: the sizes do not fit the devices.
    """
    sizes: dict[str, int] = dict(zip(MESH_AXES, (data, fsdp, tensor), strict=True))
    stated = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
    free = [axis for axis, size in sizes.items() if size == -1]
    if len(free) > 1 or any(size < 1 and size != -1 for size in sizes.values()):
        raise UserError(
            f"mesh {stated}: each size must be at least 1, and at most one of them may "
            "be -1 (all remaining devices)"
        )
    chosen = jax.devices() if devices is None else devices
    available = len(chosen)
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if free:
        if available % fixed:
            raise UserError(
                f"mesh {stated}: {available} devices cannot be divided by {fixed}; "
                f"choose sizes whose product divides {available}"
            )
        sizes[free[0]] = available // fixed
    needed = math.prod(sizes.values())
    if needed > available:
        raise UserError(
            f"mesh {stated}: this needs {needed} devices and there are {available}; "
            "choose smaller sizes, or -1 for one of them"
        )
    if devices is None and jax.process_count() > 1 and needed != available:
        raise UserError(
            f"mesh {stated}: with several processes the mesh must use all "
            f"{available} devices and not {needed}; choose -1 for one of the sizes"
        )
    # On a grid of TPU chips, neighbours in the mesh are neighbours in the grid where
    # that is possible; an axis of the mesh may take a part of a side of the grid.
    grid = mesh_utils.create_device_mesh(
        tuple(sizes.values()), chosen[:needed], allow_split_physical_axes=True
    )
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def local_mesh() -> Mesh:
    """A mesh of this process's own devices, for work that it does alone."""
    devices = np.array(jax.local_devices()).reshape(-1, 1, 1)
    return Mesh(devices, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def shardings(tree: Any, mesh: Mesh | AbstractMesh) -> Any:
    """The same tree with a `NamedSharding` for every array.

    Works on modules, on their gradients and on optimiser states (which keep the names
    of the axes), with arrays or with `jax.ShapeDtypeStruct`s as leaves. An array
    without named axes is replicated.
    """
    nodes = jax.tree.leaves(tree, is_leaf=_is_variable)
    # A variable holds exactly one array, so nodes and leaves are in the same order.
    leaves, structure = jax.tree.flatten(tree)
    specs = [
        spec_of(leaf.shape, _axes(node), mesh)
        for node, leaf in zip(nodes, leaves, strict=True)
    ]
    return structure.unflatten([NamedSharding(mesh, spec) for spec in specs])


def placed(like: Any, mesh: Mesh | AbstractMesh) -> Any:
    """An abstract tree with the shardings of its named axes."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=place
        ),
        like,
        shardings(like, mesh),
    )


def batch_sharding(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Splits the rows of a batch over `data` and `fsdp`; other axes stay whole."""
    return NamedSharding(mesh, PartitionSpec(RULES["batch"]))


def cache_sharding(
    mesh: Mesh, *, batch: int, key_heads: int, rows: bool, slots_first: bool
) -> NamedSharding:
    """Splits the keys or values of a layer's cache.

    Heads are split as those of the weights are, and with `rows`, rows as those of a
    batch. An axis whose size is not divisible by the devices stays whole.

    Args:
      mesh: the devices.
      batch: rows of the cache.
      key_heads: heads of each slot.
      rows: whether to split the rows.
      slots_first: as in `KVCache`.
    """
    axes = "batch" if rows else None, "heads"
    of_rows, of_heads = spec_of((batch, key_heads), axes, mesh)
    inner = (None, of_heads) if slots_first else (of_heads,)
    return NamedSharding(mesh, PartitionSpec(of_rows, *inner))


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Constrains how an activation is split over the devices, by the names of its axes.

    Without a constraint XLA may replicate a batch rather than gather the weights. With
    rows constrained to their devices, it gathers the weights of each layer as they are
    needed. The mesh is that of the arrays which `x` was computed from; without one, `x`
    is returned as it is. An axis whose size is not divisible by the devices stays
    whole.
    """
    mesh = jax.typeof(x).sharding.mesh
    if mesh.empty:
        return x
    sharding = NamedSharding(mesh, spec_of(x.shape, axes, mesh))
    return jax.lax.with_sharding_constraint(x, sharding)


def row_shares(sizes: Mapping[str, int]) -> int:
    """How many groups of devices the rows of a batch are divided among.

    Args:
      sizes: of the mesh's axes, such as `Mesh.shape`.
    """
    return math.prod(sizes[axis] for axis in RULES["batch"])


def rows_per_device(x: jax.Array) -> float:
    """Vectors of x that a device has, if its rows are split as those of a batch are."""
    mesh = jax.typeof(x).sharding.mesh
    return math.prod(x.shape[:-1]) / (1 if mesh.empty else row_shares(mesh.shape))


def replicated(mesh: Mesh) -> NamedSharding:
    """Gives every device the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def _is_variable(node: Any) -> bool:
    return isinstance(node, nnx.Variable)


def _axes(node: Any) -> tuple[str | None, ...]:
    return node.get_metadata().get("axes", ()) if _is_variable(node) else ()


def spec_of(
    shape: tuple[int, ...], axes: tuple[str | None, ...], mesh: Mesh | AbstractMesh
) -> PartitionSpec:
    """The axes of the mesh that split each dimension; None where it stays whole.

    `axes` names the last dimensions. Those before them are stacked layers, which are
    scanned over and therefore stay whole. On a mesh of fsdp=2, tensor=4:

        shape               axes                 spec
        (32, 4096, 11008)   ("embed", "mlp")     (None, "fsdp", "tensor")
        (32001, 4096)       ("vocab", "embed")   (None, "fsdp")    32001 is odd
        (32, 4096)          (None,)              (None, None)

    An axis of the mesh splits at most one dimension of an array: the first whose rule
    names it and whose size is divisible.
    """
    stacked = len(shape) - len(axes)
    if stacked < 0:
        raise ValueError(f"axes {axes} name more dimensions than the shape {shape} has")
    spec: list[tuple[str, ...] | None] = [None] * stacked
    used: set[str] = set()
    for size, axis in zip(shape[stacked:], axes, strict=True):
        mesh_axes = RULES[axis] if axis is not None else ()
        devices = math.prod(mesh.shape[name] for name in mesh_axes)
        if mesh_axes and not used.intersection(mesh_axes) and size % devices == 0:
            used.update(mesh_axes)
            spec.append(mesh_axes)
        else:
            spec.append(None)
    return PartitionSpec(*spec)

"""Meshes and placements, on eight simulated devices."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from musilingo_jax.models.layers import Linear, Norm, parameter
from musilingo_jax.runtime import sharding
from musilingo_jax.runtime.errors import UserError


class Layer(nnx.Module):
    def __init__(self, *, rngs):
        self.up = Linear(4, 8, axes=("embed", "mlp"), bias=True, rngs=rngs)
        self.norm = Norm(4, bias=False, eps=1e-5)


class Toy(nnx.Module):
    """Three stacked layers and an embedding with an odd number of rows."""

    def __init__(self, *, rngs):
        keys = jax.random.split(rngs.params(), 3)
        self.layers = jax.vmap(lambda key: Layer(rngs=nnx.Rngs(key)))(keys)
        self.table = parameter(jnp.ones((33, 4)), ("vocab", "embed"))
        self.square = parameter(jnp.ones((4, 4)), ("embed", "embed"))


def specs(tree):
    return jax.tree.map(
        lambda placed: placed.spec,
        tree,
        is_leaf=lambda node: isinstance(node, NamedSharding),
    )


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ((-1, 1, 1), (8, 1, 1)),
        ((2, -1, 2), (2, 2, 2)),
        ((1, 2, -1), (1, 2, 4)),
        ((1, 1, 1), (1, 1, 1)),
    ],
)
def test_mesh_has_the_sizes_asked_for(sizes, shape):
    mesh = sharding.make_mesh(*sizes)
    assert tuple(mesh.shape.items()) == tuple(
        zip(("data", "fsdp", "tensor"), shape, strict=True)
    )
    assert mesh.axis_types == (AxisType.Auto,) * 3


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ((-1, -1, 1), "at most one"),
        ((0, 1, 1), "at least 1"),
        ((-2, 1, 1), "at least 1"),
        ((-1, 3, 1), "8 devices cannot be divided by 3"),
        ((4, 4, 1), "needs 16 devices and there are 8"),
    ],
)
def test_impossible_meshes_are_refused(sizes, reason):
    with pytest.raises(UserError, match=reason):
        sharding.make_mesh(*sizes)


def test_with_several_processes_a_mesh_leaves_no_device_out(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match="must use all 8 devices and not 4"):
        sharding.make_mesh(4, 1, 1)


def test_named_axes_are_spread_and_others_stay_whole():
    mesh = sharding.make_mesh(1, 2, 4)
    toy = jax.eval_shape(lambda: Toy(rngs=nnx.Rngs(0)))
    placed = specs(sharding.shardings(toy, mesh))
    assert placed.layers.up.kernel.get_value() == PartitionSpec(
        None, ("fsdp",), ("tensor",)
    )
    assert placed.layers.up.bias.get_value() == PartitionSpec(None, ("tensor",))
    assert placed.layers.norm.scale.get_value() == PartitionSpec(None, None)
    # 33 rows do not divide by 4 devices.
    assert placed.table.get_value() == PartitionSpec(None, ("fsdp",))
    # One part of the mesh cannot split two dimensions.
    assert placed.square.get_value() == PartitionSpec(("fsdp",), None)


def test_every_tree_of_parameters_can_be_placed():
    mesh = sharding.make_mesh(2, 2, 2)
    toy = Toy(rngs=nnx.Rngs(0))
    state = {"moments": jax.tree.map(jnp.zeros_like, toy), "step": jnp.int32(0)}
    state = jax.device_put(state, sharding.shardings(state, mesh))
    kernel = state["moments"].layers.up.kernel[...]
    assert kernel.addressable_shards[0].data.shape == (3, 2, 4)
    assert state["step"].sharding.is_fully_replicated
    assert jax.tree.structure(state["moments"]) == jax.tree.structure(toy)


def test_sharded_products_equal_those_on_one_device():
    mesh = sharding.make_mesh(2, 2, 2)
    toy = Toy(rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (8, 4))

    @jax.jit
    def run(toy, x):
        return jax.lax.scan(
            lambda x, layer: (layer.norm(layer.up(x)[:, :4]), None), x, toy.layers
        )[0]

    spread = run(
        jax.device_put(toy, sharding.shardings(toy, mesh)),
        jax.device_put(x, sharding.batch_sharding(mesh)),
    )
    assert jnp.allclose(spread, run(toy, x), atol=1e-6)


def test_rows_of_a_batch_are_spread_over_data_and_fsdp():
    mesh = sharding.make_mesh(2, 2, 2)
    batch = jax.device_put(jnp.ones((8, 3)), sharding.batch_sharding(mesh))
    assert batch.addressable_shards[0].data.shape == (2, 3)
    whole = jax.device_put(jnp.ones((8, 3)), sharding.replicated(mesh))
    assert whole.addressable_shards[0].data.shape == (8, 3)


def test_more_names_than_dimensions_is_our_mistake():
    mesh = sharding.make_mesh(1, 1, 1)
    with pytest.raises(ValueError, match="more dimensions"):
        sharding.shardings(nnx.Param(jnp.ones(3), axes=("embed", "mlp")), mesh)

"""A digest is the same on any mesh, and a checkpoint that changed is never restored."""

import json
import random
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from musilingo_jax.models.bridges.linear import LinearBridge
from musilingo_jax.models.parts import Parts
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.sharding import make_mesh
from musilingo_jax.training.checkpoints import Checkpoints
from musilingo_jax.training.state_digest import state_digest
from musilingo_jax.training.train_step import TrainState

pytestmark = pytest.mark.medium


def make_state():
    """Random numbers, which no compression shortens, and enough of them."""
    adapter = Parts(bridge=LinearBridge(48, 64, rngs=nnx.Rngs(0)))
    keys = iter(jax.random.split(jax.random.key(1), 2))
    gradient = jax.tree.map(
        lambda leaf: jax.random.normal(next(keys), leaf.shape), adapter
    )
    optimiser = optax.adamw(1e-3)
    _, moments = optimiser.update(gradient, optimiser.init(adapter), adapter)
    return TrainState(learning=adapter, optimiser=moments)


def like(state):
    mesh = make_mesh(1, 1, 1)
    place = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), state
    )


def test_it_is_the_same_on_any_mesh():
    array = np.random.default_rng(0).normal(size=(8, 12)).astype(np.float32)
    alone = state_digest({"a": array})
    for spec in (("data",), (None, "tensor"), (("data", "fsdp"), "tensor"), ()):
        place = NamedSharding(make_mesh(2, 2, 2), PartitionSpec(*spec))
        assert state_digest({"a": jax.device_put(array, place)}) == alone


@pytest.mark.parametrize(
    "dtype", [np.float32, ml_dtypes.bfloat16, np.float16, np.int32, np.int8, bool]
)
def test_one_other_bit_is_another_digest(dtype):
    array = np.zeros((3, 5), dtype)
    digests = {state_digest([array])["0"]}
    bits = 1 if dtype is bool else 8 * array.dtype.itemsize
    for place in range(array.size):
        for bit in range(bits):
            changed = array.copy()
            flat = changed.reshape(-1).view(f"u{array.dtype.itemsize}")
            flat[place] ^= np.array(1 << bit, flat.dtype)
            digests.add(state_digest([changed])["0"])
    assert len(digests) == 1 + array.size * bits


def test_order_sign_and_shape_count():
    one = state_digest([jnp.array([1.0, 2.0])])
    assert state_digest([jnp.array([2.0, 1.0])]) != one
    assert state_digest([jnp.array([0.0])]) != state_digest([jnp.array([-0.0])])
    assert state_digest({"a": jnp.ones(2), "b": {"c": jnp.ones(3)}}).keys() == {
        "a",
        "b.c",
    }


def outcomes(folder, flips, choose):
    """Counts what becomes of a checkpoint with one flipped bit, many times over.

    Args:
      folder: to make it in.
      flips: how many bits to flip, one at a time.
      choose: from all files those in which a bit may be flipped.
    """
    state = make_state()
    with Checkpoints(folder / "saved", keep=1) as checkpoints:
        checkpoints.save(5, state, {"seed": 0}, 0.5)
    counts = {"told": 0, "harmless": 0, "silent": 0}
    generator = random.Random(0)
    files = sorted(
        path.relative_to(folder / "saved")
        for path in choose(folder / "saved")
        if path.is_file() and path.stat().st_size
    )
    for number in range(flips):
        copy = folder / str(number)
        shutil.copytree(folder / "saved", copy)
        path = copy / generator.choice(files)
        content = bytearray(path.read_bytes())
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        path.write_bytes(content)
        try:
            with Checkpoints(copy, keep=1) as checkpoints:
                found, best = checkpoints.restore(5, like(state)), checkpoints.best()
        except UserError as error:
            assert str(copy / "5") in str(error)
            assert "Delete that folder; the same command then begins" in str(error)
            counts["told"] += 1
            continue
        same = [best == (5, 0.5)] + [
            np.asarray(one).tobytes() == np.asarray(other).tobytes()
            for one, other in zip(*map(jax.tree.leaves, (found, state)), strict=True)
        ]
        counts["harmless" if all(same) else "silent"] += 1
    return counts


def test_a_flipped_bit_among_the_numbers_is_told(tmp_path):
    counts = outcomes(
        tmp_path,
        8,
        lambda saved: [
            max(saved.glob("5/state/**/d/*"), key=lambda path: path.stat().st_size)
        ],
    )
    assert counts["silent"] == 0 and counts["told"] >= 4, counts


def test_sixty_of_sixty_flipped_bits_are_told_or_harmless(tmp_path):
    counts = outcomes(tmp_path, 60, lambda saved: saved.glob("5/**/*"))
    print(counts)
    assert counts["silent"] == 0 and sum(counts.values()) == 60
    assert counts["told"] >= 10, counts


def test_a_flipped_bit_would_not_be_told_without_the_digest(tmp_path, monkeypatch):
    """So that the digest is known to be what finds it."""
    saved = "musilingo_jax.training.checkpoints._digest"
    monkeypatch.setattr(saved, lambda checkpoint: {})
    test = test_a_flipped_bit_among_the_numbers_is_told
    with pytest.raises(AssertionError, match="silent"):
        test(tmp_path)


def test_a_checkpoint_of_an_older_version_has_no_digest(tmp_path):
    state = make_state()
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(5, state, {}, 0.5)
    shutil.rmtree(tmp_path / "5" / "digest")
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        found = checkpoints.restore(5, like(state))
        assert checkpoints.best() == (5, 0.5)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("content", ["", "{}", '{"state": 1, "metrics": 2}', "[[[["])
def test_a_damaged_digest_is_told(tmp_path, content):
    state = make_state()
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(5, state, {}, None)
        checkpoints.save(7, state, {}, None)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(9, state, {}, None)
    (tmp_path / "9/digest/metadata").write_text(content)
    with pytest.raises(UserError, match="then resumes after update 7, from the newest"):
        Checkpoints(tmp_path, keep=2).restore(9, like(state))
    (tmp_path / "9/digest/metadata").write_text(
        json.dumps({"state": {}, "metrics": {}})
    )
    with pytest.raises(
        UserError, match=r"the numbers of learning\.bridge\.proj\S+ are n"
    ):
        Checkpoints(tmp_path, keep=2).restore(9, like(state))

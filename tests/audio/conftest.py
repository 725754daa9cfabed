"""One encoder for all tests of this folder, so that its programs are compiled once."""

import pytest
from helpers import small_cache

from musilingo_jax.runtime.sharding import make_mesh


@pytest.fixture(scope="session")
def mesh():
    return make_mesh(data=1, fsdp=1, tensor=1)


@pytest.fixture(scope="session")
def mert(mesh):
    return small_cache.tiny_mert(mesh)

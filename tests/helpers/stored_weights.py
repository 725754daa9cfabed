"""What tests of stored weights share."""

import jax
import numpy as np
from safetensors.numpy import load_file, save_file


def rewrite(folder, change):
    """Changes the dict of tensors in place and stores it again."""
    stored = load_file(folder / "model.safetensors")
    change(stored)
    save_file(stored, folder / "model.safetensors")


def assert_equal(ours, theirs):
    """Two modules have the same structure, types and numbers."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))

"""Attention head by head, and the plain one."""

import jax
import jax.numpy as jnp
import numpy as np

from musilingo_jax.models import cpu
from musilingo_jax.models.attention import attention


def test_one_head_at_a_time_is_all_heads_together():
    random = np.random.default_rng(0)
    query, key, value = (
        jnp.asarray(random.normal(size=(2, length, 3, 8)), jnp.bfloat16)
        for length in (5, 7, 7)
    )
    attend = random.random((2, 5, 7)) < 0.5
    attend[0, 1] = False
    np.testing.assert_allclose(
        jax.jit(cpu.one_head_at_a_time(attention))(query, key, value, attend),
        jax.jit(attention)(query, key, value, attend),
        atol=1e-6,
    )

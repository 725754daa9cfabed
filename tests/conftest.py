"""Every test may use up to eight simulated devices."""

import os

# Before JAX makes its first array: afterwards the number of devices is fixed.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

jax.config.update("jax_num_cpu_devices", 8)

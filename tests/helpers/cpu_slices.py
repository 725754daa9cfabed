"""Slices of TPUs whose devices are simulated ones, for where there is no compiler."""

PRELUDE = (
    "import jax\n"
    "from musilingo_jax.plan import tpu_slices\n"
    "jax.config.update('jax_num_cpu_devices', 8)\n"
    "tpu_slices.Topology.devices = lambda self: jax.devices()[: self.size]\n"
)
"""Python with which a program plans for them."""

"""Every test may use up to eight simulated devices, and Ctrl-C."""

import os
import signal

# Before JAX makes its first array: afterwards the number of devices is fixed.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

jax.config.update("jax_num_cpu_devices", 8)

# A shell starts what is to run in the background with Ctrl-C ignored, and so would be
# every program that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

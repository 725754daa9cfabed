"""Every test may use up to eight simulated devices, compiled programs, and Ctrl-C."""

import gc
import os
import signal
from pathlib import Path

# Before JAX makes its first array: afterwards the number of devices is fixed.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs that were compiled once are shared by all tests, by the programs that they
# start, and by the next run of the tests.
COMPILED = Path(__file__).parents[1] / ".pytest_cache" / "compiled"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(COMPILED))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)

# A shell starts what is to run in the background with Ctrl-C ignored, and so would be
# every program that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Each compiled program takes several of the memory maps that a process may have, 65,530
# by default on Linux; where there are none left, the compiler ends the process. Two
# workers that run all tests come near.
MOST_MAPS = 40_000


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Makes the cases slow that a mark `quick` does not name."""
    for item in items:
        quick = item.get_closest_marker("quick")
        if quick is not None and item.callspec.id not in quick.args:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module", autouse=True)
def few_memory_maps():
    """Forgets all compiled programs after a file of tests, before maps run out."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > MOST_MAPS:
        jax.clear_caches()
        gc.collect()

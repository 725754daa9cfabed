"""What the tests of the recipes share."""

import jax
import pytest


@pytest.fixture
def quick_to_compile():
    """Programs are compiled without optimisation, in a third of the time.

    For tests in which programs run for less time than it takes to compile them.
    """
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)

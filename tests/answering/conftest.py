"""Tests of answering compile many programs and run each for milliseconds."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """The same programs as ever, but LLVM does not optimise their machine code."""
    option = "jax_disable_most_optimizations"
    before = jax.config.values[option]
    jax.config.update(option, True)
    yield
    jax.config.update(option, before)

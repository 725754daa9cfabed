"""MusiLingo in JAX: ask questions of music."""

from musilingo_jax.runtime import start_up

__version__ = "0.1.0"

start_up.handle_signals()

"""MusiLingo in JAX: ask questions of music."""

__version__ = "0.1.0"

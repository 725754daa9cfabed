"""Compiled programs outlive the process: a second start compiles nothing."""

import os
from pathlib import Path

import jax


def keep_compiled_programs() -> None:
    """Keeps compiled programs in the user's cache folder, if no other place is set.

    Another place is set by the environment variable `JAX_COMPILATION_CACHE_DIR`.
    """
    if jax.config.jax_compilation_cache_dir is None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(home) / "musilingo_jax" / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(folder))

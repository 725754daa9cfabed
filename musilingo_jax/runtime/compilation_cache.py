"""Keeps compiled programs on disk, so that a second start compiles nothing."""

import os

import jax

from musilingo_jax.runtime.paths import user_cache

_LEAST_SECONDS = "jax_persistent_cache_min_compile_time_secs"


def keep_compiled_programs() -> None:
    """Keeps compiled programs in the user's cache folder, unless JAX has another one.

    JAX itself would keep only those that take more than a second to compile: an answer
    of a small model needs twenty that take less, and two seconds together. The
    environment variables `JAX_COMPILATION_CACHE_DIR` and
    `JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS` go before.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(user_cache("compiled")))
    if _LEAST_SECONDS.upper() not in os.environ:
        jax.config.update(_LEAST_SECONDS, 0.0)

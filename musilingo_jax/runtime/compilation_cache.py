"""Keeps compiled programs on disk, so that a second start compiles nothing."""

import jax

from musilingo_jax.runtime.paths import user_cache


def keep_compiled_programs() -> None:
    """Keeps compiled programs in the user's cache folder, unless JAX has another one.

    The environment variable `JAX_COMPILATION_CACHE_DIR` names another one.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(user_cache("compiled")))

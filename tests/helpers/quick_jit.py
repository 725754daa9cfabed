"""`jax.jit` for programs that are compiled often and run once."""

from functools import partial

import jax

QUICKLY = {"xla_backend_optimization_level": 0}
"""Options of `Lowered.compile`: half of the time goes into optimising machine code.

For programs whose results are compared with each other, or with a tolerance. They allow
no other jitted function inside with options of its own.
"""

quick_jit = partial(jax.jit, compiler_options=QUICKLY)

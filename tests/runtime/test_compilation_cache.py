"""What is compiled once is not compiled by the next process."""

import os
import subprocess
import sys

import pytest
from helpers.programs import ROOT

pytestmark = pytest.mark.medium

PROGRAM = """
import logging, sys
import jax, jax.numpy as jnp
from musilingo_jax.runtime.compilation_cache import keep_compiled_programs

keep_compiled_programs()
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
jax.jit(lambda x: jnp.sin(x) + 1)(jnp.ones(3)).block_until_ready()
print(hits.count("/jax/compilation_cache/cache_hits"))
"""


def hits(folder, **more):
    environment = os.environ | {"XDG_CACHE_HOME": str(folder)} | more
    for name in ("DIR", "MIN_COMPILE_TIME_SECS"):
        whole = f"JAX_{'COMPILATION' if name == 'DIR' else 'PERSISTENT'}_CACHE_{name}"
        if whole not in more:
            environment.pop(whole, None)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_a_quick_program_is_kept_for_the_next_process(tmp_path):
    assert hits(tmp_path) == 0
    assert hits(tmp_path) > 0


def test_what_the_environment_says_goes_before(tmp_path):
    longer = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "100"}
    assert hits(tmp_path, **longer) == 0
    assert hits(tmp_path, **longer) == 0

"""A cache and a stopped run that version 0.1 left behind can still be used."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jaxlib
import numpy as np
import pytest
from helpers.small_run import ROOT
from safetensors.numpy import load_file

from musilingo_jax.runtime import processor

pytestmark = pytest.mark.medium

DATA = Path(__file__).parent / "data" / "version_0_1"
# Where these were made. Another compiler may order sums otherwise; and so does the same
# one for caches of other sizes, whatever instructions it is given.
MADE_BY = ("x86_64", "AuthenticAMD", True, "0.10.2")


def this_machine():
    """What decides in which order sums are made.

    Machine, maker, whether the processor is of a generation with bfloat16 units, and
    compiler.
    """
    described = Path("/proc/cpuinfo")
    text = described.read_text() if described.exists() else ""
    maker = re.search(r"^vendor_id\s*:\s*(\S+)", text, re.MULTILINE)
    units = processor.has_bfloat16_units()
    return platform.machine(), maker and maker[1], units, jaxlib.__version__


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """The old folder after `train`, and what the program wrote to stderr."""
    folder = tmp_path_factory.mktemp("old") / "version_0_1"
    shutil.copytree(DATA, folder)
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(folder / "user-cache"),
    }
    program = subprocess.run(
        [sys.executable, "-m", "musilingo_jax.train", "--config=config.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert program.returncode == 0, program.stderr
    return folder, program.stderr


def rows(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_its_cache_is_used_without_encoding(resumed):
    folder, stderr = resumed
    assert "encoding" not in stderr
    for path in (DATA / "cache").rglob("*"):
        if path.is_file():
            now = folder / "cache" / path.relative_to(DATA / "cache")
            assert now.read_bytes() == path.read_bytes(), path.name


def test_its_run_resumes_where_it_stopped(resumed):
    folder, _ = resumed
    before = rows(DATA / "run")
    # The times show that these updates were not done again.
    assert rows(folder / "run")[: len(before)] == before
    steps = [(row["stage"], row["step"]) for row in rows(folder / "run")]
    assert steps == [(row["stage"], row["step"]) for row in rows(DATA / "expected")]


def test_its_run_ends_as_if_it_had_never_stopped(resumed):
    folder, _ = resumed
    ours = load_file(folder / "run" / "adapter" / "model.safetensors")
    theirs = load_file(DATA / "expected" / "model.safetensors")
    losses = [
        [row.get("loss", row.get("validation_loss")) for row in rows(where)]
        for where in (folder / "run", DATA / "expected")
    ]
    assert ours.keys() == theirs.keys()
    if this_machine() == MADE_BY:
        assert losses[0] == losses[1]
        for name in theirs:
            np.testing.assert_array_equal(ours[name], theirs[name])
    else:
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
        for name in theirs:
            np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5)

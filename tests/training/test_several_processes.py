"""Several processes learn what one does, and stop after the same update."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers.processes import signal_at
from helpers.small_run import (
    COMPILED_ALIKE,
    ROOT,
    VALIDATED,
    small_config,
    small_flags,
    trained_folder,
)

from musilingo_jax import train as training

pytestmark = pytest.mark.medium

MESH = [f"--config.mesh.{axis}=2" for axis in ("data", "fsdp", "tensor")]


@pytest.fixture(scope="module")
def folder():
    return trained_folder()


def launch(folder, run, *, processes, devices, python=sys.executable, **changes):
    """Runs `launch/local.sh` on the small run: exit status and output."""
    done = subprocess.run(
        [
            ROOT / "launch/local.sh",
            f"--processes={processes}",
            f"--devices={devices}",
            *small_flags(folder, run, **changes),
            *(f"--config.{key}={value}" for key, value in VALIDATED.items()),
            *MESH,
        ],
        env=os.environ | COMPILED_ALIKE | {"PYTHON": str(python)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def rows(folder, run):
    lines = (folder / run / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return {
        (row["stage"], row["step"], kind): row[kind]
        for row in found
        for kind in ("loss", "validation_loss")
        if kind in row
    }


def assert_same_losses(folder, one, other):
    one, other = rows(folder, one), rows(folder, other)
    assert list(one) == list(other)
    np.testing.assert_allclose(list(one.values()), list(other.values()), atol=1e-5)


def test_two_processes_of_four_devices_learn_what_one_device_does(folder):
    status, output = launch(folder, "two", processes=2, devices=4)
    assert status == 0, output
    assert_same_losses(folder, "whole", "two")
    assert "[0] stage1: 5 updates of 8 examples" in output
    assert (folder / "two/adapter-best/model.safetensors").exists()


@pytest.fixture
def python_with_signal(tmp_path):
    """Makes a stand-in for Python in which one of the processes signals itself."""

    def make(process, number, path):
        (tmp_path / "program.py").write_text(
            f"{signal_at('open', path, number)}\n"
            "import runpy\n"
            "runpy.run_module('musilingo_jax.train', run_name='__main__')\n"
        )
        python = tmp_path / "python"
        python.write_text(
            "#!/usr/bin/env bash\n"
            f'if [[ "$1" == -m && " $* " == *" --process={process} "* ]]; then\n'
            f'  exec {sys.executable} {tmp_path}/program.py "${{@:3}}"\n'
            "fi\n"
            f'exec {sys.executable} "$@"\n'
        )
        python.chmod(0o755)
        return python

    return make


@pytest.mark.slow
def test_processes_on_two_kinds_of_processor_have_the_type_of_the_first(
    folder, tmp_path
):
    """Each of them alone would decide otherwise."""
    (tmp_path / "program.py").write_text(
        "import runpy, sys\n"
        "from helpers import processors\n"
        "from musilingo_jax.runtime import processor\n"
        "first = '--process=0' in sys.argv\n"
        "text = processors.AVX512_BF16 if first else processors.AVX2\n"
        "processor.cpuinfo = lambda: text\n"
        "runpy.run_module('musilingo_jax.train', run_name='__main__')\n"
    )
    python = tmp_path / "python"
    python.write_text(
        "#!/usr/bin/env bash\n"
        f'if [[ "$1" == -m && "$2" == musilingo_jax.train ]]; then\n'
        f"  export PYTHONPATH={ROOT}:{ROOT}/tests\n"
        f'  exec {sys.executable} {tmp_path}/program.py "${{@:3}}"\n'
        "fi\n"
        f'exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    status, output = launch(
        folder,
        "auto-two",
        processes=2,
        devices=4,
        python=python,
        model__dtype="auto",
        features__cache=folder / "auto-two-cache",
        stage1__steps=3,
        stage2__steps=3,
    )
    assert status == 0, output
    described = json.loads((folder / "auto-two/config.json").read_text())
    inputs = json.loads((folder / "auto-two/inputs.json").read_text())
    assert described["model"]["dtype"] == inputs["features"]["dtype"] == "bfloat16"


@pytest.mark.slow
def test_stopped_in_one_process_all_stop_after_the_same_update_and_resume(
    folder, python_with_signal
):
    """With 2 processes, of which one gets SIGTERM; then 4, one is killed; then 1."""
    tmp = "orbax-checkpoint-tmp"
    written = f"checkpoints/3.{tmp}/state.{tmp}/array_metadatas/process_{{}}"
    python = python_with_signal(1, signal.SIGTERM, f"stage1/{written.format(1)}")
    status, output = launch(folder, "moving", processes=2, devices=4, python=python)
    assert status == 143, output
    assert output.count("which is saved: the same command resumes there") == 1

    done = len(rows(folder, "moving"))
    python = python_with_signal(3, signal.SIGKILL, f"stage2/{written.format(3)}")
    status, output = launch(folder, "moving", processes=4, devices=2, python=python)
    assert status == 137, output
    assert "process 3 exited with status 137" in output
    assert len(rows(folder, "moving")) > done

    changes = {key.replace(".", "__"): value for key, value in VALIDATED.items()}
    training.train(small_config(folder, "moving", mesh__data=1, **changes))
    assert_same_losses(folder, "whole", "moving")

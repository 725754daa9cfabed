"""Processes that connect, fail together, and train as one process does."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jaxlib._jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from helpers.processes import HANG, free_port
from helpers.small_run import (
    ROOT,
    make_corpus,
    make_models,
    small_config,
    small_flags,
)

from musilingo_jax import train as training
from musilingo_jax.runtime import distributed
from musilingo_jax.runtime.errors import UsageError, UserError

LOCAL = ROOT / "launch/local.sh"

PROGRAM = """
import sys, time, jax
from absl import flags
from musilingo_jax.runtime import cli, distributed
from musilingo_jax.runtime.errors import UserError

def main(argv):
    distributed.start()
    print("process", jax.process_index(), "of", jax.process_count(), flush=True)
    if argv[1:] == [str(jax.process_index())]:
        raise UserError("the disk is full")
    if argv[1:]:
        time.sleep(600)

distributed.define_flags()
cli.run(main)
"""


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(*arguments):
    where = f"--coordinator=127.0.0.1:{free_port()}"
    return [
        start(where, "--processes=2", f"--process={i}", *arguments) for i in range(2)
    ]


def test_jax_still_keeps_its_state_where_we_find_it():
    """If this fails, JAX has moved what it offers nowhere in public.

    Search the new version for `key_value_set`: `jax.experimental.multihost_utils` and
    Orbax use it, too. Then change `_jax_state` in runtime/distributed.py. If
    `jax.distributed` offers a key-value store of its own, use that instead.
    """
    state = distributed._jax_state()
    for name in (
        "client",
        "service",
        "process_id",
        "num_processes",
        "coordinator_address",
    ):
        assert hasattr(state, name), name
    for name in ("key_value_set", "key_value_try_get", "blocking_key_value_get"):
        assert hasattr(jaxlib._jax.DistributedRuntimeClient, name), name
    public = {name for name in dir(jax.distributed) if not name.startswith("_")}
    assert public == {"initialize", "is_initialized", "shutdown"}


def test_internals_of_jax_are_used_in_one_place():
    files = [
        path.relative_to(ROOT)
        for folder in ("musilingo_jax", "benchmarks", "configs")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"\bjax\._src\b", path.read_text(encoding="utf-8"))
    ]
    assert files == [Path("musilingo_jax/runtime/distributed.py")]


@pytest.fixture(scope="module")
def defined():
    if "coordinator" not in flags.FLAGS:
        distributed.define_flags()
    flags.FLAGS.mark_as_parsed()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"coordinator": "h:1"}, "belong together"),
        ({"coordinator": "h", "processes": 2, "process": 0}, "must be HOST:PORT"),
        ({"coordinator": "h:1", "processes": 2, "process": 2}, "from 0 to 1"),
        (
            {"coordinator": "h:1", "processes": 2, "process": 0, "distributed": True},
            "finds the coordinator itself",
        ),
    ],
)
def test_flags_that_contradict_each_other_are_refused(defined, given, message):
    with flagsaver.flagsaver(**given), pytest.raises(UsageError, match=message):
        distributed.start()


def test_without_flags_there_is_one_process(defined):
    distributed.start()
    assert not distributed.jax.distributed.is_initialized()


def test_if_the_others_are_not_found_it_names_the_flags_to_set(defined, monkeypatch):
    def initialize(*arguments, **options):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(distributed.jax.distributed, "initialize", initialize)
    with (
        flagsaver.flagsaver(distributed=True),
        pytest.raises(UserError, match=r"not found .* --coordinator=HOST:PORT"),
    ):
        distributed.start()


def test_a_coordinator_that_cannot_be_reached_is_named():
    port = free_port()
    process = start(
        f"--coordinator=127.0.0.1:{port}",
        "--processes=2",
        "--process=1",
        "--connect_seconds=1",
    )
    _, printed = process.communicate(timeout=HANG)
    assert process.returncode == 1
    assert printed.splitlines()[-1].startswith(
        f"error: process 1 of 2 could not reach process 0 at 127.0.0.1:{port} in 1 s"
    )


@pytest.mark.parametrize("failing", [0, 1])
def test_a_process_that_fails_ends_the_other(failing):
    processes = start_two(str(failing))
    printed = [process.communicate(timeout=HANG)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    assert "error: the disk is full" in printed[failing]
    other = f"process {1 - failing} ends because of process {failing}: the disk is full"
    assert other in printed[1 - failing]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_process_ends_the_other_with_the_same_status(number):
    processes = start_two("wait")
    for process in processes:
        assert process.stdout.readline().startswith("process")
    processes[1].send_signal(number)
    printed = [process.communicate(timeout=HANG)[1] for process in processes]
    assert [process.returncode for process in processes] == [128 + number] * 2
    assert "process 0 ends because of process 1: it was interrupted" in printed[0]


def test_both_processes_succeed():
    processes = start_two()
    printed = [process.communicate(timeout=HANG)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert printed == ["process 0 of 2\n", "process 1 of 2\n"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models, songs, and one run on one device."""
    folder = tmp_path_factory.mktemp("distributed")
    make_models(folder)
    make_corpus(folder / "corpus")
    training.train(small_config(folder, "one", mesh__data=1, **HELD_OUT))
    return folder


HELD_OUT = {"corpus__validation_split": "test", "stage2__validate_every": 4}


def launch(folder, run, processes, devices, *arguments):
    """Starts `launch/local.sh` on the small run."""
    return subprocess.Popen(
        [
            LOCAL,
            f"--processes={processes}",
            f"--devices={devices}",
            *small_flags(folder, run),
            "--config.corpus.validation_split=test",
            "--config.stage2.validate_every=4",
            *arguments,
        ],
        env=os.environ | {"PYTHON": sys.executable, "XLA_FLAGS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


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


MESH = [f"--config.mesh.{axis}=2" for axis in ("data", "fsdp", "tensor")]


def test_two_processes_of_four_devices_train_as_one_device_does(folder):
    launched = launch(folder, "two", 2, 4, *MESH)
    printed, _ = launched.communicate(timeout=HANG)
    assert launched.returncode == 0, printed
    assert_same_losses(folder, "one", "two")
    assert "[0] stage1: 5 updates of 8 examples" in printed
    assert (folder / "two/adapter-best/model.safetensors").exists()


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_after_the_same_update(folder):
    """First 2 processes get a signal; then one of 4 is killed; then 1 finishes."""
    launched = launch(folder, "moving", 2, 4, *MESH)
    metrics = folder / "moving/metrics.jsonl"
    # The loss of an update comes from both processes, so both are in the loop.
    wait_until(lambda: metrics.exists() and rows(folder, "moving"), launched)
    os.kill(worker(folder, "moving", 1), signal.SIGTERM)
    printed, _ = launched.communicate(timeout=HANG)
    assert launched.returncode == 143, printed
    assert printed.count("which is saved: the same command goes on there") == 1

    done = len(rows(folder, "moving"))
    launched = launch(folder, "moving", 4, 2, *MESH)
    wait_until(lambda: len(rows(folder, "moving")) > done + 2, launched)
    os.kill(worker(folder, "moving", 3), signal.SIGKILL)
    printed, _ = launched.communicate(timeout=HANG)
    assert launched.returncode == 137, printed
    assert "process 3 exited with status 137" in printed

    training.train(small_config(folder, "moving", mesh__data=1, **HELD_OUT))
    assert_same_losses(folder, "one", "moving")


def worker(folder, run, process):
    """The process id of one of those that `launch` started."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            printed = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        ours = f"--config.run={folder / run}".encode() in printed
        if ours and f"--process={process}".encode() in printed and b"-m" in printed:
            return int(entry.parent.name)
    raise AssertionError("it is not running")


def wait_until(condition, process):
    started = time.monotonic()
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() - started < HANG
        time.sleep(0.01)


STAND_IN = """#!/usr/bin/env bash
# A fake Python: process 1 does what STAND_IN says, the others wait for a signal.
if [[ "$1" == -c ]]; then exec "$REAL_PYTHON" "$@"; fi
trap 'echo got INT; exit 130' INT
trap 'echo got TERM; exit 143' TERM
echo "$@" | tr ' ' '\\n' | grep -e '^--process='
if [[ " $* " == *" --process=1 "* && "$STAND_IN" == fail ]]; then exit 7; fi
for ((i = 0; i < 300; i++)); do sleep 0.1; done
"""


# Makes stdin the terminal of a new session, whose Ctrl-C is a signal to the session.
AT_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def local(tmp_path):
    """Starts `launch/local.sh` with a fake Python, in a terminal of its own."""
    (tmp_path / "python").write_text(STAND_IN)
    (tmp_path / "python").chmod(0o755)

    def start(does):
        ours, theirs = os.openpty()
        environment = {
            "REAL_PYTHON": sys.executable,
            "STAND_IN": does,
            "GRACE_SECONDS": "0",
        }
        process = subprocess.Popen(
            [sys.executable, "-c", AT_A_TERMINAL, LOCAL, "--processes=2"],
            env=os.environ | environment | {"PYTHON": str(tmp_path / "python")},
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        os.close(theirs)
        return process, ours

    return start


def test_local_gives_each_process_a_number_and_stops_all_if_one_fails(local):
    process, terminal = local("fail")
    # A real process would end because the other one failed; this one does not.
    printed, _ = process.communicate(timeout=HANG)
    os.close(terminal)
    assert process.returncode == 7
    assert "[0] --process=0" in printed and "[1] --process=1" in printed
    assert "process 1 exited with status 7; stopping the others" in printed


@pytest.mark.parametrize("way", ["terminal", "signal"])
def test_local_passes_a_signal_on_to_all_once(local, way):
    process, terminal = local("wait")
    seen = {process.stdout.readline(), process.stdout.readline()}
    assert seen == {"[0] --process=0\n", "[1] --process=1\n"}
    if way == "terminal":
        os.write(terminal, b"\x03")
    else:
        process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=HANG)
    os.close(terminal)
    name = "INT" if way == "terminal" else "TERM"
    assert process.returncode == 128 + getattr(signal, f"SIG{name}")
    assert printed.count(f"got {name}") == 2

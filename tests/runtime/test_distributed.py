"""Processes that connect and fail together."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jaxlib._jax
import pytest
from absl import flags
from absl.testing import flagsaver
from helpers.processes import HANG, free_port
from helpers.small_run import ROOT

from musilingo_jax.runtime import distributed
from musilingo_jax.runtime.errors import UsageError, UserError

pytestmark = pytest.mark.medium

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

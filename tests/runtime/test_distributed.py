"""Processes that find each other and fail together."""

import fcntl
import os
import signal
import subprocess
import sys
import termios

import pytest
from absl import flags
from absl.testing import flagsaver
from helpers.processes import free_port
from helpers.small_run import ROOT

from musilingo_jax.runtime import distributed
from musilingo_jax.runtime.errors import UsageError, UserError

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
        time.sleep(100)

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


@pytest.fixture(scope="module")
def defined():
    if "coordinator" not in flags.FLAGS:
        distributed.define_flags()
    flags.FLAGS.mark_as_parsed()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"coordinator": "h:1"}, "belong together"),
        ({"coordinator": "h", "processes": 2, "process": 0}, "must be HOST:PORT"),
        ({"coordinator": "h:1", "processes": 2, "process": 2}, "from 0 to 1"),
        (
            {"coordinator": "h:1", "processes": 2, "process": 0, "distributed": True},
            "finds by itself",
        ),
    ],
)
def test_flags_that_make_no_sense_are_refused(defined, said, message):
    with flagsaver.flagsaver(**said), pytest.raises(UsageError, match=message):
        distributed.start()


def test_without_flags_there_is_one_process(defined):
    distributed.start()
    assert not distributed.jax.distributed.is_initialized()


def test_where_nothing_tells_of_others_it_says_what_to_set(defined, monkeypatch):
    def initialize(*arguments, **options):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(distributed.jax.distributed, "initialize", initialize)
    with (
        flagsaver.flagsaver(distributed=True),
        pytest.raises(UserError, match=r"not found .* --coordinator=HOST:PORT"),
    ):
        distributed.start()


def test_a_coordinator_that_is_not_there_is_named():
    port = free_port()
    process = start(
        f"--coordinator=127.0.0.1:{port}",
        "--processes=2",
        "--process=1",
        "--connect_seconds=1",
    )
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.splitlines()[-1].startswith(
        f"error: process 1 of 2 could not reach process 0 at 127.0.0.1:{port} in 1 s"
    )


@pytest.mark.parametrize("failing", [0, 1])
def test_one_that_fails_ends_the_other(failing):
    processes = start_two(str(failing))
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    assert "error: the disk is full" in said[failing]
    other = f"process {1 - failing} ends because of process {failing}: the disk is full"
    assert other in said[1 - failing]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_that_is_told_to_end_ends_the_other_with_the_same_status(number):
    processes = start_two("wait")
    for process in processes:
        assert process.stdout.readline().startswith("process")
    processes[1].send_signal(number)
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [128 + number] * 2
    assert "process 0 ends because of process 1: it was interrupted" in said[0]


def test_both_end_well():
    processes = start_two()
    said = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert said == ["process 0 of 2\n", "process 1 of 2\n"]


STAND_IN = """#!/usr/bin/env bash
# Of Python: process 1 does what STAND_IN says, the others wait to be told.
if [[ "$1" == -c ]]; then exec "$REAL_PYTHON" "$@"; fi
trap 'echo told INT; exit 130' INT
trap 'echo told TERM; exit 143' TERM
echo "$@" | tr ' ' '\\n' | grep -e '^--process='
if [[ " $* " == *" --process=1 "* && "$STAND_IN" == fail ]]; then exit 7; fi
for ((i = 0; i < 300; i++)); do sleep 0.1; done
"""


@pytest.fixture
def local(tmp_path):
    """Starts `launch/local.sh` with a stand-in for Python, at a terminal of its own."""
    (tmp_path / "python").write_text(STAND_IN)
    (tmp_path / "python").chmod(0o755)

    def start(does):
        ours, theirs = os.openpty()
        environment = {"REAL_PYTHON": sys.executable, "STAND_IN": does}
        process = subprocess.Popen(
            [ROOT / "launch/local.sh", "--processes=2"],
            env=os.environ | environment | {"PYTHON": str(tmp_path / "python")},
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        return process, ours

    return start


def test_local_gives_each_process_a_number_and_stops_all_if_one_fails(local):
    process, terminal = local("fail")
    # The other one would end by itself, told by the one that fails; this one does not.
    said, _ = process.communicate(timeout=60)
    os.close(terminal)
    assert process.returncode == 7
    assert "[0] --process=0" in said and "[1] --process=1" in said
    assert "process 1 ended with status 7; so do the others" in said


@pytest.mark.parametrize("way", ["terminal", "signal"])
def test_local_tells_all_once(local, way):
    process, terminal = local("wait")
    seen = {process.stdout.readline(), process.stdout.readline()}
    assert seen == {"[0] --process=0\n", "[1] --process=1\n"}
    if way == "terminal":
        os.write(terminal, b"\x03")
    else:
        process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    os.close(terminal)
    name = "INT" if way == "terminal" else "TERM"
    assert process.returncode == 128 + getattr(signal, f"SIG{name}")
    assert said.count(f"told {name}") == 2

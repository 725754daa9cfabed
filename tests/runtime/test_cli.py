"""How a program ends: its exit status, and what it prints."""

import json
import os
import signal
import subprocess
import sys

import pytest
from helpers import programs
from helpers.programs import ROOT

pytestmark = pytest.mark.medium

PRELUDE = """
import io, json, os, signal, sys, threading, time
from absl import logging
from musilingo_jax.runtime import cli
from musilingo_jax.runtime.errors import UserError

"""


def python(program, *arguments):
    """Runs a program that is not one of ours."""
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


# Forks for each way of writing, with a pipe for its output that nobody reads.
CLOSED = """
def print_much(argv):
    for number in range(100_000):
        print("line", number)

def print_little(argv):
    print("fits in a buffer")

def fail_after_printing(argv):
    print("fits in a buffer")
    raise UserError("a file is missing")

def wrap_the_error(argv):
    try:
        print_much(argv)
    except OSError as error:
        raise UserError("the disk is full") from error

def draw_a_bar(argv):
    for _ in cli.progress(range(3), total=3, unit="clip", label="encoding"):
        pass

def fail_with_a_bug(argv):
    raise RuntimeError("ours")

def break_another_pipe(argv):
    raise BrokenPipeError("a connection")

def unbuffered(argv):
    sys.stdout = io.TextIOWrapper(open(1, "wb", 0), write_through=True)
    print_much(argv)

CASES = [
    (print_much, 1), (print_little, 1), (fail_after_printing, 1), (wrap_the_error, 1),
    (unbuffered, 1), (draw_a_bar, 2), (fail_with_a_bug, 2), (break_another_pipe, None),
]
for main, closed in CASES:
    if child := os.fork():
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps([main.__name__, status]), flush=True)
        continue
    for number in (1, 2):
        path = f"{sys.argv[1]}/{main.__name__}.{number}"
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    if closed is not None:
        reader, writer = os.pipe()
        os.dup2(writer, closed)
        os.close(reader)
        os.close(writer)
    cli.run(main)
"""


def test_a_closed_output_ends_a_program_quietly_with_the_status_of_sigpipe(tmp_path):
    done = python(CLOSED, str(tmp_path))
    statuses = dict(map(json.loads, done.stdout.splitlines()))
    printed = {path.name: path.read_text() for path in tmp_path.iterdir()}
    for name in ("print_much", "print_little", "fail_after_printing", "wrap_the_error"):
        assert (statuses[name], printed[f"{name}.2"]) == (141, "")
    assert (statuses["unbuffered"], printed["unbuffered.2"]) == (141, "")
    assert statuses["draw_a_bar"] == 141
    # Where only the message cannot be read, the status stays.
    assert statuses["fail_with_a_bug"] == 1
    # Another pipe is not the output.
    assert statuses["break_another_pipe"] == 1
    assert "BrokenPipeError: a connection" in printed["break_another_pipe.2"]


def test_help_into_a_closed_pipe_is_quiet():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "musilingo_jax.recipes.render", "--help"],
        cwd=ROOT,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


STUCK = """
def main(argv):
    threading.Thread(target=threading.Event().wait, args=(60,)).start()
    raise UserError("the disk is full")

cli.THREAD_TIMEOUT = 0.5
cli.run(main)
"""


def test_a_program_that_fails_does_not_wait_for_threads_that_are_stuck():
    done = python(STUCK)
    assert (done.returncode, done.stderr) == (1, "error: the disk is full\n")


STATUSES = """
def exit_with_text(argv):
    sys.exit("a text")

def exit_with_seven(argv):
    sys.exit(7)

def return_normally(argv):
    print("done")

def fail_with_a_bug(argv):
    raise RuntimeError("ours")

for main in (exit_with_text, exit_with_seven, return_normally, fail_with_a_bug):
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    else:
        cli.run(main)
"""


def test_other_ways_to_end_have_their_status():
    done = python(STATUSES)
    assert done.stdout.split() == ["1", "7", "done", "0", "1"]
    assert done.stderr.startswith("a text\nTraceback")
    assert done.stderr.endswith("RuntimeError: ours\n")


TWICE = """
def main(argv):
    try:
        print("started", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("cleaning up", flush=True)
        time.sleep(60)

cli.run(main)
"""


def test_a_second_ctrl_c_ends_a_program_without_a_traceback():
    process = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + TWICE],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in ("started\n", "cleaning up\n"):
        assert process.stdout.readline() == line
        process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == -signal.SIGINT


INTERRUPTED_COMPARISON = """
import jax

class Metadata:
    def __hash__(self):
        return 1

    def __eq__(self, other):
        os.kill(os.getpid(), signal.SIGTERM)
        return True

@jax.tree_util.register_pytree_node_class
class Node:
    def tree_flatten(self):
        return (), Metadata()

    @classmethod
    def tree_unflatten(cls, metadata, children):
        return cls()

cli.run(lambda argv: jax.tree.structure(Node()) == jax.tree.structure(Node()))
"""


def test_a_signal_that_jax_turns_into_another_error_is_still_a_signal():
    """Else a TPU that is preempted at that moment would seem to have failed."""
    done = python(INTERRUPTED_COMPARISON)
    assert done.returncode == 143
    assert done.stderr == (
        "interrupted: finished work is kept; the same command resumes.\n"
    )


NOT_A_FLAG = [
    ("train", ["--config=tiny", "more"], "unknown argument 'more'"),
    ("evaluate", ["--config=tiny", "more"], "unknown argument 'more'"),
    ("generate", ["--config=tiny", "--out=x", "more"], "unknown argument 'more'"),
    ("plan", ["--config=tiny", "more"], "unknown argument 'more'"),
    ("recipes.tiny", ["more"], "unknown argument 'more'"),
    (
        "recipes.render",
        ["--out=x", "--clips=1", "--seed=1", "--soundfont=x", "--seconds=1", "more"],
        "unknown argument 'more'",
    ),
]


@pytest.mark.parametrize(("name", "arguments", "message"), NOT_A_FLAG)
def test_an_argument_that_nothing_reads_is_refused(name, arguments, message):
    done = programs.run(name, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and message in done.stderr

"""Signals at moments when Python or a library does something else with exceptions."""

import os
import signal
import subprocess
import sys
import time
import weakref

import jax
import pytest
from helpers.processes import HANG
from helpers.programs import ROOT

from musilingo_jax.runtime import signals
from musilingo_jax.runtime.errors import causes

NUMBERS = [signal.SIGINT, signal.SIGTERM]


def send(number):
    os.kill(os.getpid(), number)


def wait():
    """Ends by a signal only."""
    started = time.monotonic()
    while time.monotonic() < started + HANG:
        time.sleep(0.01)


class Deleted:
    def __init__(self, number):
        self.number = number

    def __del__(self):
        send(self.number)


def in_weakref_callback(number):
    class Referenced:
        pass

    referenced = Referenced()
    reference = weakref.ref(referenced, lambda _: send(number))
    del referenced
    assert reference() is None


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("where", [in_weakref_callback, Deleted])
def test_a_signal_where_python_ignores_exceptions_ends_the_program(number, where):
    printed = []
    before, sys.unraisablehook = sys.unraisablehook, printed.append
    try:
        with pytest.raises(signals.Interrupted) as ended, signals.raise_at_once():
            where(number)  # The object is deleted here, unless it has been already.
            wait()
        assert sys.unraisablehook == printed.append
    finally:
        sys.unraisablehook = before
    assert ended.value.status == 128 + number
    assert printed == []


def of_a_group():
    try:
        send(signal.SIGTERM)
    except signals.Interrupted as interrupted:
        raise BaseExceptionGroup("threads", [OSError(5), interrupted]) from None


def of_a_group_of_errors():
    try:
        send(signal.SIGTERM)
    except signals.Interrupted as interrupted:
        first = RuntimeError("a task")
        first.__cause__ = interrupted
        raise ExceptionGroup("tasks", [ValueError("another"), first]) from None


def of_text_only():
    """As C++ code does, which lets go of the exception."""
    text = ""
    try:
        send(signal.SIGTERM)
    except signals.Interrupted as interrupted:
        text = f"INTERNAL: callback: {type(interrupted).__name__}: {interrupted}"
    raise RuntimeError(text)


def of_a_comparison_by_jax():
    class Metadata:
        def __hash__(self):
            return 1

        def __eq__(self, other):
            send(signal.SIGTERM)
            return True

    class Node:
        pass

    jax.tree_util.register_pytree_node(
        Node, lambda _: ((), Metadata()), lambda *_: Node()
    )
    assert jax.tree.structure(Node()) == jax.tree.structure(Node())


@pytest.mark.parametrize(
    "error", [of_a_group, of_a_group_of_errors, of_text_only, of_a_comparison_by_jax]
)
def test_what_a_library_makes_of_a_signal_is_that_signal(error):
    with pytest.raises(signals.Interrupted) as ended, signals.raise_at_once():
        error()
    assert ended.value.status == 143


def test_a_ctrl_c_that_a_library_has_raised_itself_is_one():
    with pytest.raises(signals.Interrupted) as ended, signals.raise_at_once():
        raise ValueError("cancelled") from KeyboardInterrupt()
    assert ended.value.status == 130


def test_causes_are_all_found_once():
    innermost, grouped, context = OSError(28), ValueError(), KeyError()
    group = ExceptionGroup("several", [grouped])
    grouped.__cause__ = innermost
    innermost.__context__ = group  # A circle.
    outer = RuntimeError()
    outer.__cause__, outer.__context__ = group, context
    found = list(causes(outer))
    assert found[0] is outer
    assert sorted(map(id, found)) == sorted(
        map(id, (outer, group, context, grouped, innermost))
    )


# Sends the signal when the program begins to import the module that is named.
IMPORTING = """
import os, sys
sys.addaudithook(
    lambda event, arguments: event == "import"
    and arguments[0] == {module!r}
    and os.kill(os.getpid(), {number})
)
"""


@pytest.mark.parametrize(
    ("program", "module"), [("train", "jax"), ("chat", "absl"), ("cache", "numpy")]
)
@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_during_imports_ends_a_program_quietly(
    tmp_path, program, module, number
):
    (tmp_path / "sitecustomize.py").write_text(
        IMPORTING.format(module=module, number=int(number))
    )
    done = subprocess.run(
        [sys.executable, "-m", f"musilingo_jax.{program}", "--help"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", "")


def test_importing_the_package_changes_no_handlers():
    program = (
        "import signal; before = [signal.getsignal(n) for n in (2, 15)]; "
        "import musilingo_jax; "
        "assert before == [signal.getsignal(n) for n in (2, 15)]"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


AT_EXIT = """
import atexit, os, sys, time
from musilingo_jax.runtime import cli

def leave():
    os.kill(os.getpid(), int(sys.argv[1]))
    time.sleep(600)

atexit.register(leave)
cli.run(lambda argv: None)
"""


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_at_the_very_end_of_a_program_prints_nothing(number):
    done = subprocess.run(
        [sys.executable, "-c", AT_EXIT, str(int(number))],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    # A shell gives this the status 128 + number.
    assert (done.returncode, done.stdout, done.stderr) == (-number, "", "")

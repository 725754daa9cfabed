"""The program as people run it: its flags, its notes, its end."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from helpers import programs

pytestmark = pytest.mark.medium


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--port=70000"], "70000 is not a port from 0 to 65535"),
        (["--rows=0"], "0 is not a positive whole number"),
        (["--per-minute=x"], "x is not a whole number"),
        (["song.ogg"], "unrecognized arguments: song.ogg"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(words, says):
    done = programs.run("serve", *words)
    assert done.returncode == 2
    assert says in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--api-key-file=nowhere"], "nowhere: cannot be read: No such file"),
        (["--host=no.such.host.invalid"], "--host=no.such.host.invalid: is no address"),
        (["--port=0", "--model=no/such"], "no/such: there is no such folder"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(words, says):
    done = programs.run("serve", *words, env={"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 1
    assert says in done.stderr and done.stderr.count("\n") <= 2


def test_without_its_packages_it_says_what_to_install():
    missing = "import sys; sys.modules['fastapi'] = None"
    done = programs.run("serve", "--port=0", prelude=missing)
    assert done.returncode == 2
    assert "pip install 'musilingo-jax[serve]'" in done.stderr
    done = programs.run("web", prelude="import sys; sys.modules['gradio'] = None")
    assert done.returncode == 2
    assert "pip install 'musilingo-jax[web]'" in done.stderr


@pytest.mark.slow  # A whole start: minutes on a busy machine.
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_its_status(number):
    process = subprocess.Popen(
        [sys.executable, "-m", "musilingo_jax.serve", "--port=0", "--rows=2"],
        cwd=programs.ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        address = re.fullmatch(r"musilingo-tiny answers at (\S+)/v1\n", line)[1]
        with urllib.request.urlopen(f"{address}/healthz") as answer:
            assert json.load(answer)["status"] == "ok"
        process.send_signal(number)
        _, notes = process.communicate(timeout=60)
        assert process.returncode == 128 + number
        assert f"{number.name}: no more questions are taken" in notes
        assert "Traceback" not in notes
    finally:
        process.kill()

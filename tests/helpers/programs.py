"""Programs as a user runs them, without importing everything again for each.

    done = run("chat", "song.ogg", "--ask=Why?")
    assert done.returncode == 1 and done.stderr == "error: …\n"

One server process imports JAX and the package, uses no device, and forks for each
command line; threads have a server each, so that they may run programs side by side.
The fork has its own arguments, folder, environment and output, executes
`musilingo_jax.<name>` as `__main__`, and ends as a program ends: with its exit status
or by a signal. Imports take two seconds and a fork takes milliseconds.

Only what is read after the imports can differ from one command to the next. So start a
real process for what is about importing itself.
"""

import atexit
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Done(NamedTuple):
    """What a program left: its exit status, or minus a signal's number; its output."""

    returncode: int
    stdout: str
    stderr: str


def run(name, *arguments, cwd=ROOT, env=None, stdin="", timeout=300, prelude=""):
    """Runs `python -m musilingo_jax.<name> <arguments>`.

    Args:
      name: of the program, such as "train" or "corpora.build".
      arguments: each is made a string.
      cwd: folder in which it is run.
      env: variables to set; None removes one.
      stdin: text that it reads.
      timeout: seconds after which it is killed.
      prelude: Python that its process executes first, to make something fail later.

    Returns:
      Its `Done`.

    Raises:
      TimeoutError: it was killed because it took longer.
    """
    options = {"cwd": cwd, "env": env, "stdin": stdin, "timeout": timeout}
    return _run(f"musilingo_jax.{name}", arguments, prelude=prelude, **options)


def run_script(path, *arguments, cwd=ROOT, env=None, stdin="", timeout=300, prelude=""):
    """Runs `python <path> <arguments>`, with a path from the root of the repository."""
    options = {"cwd": cwd, "env": env, "stdin": stdin, "timeout": timeout}
    return _run(str(ROOT / path), arguments, prelude=prelude, **options)


def _run(program, arguments, *, cwd, env, stdin, timeout, prelude):
    server = _server()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "stdin").write_text(stdin)
        request = {
            "program": program,
            "arguments": [str(argument) for argument in arguments],
            "cwd": str(cwd),
            "env": env or {},
            "folder": folder,
            "timeout": timeout,
            "prelude": prelude,
        }
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        status = json.loads(server.stdout.readline())
        # Bytes that are not UTF-8 become surrogates, for tests of what may be printed.
        out, err = (
            (Path(folder) / name).read_text("utf-8", "surrogateescape")
            for name in ("stdout", "stderr")
        )
    if status is None:
        raise TimeoutError(
            f"{program} {arguments}: longer than {timeout} s\n{out}\n{err}"
        )
    return Done(status, out, err)


_of_thread = threading.local()


def _server():
    """The server of this thread."""
    if not hasattr(_of_thread, "server"):
        _of_thread.server = _start_server()
    return _of_thread.server


def _start_server():
    server = subprocess.Popen(
        [sys.executable, __file__],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(server.kill)
    return server


def _serve():
    """Reads requests from stdin and answers each with an exit status."""
    import musilingo_jax.chat
    import musilingo_jax.convert.__main__
    import musilingo_jax.evaluate
    import musilingo_jax.train  # noqa: F401

    # Else each fork would copy the pages that its collections touch.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(request)
        print(json.dumps(_wait(child, request["timeout"])), flush=True)


def _wait(child, seconds):
    """The exit status of a child; None if it had to be killed."""
    expired = []

    def expire(*_):
        expired.append(child)
        os.kill(child, signal.SIGKILL)

    signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    _, status = os.waitpid(child, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    return None if expired else os.waitstatus_to_exitcode(status)


def _become(request):
    """Turns this process into the program."""
    for number, (name, flags) in enumerate(
        [("stdin", os.O_RDONLY), ("stdout", _WRITE), ("stderr", _WRITE)]
    ):
        file = os.open(f"{request['folder']}/{name}", flags)
        os.dup2(file, number)
    os.chdir(request["cwd"])
    for name, value in request["env"].items():
        os.environ.pop(name, None) if value is None else os.environ.update(
            {name: value}
        )
        _tell_jax(name, value)
    sys.argv = [request["program"], *request["arguments"]]
    sys.stdin = os.fdopen(0)
    warnings.filterwarnings("ignore", ".* found in sys.modules", RuntimeWarning)
    status = 0
    try:
        exec(request["prelude"], {})
        if request["program"].endswith(".py"):
            sys.path.insert(0, os.path.dirname(request["program"]))
            runpy.run_path(request["program"], None, "__main__")
        else:
            runpy.run_module(request["program"], None, "__main__", alter_sys=True)
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        status = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except BaseException:
        traceback.print_exc()
        status = 1
    # What Python does at its end, without taking all modules apart.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _tell_jax(name, value):
    """JAX has read its variables already."""
    import jax

    option = name.lower()
    if option in jax.config.values:
        now = jax.config.values[option]
        kind = next((kind for kind in (int, float) if isinstance(now, kind)), str)
        jax.config.update(option, None if value is None else kind(value))


_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC

if __name__ == "__main__":
    _serve()

"""Two processes train one model, one of them dies, and a single one resumes."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from helpers.programs import ROOT

from campaign import attempt, inside, results

COUNT = 8
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT)
# Far more than it takes: a process whose partner died must not wait for it.
_SECONDS = 1200
_EQUAL = 1e-5


def planned(scale: float, at_least: int = 1) -> list[int]:
    """The numbers of the attempts."""
    return list(range(max(at_least, round(scale * COUNT))))


def identity(number: int, seed: int) -> str:
    """The name of an attempt, from which all its random choices follow."""
    return f"processes/{seed}/{number}"


def try_one(number: int, *, seed: int, workspace: Path) -> dict[str, Any]:
    """Two processes train, one gets a signal, one process resumes; the row about it."""
    rng = random.Random(identity(number, seed))
    sent, dying = rng.choice(SIGNALS), rng.randrange(2)
    change = rng.randint(1, 40 if dying == 0 else 4)
    with attempt.place_of(workspace) as place:
        python = _python(place.parent, dying, inside.kill_at_change(change, sent))
        flags = [f"--config={place / 'config.py'}", *_absolute(place)]
        words = [LOCAL, "--processes=2", "--devices=1", *flags, "--config.mesh.data=2"]
        status, said = _run(words, PYTHON=str(python))
        again, more = _run([LOCAL, "--devices=1", *flags], PYTHON=sys.executable)
        outcome = _judge(status, said + more, again, sent)
        if outcome == "ended" and not _equal(place / "new", workspace / "run"):
            outcome = "different"
    return {
        "part": "processes",
        "kind": "two processes, one signal",
        "id": identity(number, seed),
        "how": f"{sent.name} to process {dying} at change {change} → {status}, {again}",
        "kills": 1,
        "outcome": outcome,
        "said": (said + more)[-600:],
    }


LOCAL = str(ROOT / "launch" / "local.sh")


def _absolute(place: Path) -> list[str]:
    """The paths of the config: launch scripts run in the repository."""
    paths = {
        "run": "new",
        "features.cache": "cache",
        "model.encoder": "encoder",
        "model.language_model": "language_model",
        "corpus.path": "corpus/songs.jsonl",
    }
    return [f"--config.{key}={place / name}" for key, name in paths.items()]


def _python(folder: Path, process: int, prelude: str) -> Path:
    """A stand-in for Python in which one of the processes executes `prelude`."""
    (folder / "program.py").write_text(
        f"import os\nos.chdir({str(folder)!r})\n{prelude}\n"
        "import runpy\n"
        "runpy.run_module('musilingo_jax.train', run_name='__main__')\n"
    )
    python = folder / "python"
    python.write_text(
        "#!/usr/bin/env bash\n"
        f'if [[ "$1" == -m && " $* " == *" --process={process} "* ]]; then\n'
        f'  exec {sys.executable} {folder}/program.py "${{@:3}}"\n'
        "fi\n"
        f'exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    return python


def _run(words: list[str], **environment: str) -> tuple[int | None, str]:
    known = os.environ | attempt.ENVIRONMENT | {"PYTHONPATH": str(ROOT)} | environment
    known.pop("JAX_NUM_CPU_DEVICES")
    try:
        done = subprocess.run(
            words, env=known, capture_output=True, text=True, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        return None, str(error)
    return done.returncode, done.stdout + done.stderr


def _judge(
    status: int | None, said: str, again: int | None, sent: signal.Signals
) -> str:
    if status is None or again is None:
        return "hang"
    if "Traceback (most recent call last)" in said:
        return "traceback"
    # Process 0 may have finished before the other would have got to the change.
    return "ended" if status in (0, 128 + sent) and again == 0 else "unclear"


def _equal(run: Path, whole: Path) -> bool:
    found, expected = results.losses(run), results.losses(whole)
    return [row[:2] for row in found] == [row[:2] for row in expected] and np.allclose(
        [row[2] for row in found], [row[2] for row in expected], atol=_EQUAL
    )

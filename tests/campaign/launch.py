"""Words of launch scripts: they reach the program as they were typed, or are refused.

`launch/local.sh` starts a stand-in for Python that writes what it was given;
`launch/tpu_pod.sh` talks to a fake gcloud.
"""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from helpers.fake_programs import LAUNCH, executable
from helpers.programs import ROOT

from campaign.outcomes import CANARY

COUNT = 160
# Far more than any of them takes.
_SECONDS = 600
_VALUES = (
    "",
    " ",
    "0",
    "08",
    "1",
    "-1",
    "9223372036854775808",
    "1" * 40,
    "0x10",
    "a[$(touch canary)]",
    "$(touch canary)",
    "`touch canary`",
    "; touch canary",
    "x y",
    "*",
    "'\"",
    "a\nb",
    "\x1b[31m",
    "é",
    "--",
    "{1..3}",
    "~",
)
_LOCAL = ("--devices=2", "--config=tiny", "--config.run=a b", "--config.seed=1")
_POD = ("all", "--name=mine", "--zone=us-west4-a", "--type=v5litepod-8")
_POD += ("--bucket=gs://mine", "--restarts=1", "--yes", "--", "--config=tiny")
# What bash itself says of a script that it cannot go on with.
_BASH = re.compile(r"\.sh: line \d+:|unbound variable|syntax error|value too great")


def planned(scale: float, at_least: int = 2) -> list[int]:
    """The numbers of the attempts."""
    return list(range(max(at_least, round(scale * COUNT))))


def identity(number: int, seed: int) -> str:
    """The name of an attempt, from which all its random choices follow."""
    return f"launch/{seed}/{number}"


def try_one(number: int, *, seed: int) -> dict[str, Any]:
    """Starts a script with odd words; the row about it."""
    rng = random.Random(identity(number, seed))
    script, words = ("local.sh", [*_LOCAL]) if number % 2 else ("tpu_pod.sh", [*_POD])
    first = number % 2 == 0
    for _ in range(rng.choice((1, 1, 2))):
        _change(rng, words, first)
    with TemporaryDirectory(prefix="campaign-") as folder:
        place = Path(folder)
        status, said = _start(script, words, place)
        outcome = _judge(script, words, status, said, place)
    return {
        "part": "launch",
        "kind": script,
        "id": identity(number, seed),
        "how": f"{words} → {status}",
        "outcome": outcome,
        "said": said[-300:],
    }


def _change(rng: random.Random, words: list[str], first: bool) -> None:
    at = rng.randrange(first, len(words))
    value = rng.choice(_VALUES)
    flag, equals, _ = words[at].partition("=")
    match rng.choice(("value", "value", "value", "insert", "drop")):
        case "value":
            words[at] = f"{flag}={value}" if equals else value
        case "insert":
            words.insert(at, value)
        case "drop" if len(words) > 2:
            del words[at]


def _start(script: str, words: list[str], place: Path) -> tuple[int | None, str]:
    write = f"import json, sys; json.dump(sys.argv[1:], open('{place}/argv', 'w'))"
    executable(
        place / "python", f'#!/bin/sh\nexec {sys.executable} -c "{write}" "$@"\n'
    )
    text = (ROOT / "tests/helpers/fake_gcloud.py").read_text()
    executable(place / "gcloud", f"#!{sys.executable} -S\n{text}")
    world = {"state": "NONE", "vm": "READY", "grants": [], "futures": []}
    (place / "world.json").write_text(json.dumps(world))
    environment = {
        "PATH": f"{place}:{os.environ['PATH']}",
        "PYTHON": str(place / "python"),
        "POLL_SECONDS": "0",
    }
    try:
        done = subprocess.run(
            [LAUNCH / script, *words],
            cwd=place,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


def _judge(
    script: str, words: list[str], status: int | None, said: str, place: Path
) -> str:
    if status is None:
        return "hang"
    if (place / CANARY).exists() or (ROOT / CANARY).exists():
        (ROOT / CANARY).unlink(missing_ok=True)
        return "executed"
    if _BASH.search(said) or "Traceback" in said:
        return "traceback"
    if status:
        return "refused" if said.strip() else "unclear"
    if script == "local.sh" and (place / "argv").exists():
        given = json.loads((place / "argv").read_text())
        own = ("--devices=", "--processes=")
        kept = [word for word in words if not word.startswith(own)]
        return "same" if given[-len(kept) :] == kept or not kept else "different"
    return "same"

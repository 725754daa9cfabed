"""Versions that were not tested are reported, and the table of tested ones is true."""

import re
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
from helpers.programs import ROOT

from musilingo_jax.runtime import tested_versions
from musilingo_jax.runtime.tested_versions import TESTED, release


@pytest.fixture
def installed(monkeypatch):
    """Sets what is installed; all else has its newest tested version."""
    versions = {package: newest for package, (_, newest) in TESTED.items()}

    def version(package):
        if versions[package] is None:
            raise metadata.PackageNotFoundError(package)
        return versions[package]

    monkeypatch.setattr(metadata, "version", version)
    tested_versions.warn.cache_clear()
    yield versions
    tested_versions.warn.cache_clear()


def test_tested_versions_are_not_mentioned(installed, capsys):
    installed["transformers"] = None  # Not installed.
    tested_versions.warn()
    assert capsys.readouterr().err == ""


def test_untested_versions_are_named_once(installed, capsys):
    installed["jax"], installed["flax"] = "0.13.0", "0.12.1"
    for _ in range(2):
        tested_versions.warn()
    oldest = TESTED["flax"][0]
    assert capsys.readouterr().err == (
        f"note: jax 0.13.0 is newer than the tested {TESTED['jax'][1]}; flax 0.12.1 "
        f"is older than the tested {oldest}. If something fails, install the tested "
        "versions: pip install -r requirements.lock\n"
    )


PROGRAM = """
from musilingo_jax.runtime import cli, tested_versions
tested_versions.TESTED["jax"] = ("99", "99")
cli.run(lambda argv: print("main"))
"""


def test_every_program_warns_and_continues():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "main\n")
    assert done.stderr.startswith(f"note: jax {metadata.version('jax')} is older than")


@pytest.mark.parametrize(
    ("version", "numbers"),
    [
        ("5.23.0", (5, 23)),
        ("0.10.2", (0, 10, 2)),
        ("0.11.0.dev20260101", (0, 11)),
        ("1.2rc1+local", (1, 2)),
        ("unknown", ()),
    ],
)
def test_a_version_is_compared_by_its_numbers(version, numbers):
    assert release(version) == numbers


def test_the_table_is_that_of_pyproject_and_the_lock():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *sum(project["optional-dependencies"].values(), []),
    ]
    minimum = dict(re.findall(r"([\w-]+)>=([\d.]+)", "\n".join(wanted)))
    for package, (oldest, newest) in TESTED.items():
        assert oldest == minimum[package], package
        assert newest == locked("requirements-newest.lock")[package], package
        assert release(oldest) == release(locked("requirements.lock")[package])


def locked(name):
    text = (ROOT / name).read_text()
    return dict(re.findall(r"^([\w-]+)==(\S+)$", text, re.MULTILINE))

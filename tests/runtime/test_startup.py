"""What a program imports before it knows what it is asked to do."""

import json
import subprocess
import sys

import pytest
from helpers.programs import ROOT

pytestmark = pytest.mark.medium

# Only the part of a program that needs one of these imports it.
HEAVY = (
    "librosa",
    "matplotlib",
    "tensorflow",
    "tensorflow_datasets",
    "torch",
    "transformers",
    "wandb",
)
# The last one needs a heavy library, so it must come after the others.
PROGRAMS = (
    "chat",
    "generate",
    "cache",
    "annotate",
    "caption",
    "instruct",
    "search",
    "benchmark",
    "train",
    "evaluate",
    "convert.__main__",
    "plan.__main__",
    "recipes.render",
    "recipes.tiny",
    "corpora.build",
)

IMPORT = """
import importlib, json, sys
heavy, *programs = sys.argv[1:]
before = set()
for program in programs:
    importlib.import_module(f"musilingo_jax.{program}")
    after = {name for name in heavy.split(",") if name in sys.modules}
    print(json.dumps([program, sorted(after - before)]))
    before = after
"""


def test_programs_start_without_libraries_that_they_may_not_need():
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, ",".join(HEAVY), *PROGRAMS],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    imported = dict(map(json.loads, done.stdout.splitlines()))
    # Corpora are builders of that library, and `corpora.build` offers nothing else.
    assert imported.pop("corpora.build") == ["tensorflow_datasets"]
    assert imported == {name: [] for name in PROGRAMS[:-1]}

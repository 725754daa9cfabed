"""What a program imports before it knows what it is asked to do."""

import json
import subprocess
import sys

from helpers.programs import ROOT

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
PROGRAMS = (
    "train",
    "evaluate",
    "generate",
    "chat",
    "cache",
    "convert.__main__",
    "plan.__main__",
    "corpora.build",
    "recipes.tiny",
    "recipes.render",
)

# Each program is imported by a fork, so that JAX is imported once.
IMPORT = """
import importlib, json, os, sys, warnings
import flax.nnx, jax
warnings.simplefilter("ignore")
heavy, *programs = sys.argv[1:]
for program in programs:
    if os.fork() == 0:
        importlib.import_module(f"musilingo_jax.{program}")
        imported = {name.partition(".")[0] for name in sys.modules}
        print(json.dumps([program, sorted(imported & set(heavy.split(",")))]))
        break
    _, status = os.wait()
    assert status == 0, program
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
    assert imported == {name: [] for name in PROGRAMS if name != "corpora.build"}

"""`benchmarks/card.py` as a user runs it, at small shapes, with little installed."""

import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.programs import ROOT
from helpers.released_configs import MERT_330M
from on_card import encode, sizes, step, table
from on_card.ceilings import Ceilings
from on_card.part import Clock, Part, times
from on_card.weights import DEVIATION, random_llama

from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.plan import model_shapes
from musilingo_jax.runtime.sharding import make_mesh

pytestmark = pytest.mark.medium

CARD = ROOT / "benchmarks" / "card.py"
NEEDED = ("jax", "flax", "jaxtyping", "absl-py")
# Python imports it from PYTHONPATH when it starts, in every process.
ONLY_WHAT_IS_NEEDED = """
import sys

class Refuse:
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in {refused!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
"""


def card(*flags, cwd, **environment):
    return subprocess.run(
        [sys.executable, CARD, *flags],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=400,
        env=os.environ | environment,
    )


def requirements(name, extras=()):
    """The packages that pip installs for one, itself included."""
    found, waiting = set(), [(name, tuple(extras))]
    while waiting:
        name, extras = waiting.pop()
        try:
            asked = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # For another system.
        name = re.sub(r"[-_.]+", "-", name).lower()
        if (name, extras) in found:
            continue
        found.add((name, extras))
        for line in asked:
            needed, _, marker = line.partition(";")
            if "extra ==" in marker and not any(
                re.search(rf"extra == [\"']{extra}[\"']", marker) for extra in extras
            ):
                continue
            parts = re.match(r"([\w.-]+)(?:\[([\w,-]+)\])?", needed.strip())
            waiting.append((parts[1], tuple((parts[2] or "").split(","))))
    return {name for name, _ in found}


@pytest.fixture
def little_installed(tmp_path):
    """A folder for PYTHONPATH: what `NEEDED` does not bring cannot be imported."""
    allowed = set().union(*map(requirements, NEEDED))
    packages = importlib.metadata.packages_distributions()
    refused = {
        module
        for module, names in packages.items()
        if not allowed & {re.sub(r"[-_.]+", "-", name).lower() for name in names}
    } - {"musilingo_jax", "_distutils_hack"}
    assert {"ml_collections", "grain", "tokenizers", "torch", "soundfile"} <= refused
    assert not refused & {"jax", "flax", "optax", "numpy", "orbax", "etils"}
    folder = tmp_path / "path"
    folder.mkdir()
    text = ONLY_WHAT_IS_NEEDED.format(refused=refused)
    (folder / "sitecustomize.py").write_text(text)
    return folder


@pytest.mark.slow
def test_all_parts_run_with_jax_flax_jaxtyping_and_absl(tmp_path, little_installed):
    """Without `--small`, and without this package on the path."""
    done = card(
        "--out=x.json", "--minutes=6", cwd=tmp_path, PYTHONPATH=str(little_installed)
    )
    assert done.returncode == 0, done.stderr
    assert "JAX finds no accelerator: small shapes" in done.stdout
    assert re.search(r"^\[ *\d+ s left\] decode: ", done.stdout, re.M)
    results = json.loads((tmp_path / "x.json").read_text())
    assert results["table"] in done.stdout
    assert results["small"] and not results["stopped"]
    assert results["device"]["platform"] == "cpu"
    assert {"python", "jax", "jaxlib", "flax", "musilingo_jax"} <= set(
        results["versions"]
    )
    measured = {n: part["measurements"] for n, part in results["parts"].items()}
    assert list(measured) == [
        *("peak", "copy", "step", "encode", "decode", "captions", "original")
    ]
    (original,) = measured.pop("original")
    assert original["not_run"] == "torch is not installed"
    for made in (made for part in measured.values() for made in part):
        assert not {"not_run", "failed"} & made.keys(), made
        if "seconds" in made:
            assert 0 < made["least_seconds"] <= made["seconds"] <= made["most_seconds"]
            assert made["compile_seconds"] >= 0
    best = max(made["tflop_per_second"] for made in measured["peak"])
    fastest = max(made["gb_per_second"] for made in measured["copy"])
    updates = [made for made in measured["step"] if "rows" in made]
    assert {made["weights"] for made in updates} == {"bfloat16", "int8"}
    assert {made["remat"] for made in updates} == {"dots", "nothing"}
    for made in updates:
        tokens = made["rows"] * sizes.SMALL.row_length
        assert made["tokens_per_second"] == pytest.approx(tokens / made["seconds"])
        assert made["mfu"] == pytest.approx(made["tflop_per_second"] / best)
        assert made["mfu_6n"] > 0
    (once, *_) = measured["encode"]
    seconds = once["clips"] * sizes.SMALL.clip_seconds
    assert once["times_real_time"] == pytest.approx(seconds / once["seconds"])
    assert once["mfu"] > 0
    decoded = [made for made in measured["decode"] if "rows" in made]
    assert {(made["weights"], made["rows"]) for made in decoded} == {
        (weights, rows)
        for weights in ("bfloat16", "int8")
        for rows in sizes.SMALL.decode_rows
    }
    for made in decoded:
        assert made["tokens_per_second"] > 0
        share = made["gb_per_second"] / fastest
        assert made["bandwidth_share"] == pytest.approx(share)
    *_, captions = measured["captions"]
    assert captions["captions_per_second"] > 0


def test_an_update_is_measured():
    mesh = make_mesh(1, 1, 1)
    llama = random_llama(sizes.SMALL.llama, quantization="", mesh=mesh)
    found = step.update_figures(
        sizes.SMALL, Ceilings(flops=1e12), llama, mesh, rows=2, remat="everything"
    )
    assert found["mfu"] == pytest.approx(found["tflop_per_second"]) and found["mfu"] > 0
    assert found["mfu_6n"] > 0
    tokens = 2 * sizes.SMALL.row_length
    assert found["tokens_per_second"] == pytest.approx(tokens / found["seconds"])


def test_the_shapes_are_those_of_the_released_models():
    released = model_shapes.LANGUAGE_MODELS["m-a-p/MusiLingo-long-v1"]
    assert sizes.CARD.llama == released
    encoder = MertConfig.from_dict(MERT_330M | {"do_normalize": True})
    assert sizes.CARD.mert == encoder
    samples = sizes.CARD.samples(sizes.CARD.clip_seconds)
    # 300 million weights of layers on 749 frames, 2 operations each; convolutions.
    assert encode.forward_flops(encoder, samples) == pytest.approx(7e11, rel=0.2)


@pytest.mark.parametrize(("quantization", "gigabytes"), [("", 13.48), ("int8", 6.88)])
def test_a_7b_is_made_in_its_own_type(quantization, gigabytes):
    """Compiled only: float32 would take 27 GB; what is besides is a few stacks."""

    def make():
        return random_llama(
            sizes.CARD.llama, quantization=quantization, mesh=make_mesh(1, 1, 1)
        )

    memory = jax.jit(make).lower().compile().memory_analysis()
    assert memory.output_size_in_bytes / 1e9 == pytest.approx(gigabytes, abs=0.01)
    assert memory.temp_size_in_bytes < 6e9


def test_random_weights_have_the_deviation_of_their_kernels():
    mesh = make_mesh(1, 1, 1)
    plain, int8 = (
        random_llama(sizes.SMALL.llama, quantization=q, mesh=mesh) for q in ("", "int8")
    )
    assert plain.layers.gate.kernel.dtype == jax.numpy.bfloat16
    assert int8.layers.gate.kernel.dtype == jax.numpy.int8
    first, second = np.asarray(plain.layers.gate.kernel[...], np.float32)
    assert np.abs(first - second).max() > DEVIATION  # Layers differ.
    scale = np.asarray(int8.layers.gate.scale[...])
    restored = np.asarray(int8.layers.gate.kernel[...]) * scale[..., None]
    for kernel in (first, second, restored, np.asarray(int8.embedding[...])):
        assert np.std(kernel.astype(np.float32)) == pytest.approx(DEVIATION, rel=0.05)
    assert (np.asarray(plain.layers.mlp_norm.scale[...]) == 1).all()


def test_what_does_not_fit_is_noted_and_the_others_go_on(capsys):
    part = Part("step", Clock(60), 60)

    def too_large():
        return {"bytes": jax.numpy.zeros(1 << 50, "int8").nbytes}

    def broken():
        raise ValueError("a first line\nand a second")

    assert part.measure("all memory", too_large, rows=4) is None
    assert not part.failed
    assert part.measure("a fault", broken) is None
    assert part.failed
    assert part.measure("the next", lambda: {"tokens_per_second": 5.0})
    too_much, fault, after = part.measurements
    assert too_much["rows"] == 4 and too_much["not_run"].startswith("out of memory (")
    assert fault["failed"] == "ValueError: a first line"
    assert after == {"what": "the next", "tokens_per_second": 5.0}
    printed = capsys.readouterr()
    assert "all memory: not run: out of memory" in printed.out
    assert "the next: 5 tokens/s" in printed.out
    assert "ValueError: a first line" in printed.err


def test_an_error_between_measurements_ends_the_part_only():
    part = Part("encode", Clock(60), 60)

    def weights():
        raise RuntimeError("no weights")

    part.guard(weights)
    assert part.measurements == [{"what": "all", "failed": "RuntimeError: no weights"}]
    assert part.failed


@pytest.fixture
def sleep(monkeypatch):
    """A function that lets time pass, without waiting."""
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def pass_by(seconds):
        now[0] += seconds

    return pass_by


def test_each_half_of_a_part_has_its_share_of_the_time(sleep):
    part = Part("step", Clock(60), 40)
    part.begin(2)
    assert part.measure("first", lambda: sleep(25) or {"gigabytes": 1.0})
    assert part.measure("late", lambda: {"gigabytes": 1.0}) is None
    part.begin(1)
    assert part.measure("second half", lambda: sleep(16) or {"gigabytes": 1.0})
    assert part.measure("too late", lambda: {"gigabytes": 1.0}) is None
    over = "its share of the time was over"
    assert [made.get("not_run") for made in part.measurements] == [
        *(None, over, None, over)
    ]


def test_times_leave_the_first_two_runs_out(sleep):
    waits = iter([9.0, 4.0, 0.5, 1.0, 0.75, 0.25, 0.75])
    assert times(lambda: sleep(next(waits))) == {
        "seconds": 0.75,
        "least_seconds": 0.25,
        "most_seconds": 1.0,
        "compile_seconds": 8.25,
    }
    waits = iter([9.0, 4.0, 2.0, 2.0, 2.0, None])  # Three that take long are enough.
    assert times(lambda: sleep(next(waits)))["seconds"] == 2.0


def test_the_table_names_the_device_and_what_was_not_run():
    results = {
        "device": {"kind": "NVIDIA H100", "platform": "gpu"},
        "versions": {"jax": "0.10.2"},
        "date": "2026-11-29T10:00:00+00:00",
        "small": False,
        "parts": {
            "peak": {"measurements": [{"what": "8192", "not_run": "out | of memory"}]}
        },
    }
    *_, row = lines = table.markdown(results).splitlines()
    assert lines[0] == "NVIDIA H100 (gpu), 2026-11-29, jax 0.10.2:"
    assert row == "| peak | 8192 |  |  | not run: out \\| of memory |"


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--parts=peak,pork", "--parts: 'pork' is not one of peak, copy"),
        ("--parts=", "--parts is empty"),
        ("--minutes=0", "--minutes=0.0 must be above 0"),
        ("--minutes=soon", "flag --minutes=soon"),
        ("--rows=4,x", "--rows: 'x' is not a positive whole number"),
        ("--out=nowhere/x.json", "--out=nowhere/x.json: name a file"),
        ("--partss=peak", "Unknown command line flag 'partss'"),
        ("peak", "'peak' is not a flag"),
    ],
)
def test_a_wrong_flag_gets_one_sentence(tmp_path, flag, sentence):
    done = card(flag, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert sentence in done.stderr
    assert not list(tmp_path.iterdir())


def test_ctrl_c_writes_what_was_measured(tmp_path):
    process = subprocess.Popen(
        [sys.executable, CARD, "--parts=peak,step", "--out=x.json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if "peak: " in line:
            break
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=200)
    assert process.returncode == 130, errors
    assert errors == "stopped; what was measured is written\n"
    results = json.loads(Path(tmp_path, "x.json").read_text())
    assert results["stopped"]
    *_, last = [m for p in results["parts"].values() for m in p["measurements"]]
    assert "seconds" in last or last["not_run"] == "stopped"
    assert results["parts"]["peak"]["measurements"][0]["tflop_per_second"] > 0
    assert "| peak | " in rest


def test_a_part_brings_those_that_it_needs(tmp_path):
    done = card("--parts=encode", "--out=x.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "measured, too, because others need it: peak" in done.stdout
    parts = json.loads((tmp_path / "x.json").read_text())["parts"]
    assert list(parts) == ["peak", "encode"]


@pytest.mark.slow
def test_the_original_is_measured_beside_ours(tmp_path):
    done = card("--parts=original", "--out=x.json", "--minutes=6", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "x.json").read_text())
    assert {"torch", "transformers"} <= results["versions"].keys()
    found = {
        made["work"]: made for made in results["parts"]["original"]["measurements"]
    }
    assert list(found) == ["encode", "step", "decode"]
    for made in found.values():
        assert made["seconds"] > 0 and made["ours_times_as_fast"] > 0

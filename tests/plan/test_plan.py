"""Plans: on this machine's compiler throughout, on the TPU's where it is installed."""

import itertools
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from types import SimpleNamespace

import jax
import pytest
from helpers import cpu_slices, processors, programs, released_configs
from helpers.small_run import LANGUAGE_MODEL, ROOT, load_config

from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.remat import POLICIES
from musilingo_jax.plan import (
    compile,
    model_shapes,
    search,
    tables,
    tpu_slices,
    train_program,
)
from musilingo_jax.plan import job as plan_jobs
from musilingo_jax.plan.__main__ import pasted
from musilingo_jax.plan.compile import CompiledPlan
from musilingo_jax.plan.model_shapes import Shapes
from musilingo_jax.plan.tpu_slices import CHIPS, Topology
from musilingo_jax.plan.train_program import TrainJob
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.training import flops as costs
from musilingo_jax.training.stage_config import StageConfig

TINY = LlamaConfig.from_dict(LANGUAGE_MODEL | {"vocab_size": 300})


@pytest.fixture(scope="module")
def slice_of_cpus() -> Iterator[Topology]:
    """Eight devices of this machine that pass for a v5e-8."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Topology, "devices", lambda self: jax.devices()[:8])
        yield Topology.parse("v5e-8")


@pytest.fixture(scope="module")
def plan(slice_of_cpus) -> CompiledPlan:
    return compile.make_plan(tiny_job(slice_of_cpus, data=2, fsdp=2, tensor=2))


def tiny_job(topology: Topology, **mesh: int) -> TrainJob:
    config = load_config("tiny").get_config()
    config.stage2.batch_size, config.stage2.rows, config.stage2.accumulate = 16, 8, 2
    config.stage2.max_tokens, config.stage2.max_windows = 24, 2
    config.stage2.prompt.max_answer_tokens = 8
    stage = StageConfig.from_config(config, "stage2")
    return TrainJob(
        name="stage2",
        stage=stage,
        row=train_program.largest_row(stage),
        shapes=Shapes(TINY, 16, "this test"),
        dtype="float32",
        quantization="",
        mesh=mesh,
        topology=topology,
    )


@pytest.mark.parametrize(
    ("name", "grid", "chips"),
    [
        ("v5e-1", "v5e:1x1", 1),
        ("v5e-8", "v5e:2x4", 8),
        ("v5e:2x4", "v5e:2x4", 8),
        ("v5litepod-256", "v5e:16x16", 256),
        ("v4-32", "v4:2x2x4", 16),  # The name counts cores.
        ("V5P-8", "v5p:2x2x1", 4),
        ("v5p:2x2", "v5p:2x2x1", 4),
        ("v6e-8", "v6e:2x4", 8),
        ("tpu7x-8", "tpu7x:2x2x1", 4),
    ],
)
def test_names_of_slices(name, grid, chips):
    found = Topology.parse(name)
    assert (found.name, found.chips) == (grid, chips)
    assert Topology.parse(found.sold_as) == found


def test_a_chip_of_two_devices():
    topology = Topology.parse("tpu7x-16")
    assert (topology.chips, topology.size, topology.unit) == (8, 16, "device")
    # A link on each of three sides, shared by two, and the link between the two.
    assert topology.exchange == 3 * 100e9 / 2 + 600e9
    assert Topology.parse("v5p-16").unit == "chip"


def test_slices_have_as_many_chips_as_their_names_say():
    for chip in CHIPS.values():
        for number, shape in chip.slices.items():
            assert math.prod(shape) * chip.cores == number
        assert 100 < chip.ridge < 1000  # So its peak is known.


@pytest.mark.parametrize("name", ["v5e-3", "v9-8", "tpu", "v5e:2x2x2", "v5p:0x2x1", ""])
def test_slices_that_there_are_not(name):
    with pytest.raises(UserError, match=r"not a known TPU slice.*v5e-1\|4\|8"):
        Topology.parse(name)


def test_without_the_compiler_it_says_how_to_get_it(monkeypatch):
    def refuse(**_):
        raise RuntimeError("no libtpu")

    monkeypatch.setattr("jax.experimental.topologies.get_topology_desc", refuse)
    monkeypatch.setattr(tpu_slices, "compiler_is_installed", lambda: False)
    with pytest.raises(UserError, match=re.escape("pip install -e '.[plan]'")):
        Topology.parse("v5e-8").devices()
    monkeypatch.setattr(tpu_slices, "compiler_is_installed", lambda: True)
    with pytest.raises(UserError, match="does not know v5e:2x4"):
        Topology.parse("v5e-8").devices()


@pytest.mark.parametrize(
    ("name", "released"),
    [
        ("m-a-p/MusiLingo-long-v1", "VICUNA_7B_V0"),
        ("lmsys/vicuna-13b-delta-v0", "VICUNA_13B_V0"),
        ("lmsys/vicuna-7b-v1.5", "VICUNA_7B_V1_5"),
        ("huggyllama/llama-7b", "LLAMA_1_7B"),
        ("meta-llama/Llama-2-7b-hf", "LLAMA_2_7B"),
        ("meta-llama/Llama-2-13b-hf", "LLAMA_2_13B"),
    ],
)
def test_known_shapes_are_those_of_the_released_files(name, released):
    config = getattr(released_configs, released)
    # The name tells the rows of Vicuna v0 that the original's file lacks.
    said = LlamaConfig.from_dict(config)
    assert replace(model_shapes.LANGUAGE_MODELS[name], vocab=said.vocab) == said


def test_known_shapes_have_as_many_parameters_as_their_names_say():
    published = {"7b": 6.74, "13b": 13.0, "Llama-3-8B": 8.03, "Llama-3-70B": 70.6}
    published |= {"Llama-3.1-8B": 8.03, "Llama-3.1-70B": 70.6, "Mistral-7B": 7.24}
    published |= {"Qwen2.5-7B": 7.62, "Qwen3-8B": 8.19}
    published |= {"SmolLM2-135M": 0.1345, "SmolLM3-3B": 3.08, "MusiLingo": 6.74}
    published["MU-LLaMA"] = 6.74
    for name, llama in model_shapes.LANGUAGE_MODELS.items():
        size = llama.depth * costs.layer_weights(llama)
        size += (1 if llama.tied else 2) * llama.vocab * llama.width
        (billions,) = [count for part, count in published.items() if part in name]
        assert size / 1e9 == pytest.approx(billions, rel=0.005), name


def test_known_shapes_are_those_of_written_configs():
    for llama in model_shapes.LANGUAGE_MODELS.values():
        assert LlamaConfig.from_dict(llama.to_dict()) == llama


def test_shapes_from_a_file_and_from_a_name(tmp_path):
    config = load_config("musilingo").get_config()
    found = model_shapes.shapes(config, language_model_config="", encoder_width=0)
    assert (found.language_model.width, found.encoder_width) == (4096, 1024)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(LANGUAGE_MODEL | {"vocab_size": 300}))
    found = model_shapes.shapes(
        config, language_model_config=str(file), encoder_width=16
    )
    assert (found.language_model, found.encoder_width) == (TINY, 16)
    with pytest.raises(
        UserError, match="--language_model_config=7b: this is neither a file"
    ):
        model_shapes.shapes(config, language_model_config="7b", encoder_width=0)


def test_a_model_whose_files_are_elsewhere(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = load_config("musilingo").get_config("./nowhere")
    with pytest.raises(UserError, match="--language_model_config"):
        model_shapes.shapes(config, language_model_config="", encoder_width=0)


def test_the_largest_row_holds_the_longest_examples():
    stage = tiny_job(Topology.parse("v5e-8")).stage
    # 16 examples in 8 rows: two a row.
    assert asdict(train_program.largest_row(stage)) == {
        "length": 48,
        "windows": 4,
        "answers": 16,
    }


def test_a_mesh_must_take_all_chips(slice_of_cpus):
    mesh = {"data": -1, "fsdp": 2, "tensor": 2}
    assert plan_jobs.mesh_sizes(mesh, slice_of_cpus)["data"] == 2
    with pytest.raises(UserError, match="v5e-8 has 8 chips"):
        plan_jobs.mesh_sizes({"data": 1, "fsdp": 2, "tensor": 2}, slice_of_cpus)


@pytest.mark.slow
def test_a_plan_adds_up(plan):
    assert plan.fits and not plan.unknown and not plan.costs.unknown_loops
    numbers = plan.to_dict()["per_chip"]
    assert json.loads(json.dumps(numbers)) == numbers
    memory = numbers["memory"]
    adapter = 4 * (16 * 32 + 32)
    # Replicated, with two moments and two counts of AdamW.
    assert memory["adapter"] == adapter
    assert memory["optimiser"] == 2 * adapter + 2 * 4
    # A quarter of 16 rows: 4 windows of 16 numbers, 4 · 48 and 16 whole ones each.
    assert memory["batch"] == 4 * 4 * (4 * 16 + 4 * 48 + 16)
    whole = 4 * (300 * 32 * 2 + 2 * costs.layer_weights(TINY) + 5 * 32)
    assert whole / 4 <= memory["weights"] < whole / 3
    assert numbers["memory_total"] == sum(memory.values())
    # More than the mathematics asks for, and not the double of it.
    assert 1 < plan.costs.flops / plan.model_flops < 2
    assert {exchange.kind for exchange in plan.costs.exchanges} >= {"all-reduce"}
    times = plan.roofline
    assert times.least_seconds == times.seconds[times.bound]
    assert times.least_seconds == max(times.seconds.values())
    assert times.least_seconds < times.apart_seconds < 3 * times.least_seconds
    assert 0 < plan.most_utilisation < 1


def test_costs_that_are_unknown_leave_a_plan_of_memory(plan, slice_of_cpus):
    reason = "this version of XLA writes its programs differently: ValueError('{')"
    unknown = replace(plan, costs=None, unknown=reason)
    assert unknown.fits and unknown.roofline is None
    numbers = unknown.to_dict()
    assert json.loads(json.dumps(numbers)) == numbers
    assert numbers["unknown"] == reason and numbers["fits"]
    per_chip = numbers["per_chip"]
    assert per_chip["memory_total"] == plan.total
    assert (
        per_chip["flops"] is per_chip["exchanges"] is numbers["least_seconds"] is None
    )
    text = tables.describe(unknown)
    assert f"time: unknown ({reason})" in text and "fits: " in text
    assert tables.ranking([unknown]).splitlines()[1].count("unknown") == 3
    assert tables.markdown([unknown]).splitlines()[2].count("unknown") == 7


def test_a_plan_is_made_although_its_program_cannot_be_read(slice_of_cpus, monkeypatch):
    class Compiled:
        def memory_analysis(self):
            names = ("argument", "temp", "output", "alias", "generated_code")
            sizes = {f"{name}_size_in_bytes": 8 for name in names}
            return SimpleNamespace(peak_memory_in_bytes=14, **sizes)

        def as_text(self):
            return "HloModule {"

    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda self: Compiled())
    found = compile.make_plan(tiny_job(slice_of_cpus, data=8, fsdp=1, tensor=1))
    assert found.fits and found.memory["temporary"] == 8 and found.peak == 6
    assert found.to_dict()["per_chip"]["temporary_peak"] == 6
    assert "in use at once: 0.000 GiB" in tables.describe(found)
    assert "not the text of a compiled program" in found.unknown


def test_rows_must_divide(slice_of_cpus):
    job = train_program.resized(
        tiny_job(slice_of_cpus), mesh={}, accumulate=4, examples_per_row=2
    )
    assert (job.stage.rows, job.stage.accumulate, job.stage.batch_size) == (4, 4, 8)
    with pytest.raises(UserError, match=r"stage2\.rows is 4"):
        compile.make_plan(replace(job, mesh={"data": 8, "fsdp": 1, "tensor": 1}))


def test_what_does_not_fit_is_told(slice_of_cpus, monkeypatch):
    said = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for "
        "HLO temporaries (16.42G) exceeds available HBM (15.75G).\nMore of it."
    )

    def refuse(*_, **__):
        raise jax.errors.JaxRuntimeError(said)

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    plan = compile.make_plan(tiny_job(slice_of_cpus, data=8, fsdp=1, tensor=1))
    assert not plan.fits and plan.to_dict()["per_chip"]["memory_total"] is None
    for text in (tables.describe(plan), tables.markdown([plan])):
        assert "16.42G" in text and "15.75G" in text and "More of it" not in text
    assert "does not fit" in tables.ranking([plan])


def test_what_the_compiler_takes_may_not_fit_with_what_is_held(
    slice_of_cpus, monkeypatch
):
    """The compiler counts the temporary arrays alone."""

    class Compiled:
        def memory_analysis(self):
            chip = slice_of_cpus.chip
            names = ("argument", "output", "alias", "generated_code")
            sizes = {f"{name}_size_in_bytes": 0 for name in names}
            return SimpleNamespace(temp_size_in_bytes=2 * chip.memory, **sizes)

    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda self: Compiled())
    plan = compile.make_plan(tiny_job(slice_of_cpus, data=8, fsdp=1, tensor=1))
    assert not plan.fits and plan.roofline is None
    text = tables.describe(plan)
    assert "temporary arrays" in text and "fits:" not in text
    assert plan.peak is None and "in use at once" not in text
    assert "a program may use: all parts together take" in text


def test_search_tries_what_divides_and_keeps_the_update(slice_of_cpus):
    job = tiny_job(slice_of_cpus)
    ways = [found.job for found in search.candidates(job)]
    meshes = {tuple(way.mesh.values()) for way in ways}
    # Four heads: tensor is 1, 2 or 4.
    assert meshes == {
        (8 // tensor // fsdp, fsdp, tensor)
        for tensor in (1, 2, 4)
        for fsdp in (1, 2, 4, 8)
        if tensor * fsdp <= 8
    }
    for way in ways:
        assert way.stage.batch_size * way.stage.accumulate == 32
        # Two examples a row, as in the config, or one if two do not divide.
        assert (way.row.length, way.rows) in {(48, 16), (24, 32)}
        assert way.stage.rows % (way.mesh["data"] * way.mesh["fsdp"]) == 0


def test_search_tries_what_the_backward_pass_keeps():
    """The less it keeps, the less memory and the more time, by the estimate."""
    job = replace(
        tiny_job(Topology.parse("v5e-8")),
        shapes=Shapes(model_shapes.LANGUAGE_MODELS["huggyllama/llama-7b"], 1024, ""),
        dtype="bfloat16",
    )
    by_policy = {policy: [] for policy in POLICIES}
    for found in search.candidates(job):
        by_policy[found.job.stage.remat].append(found)
    for kept_less, kept_more in itertools.pairwise(by_policy.values()):
        assert len(kept_less) == len(kept_more) > 0
        for less, more in zip(kept_less, kept_more, strict=True):
            assert less.memory < more.memory
            assert less.seconds >= more.seconds


def test_search_ranks_what_it_compiles(plan, monkeypatch, capsys):
    # The first does not fit, the costs of the second are unknown, the third is slower
    # than the fourth.
    made = iter(((False, 1.0), (True, -1.0), (True, 9e9), (True, 3e9)))

    def make(job: TrainJob) -> CompiledPlan:
        fits, flops = next(made)
        costs = replace(plan.costs, flops=flops)
        if not fits:
            return replace(plan, job=job, refusal="too large", costs=None)
        if flops < 0:
            return replace(plan, job=job, costs=None, unknown="unread")
        return replace(plan, job=job, costs=costs)

    monkeypatch.setattr(search, "make_plan", make)
    found = search.search(plan.job, programs=4, seconds=600)
    assert [(other.fits, other.costs and other.costs.flops) for other in found] == [
        (True, 3e9),
        (True, 9e9),
        (True, None),
        (False, None),
    ]
    assert "compiling 4 of 4" in capsys.readouterr().err
    assert "does not fit" in tables.ranking(found).splitlines()[-1]
    flags = pasted(found[0], load_config("tiny").get_config())
    assert all(re.fullmatch(r"--config\.[\w.]+=\w+", flag) for flag in flags)
    # Time is up at once: one is compiled all the same.
    made = iter(((True, 1e9),))
    assert len(search.search(plan.job, programs=3, seconds=0)) == 1


def test_search_takes_int8_where_nothing_else_fits(slice_of_cpus, monkeypatch):
    tried = []

    def make(job):
        tried.append(job)
        raise UserError("far enough")

    monkeypatch.setattr(search, "make_plan", make)
    job = replace(
        tiny_job(Topology.parse("v5e-1")),
        shapes=Shapes(model_shapes.LANGUAGE_MODELS["huggyllama/llama-13b"], 1024, ""),
    )
    with pytest.raises(UserError, match="far enough"):
        search.search(job, programs=1, seconds=1)
    assert tried[0].quantization == "int8"
    huge = replace(job.shapes.language_model, depth=400)
    job = replace(job, shapes=replace(job.shapes, language_model=huge))
    with pytest.raises(UserError, match="nothing fits"):
        search.search(job, programs=1, seconds=1)


def test_a_wrong_command_line():
    done = programs.run("plan", "--config=configs/tiny.py", "--topology=v5e-3")
    assert done.returncode == 1 and done.stderr.startswith("error: --topology=v5e-3")


@pytest.mark.parametrize(
    ("dtype", "planned"), [("auto", "bfloat16"), ("float32", "float32")]
)
def test_auto_is_planned_in_the_type_of_the_tpu(dtype: str, planned: str):
    """Whatever the processor that plans: here one without bfloat16 units."""
    prelude = (
        "from musilingo_jax.plan import compile\n"
        "from musilingo_jax.runtime import processor\n"
        "from musilingo_jax.runtime.errors import UserError\n"
        f"processor.cpuinfo = lambda: {processors.AVX2!r}\n"
        "def make_plan(job):\n"
        "    raise UserError(f'planned in {job.dtype}')\n"
        "compile.make_plan = make_plan\n"
    )
    done = programs.run(
        "plan",
        "--config=finetune_musiccaps",
        f"--config.model.dtype={dtype}",
        "--topology=v5e-8",
        prelude=cpu_slices.PRELUDE + prelude,
    )
    assert f"error: planned in {planned}\n" in done.stderr


def run(*command: str) -> str:
    """The output of a Python of its own, as a user's shell starts it."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES")
    }
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_tpu_compiler_knows_the_slices_and_their_chips():
    pytest.importorskip("libtpu")
    code = """
from musilingo_jax.plan import tpu_slices
tpu_slices.prepare()
for chip in tpu_slices.CHIPS.values():
    topology = tpu_slices.Topology(chip, list(chip.slices.values())[1])
    devices = topology.devices()
    print(chip.name, devices[0].device_kind == chip.device_kind,
          len(devices) == topology.size)
"""
    found = [line.split() for line in run("-c", code).splitlines()]
    assert found == [[name, "True", "True"] for name in CHIPS]


def test_the_tpu_compiler():
    pytest.importorskip("libtpu")
    output = run(
        *("-m", "musilingo_jax.plan"),
        "--config=configs/tiny.py",
        "--config.mesh.tensor=2",
        "--topology=v5e-8",
        "--length=64",
        "--json",
    )
    said = json.loads(output)
    assert said["fits"] and said["chips"] == 8
    assert not said["unknown"] and not said["unknown_loops"]
    assert said["mesh"] == {"data": 4, "fsdp": 1, "tensor": 2}
    assert 1 < said["per_chip"]["flops"] / said["per_chip"]["model_flops"] < 2
    kinds = {exchange["kind"] for exchange in said["per_chip"]["exchanges"]}
    assert "all-reduce" in kinds
    assert said["per_chip"]["memory_total"] < 0.1 * 2**30


def test_search_finds_better_blocks_than_small_ones():
    """For another language model than the tiny one, whose heads have no kernel."""
    job = tiny_job(Topology.parse("v5e-8"))
    assert search.with_best_blocks(replace(job, mesh={"tensor": 1})).stage == job.stage
    job = replace(
        job,
        shapes=Shapes(model_shapes.LANGUAGE_MODELS["huggyllama/llama-7b"], 1024, ""),
        dtype="bfloat16",
        mesh={"data": 8, "fsdp": 1, "tensor": 1},
        row=replace(job.row, length=1280),
        stage=replace(job.stage, query_block=128, key_block=128),
    )
    found = search.with_best_blocks(job)
    assert (found.stage.query_block, found.stage.key_block) != (128, 128)
    assert found.stage.query_block * found.stage.key_block <= 1024**2
    assert search.estimate(found).seconds < search.estimate(job).seconds
    chosen = {
        (way.job.stage.query_block, way.job.stage.key_block)
        for way in search.candidates(job)
    }
    assert chosen and (128, 128) not in chosen

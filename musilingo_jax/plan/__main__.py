"""Tells whether training fits on a TPU, and how fast it can be, without a TPU.

    python -m musilingo_jax.plan --config=finetune_musiccaps --topology=v5e-8
    python -m musilingo_jax.plan --config=tiny --topology=v5e-8 --config.mesh.fsdp=8
    python -m musilingo_jax.plan --config=tiny --topology=v5e-8,v4-32 --search

Compiles the update of a stage at full size for a TPU slice, with the TPU's own compiler
(`pip install -e '.[plan]'`), and prints what a chip holds, computes and exchanges.
Nothing is downloaded: shapes of released models are known by name, those of others are
read from their `config.json`. Each program takes about a minute and 1.5 GB of this
machine's memory.

`--search` tries meshes and ways of splitting an update into batches, the most promising
ones first, and ends with the flags to train with.
"""

import json
from collections.abc import Mapping
from dataclasses import replace

from absl import flags
from ml_collections import ConfigDict

from musilingo_jax.plan import compile, model_shapes, search, tables, tpu_slices
from musilingo_jax.plan import job as plan_jobs
from musilingo_jax.plan.compile import CompiledPlan
from musilingo_jax.plan.job import Job
from musilingo_jax.plan.tpu_slices import Topology
from musilingo_jax.pretrained.model_config import ModelConfig
from musilingo_jax.runtime import cli
from musilingo_jax.runtime.errors import UsageError, UserError
from musilingo_jax.runtime.printable import print_note
from musilingo_jax.training.packing import RowShape
from musilingo_jax.training.stage_config import StageConfig


def define_flags() -> None:
    """Defines the flags of this program, besides those of the config."""
    flags.DEFINE_list(
        "topology", [], "TPU slices, e.g. v5e-8,v4-32, or grids of chips: v5e:2x4"
    )
    flags.DEFINE_string("stage", "", "the stage to plan; default: the last one")
    flags.DEFINE_integer(
        "length", 0, "tokens per row; 0: the longest possible", lower_bound=0
    )
    flags.DEFINE_integer(
        "windows", 0, "audio vectors per row; 0: the most possible", lower_bound=0
    )
    flags.DEFINE_integer(
        "answers", 0, "target tokens per row; 0: the most possible", lower_bound=0
    )
    flags.DEFINE_string(
        "language_model_config", "", "config.json or released model to take shapes from"
    )
    flags.DEFINE_integer(
        "encoder_width", 0, "width of the features; 0: the encoder's", lower_bound=0
    )
    flags.DEFINE_boolean("search", False, "search for the fastest mesh and batch")
    flags.DEFINE_integer(
        "search_minutes", 10, "minutes per topology after which no program starts", 1
    )
    flags.DEFINE_integer(
        "search_programs", 4, "programs to compile per topology, at most", 1
    )
    flags.DEFINE_boolean("json", False, "print one JSON object per topology")
    flags.DEFINE_boolean("markdown", False, "print one table of all topologies")


def main(argv: list[str]) -> None:
    """Reads the flags and prints the plans."""
    if argv[1:]:
        raise UsageError(f"unknown argument {argv[1]!r} (try --help)")
    given = flags.FLAGS
    config = cli.required_config("stages", "model", "mesh")
    if not given.topology:
        raise UsageError("--topology is missing: name a slice, as in --topology=v5e-8")
    if given.json and given.markdown:
        raise UsageError("choose --json or --markdown")
    for name in ("search_minutes", "search_programs"):
        if given[name].present and not given.search:
            raise UsageError(f"--{name} is for a search: add --search")
    slices = [Topology.parse(name) for name in given.topology]
    if repeated := [s.sold_as for s in slices if slices.count(s) > 1]:
        raise UsageError(f"--topology names {repeated[0]} twice: name each slice once")
    plans_made = []
    for topology in slices:
        job = job_of(config, topology)
        if given.search:
            found = search.search(
                job, programs=given.search_programs, seconds=60 * given.search_minutes
            )
            plan = found[0]
        else:
            mesh = plan_jobs.mesh_sizes(dict(config.mesh), topology)
            plan, found = _compiled(replace(job, mesh=mesh)), []
        plans_made.append(plan)
        if given.json:
            tried = [other.to_dict() for other in found]
            print(json.dumps(plan.to_dict() | ({"tried": tried} if found else {})))
        elif not given.markdown:
            if found:
                print(tables.ranking(found), end="\n\n")
            print(tables.describe(plan), end="\n\n")
            if found:
                print(f"train with:\n  {' '.join(pasted(plan, config))}\n")
    if given.markdown:
        print(tables.markdown(plans_made))


def job_of(config: ConfigDict, topology: Topology) -> Job:
    """The job that flags and config describe, with the mesh still to be chosen.

    Raises:
      UserError: the config lacks the stage, or a setting is invalid.
    """
    given = flags.FLAGS
    name = given.stage or (config.stages[-1] if config.stages else "")
    if name not in config.stages:
        raise UserError(
            f"--stage={name}: config.stages has {', '.join(config.stages) or 'none'}"
        )
    stage = StageConfig.from_config(config, name)
    largest = plan_jobs.largest_row(stage)
    model = ModelConfig.from_config(config)
    return Job(
        name=name,
        stage=stage,
        row=RowShape(
            length=given.length or largest.length,
            windows=given.windows or largest.windows,
            answers=min(given.answers or largest.answers, given.length or 10**9),
        ),
        shapes=model_shapes.shapes(
            config,
            language_model_config=given.language_model_config,
            encoder_width=given.encoder_width,
        ),
        dtype=model.dtype,
        quantization=model.quantization,
        mesh={},
        topology=topology,
    )


def pasted(plan: CompiledPlan, config: ConfigDict) -> list[str]:
    """The flags that turn a config into the planned one."""
    job, stage = plan.job, plan.job.stage
    planned: Mapping[str, str | int] = {
        **{f"mesh.{axis}": size for axis, size in job.mesh.items()},
        f"{job.name}.batch_size": stage.batch_size,
        f"{job.name}.rows": stage.rows,
        f"{job.name}.accumulate": stage.accumulate,
        "model.quantization": job.quantization,
    }
    return [
        f"--config.{key}={value}"
        for key, value in planned.items()
        if _get(config, key) != value
    ] or ["(the config as it is)"]


def _get(config: ConfigDict, key: str) -> str | int:
    *sections, last = key.split(".")
    for section in sections:
        config = config[section]
    return config[last]


def _compiled(job: Job) -> CompiledPlan:
    print_note(f"compiling {job.name} for {job.topology.sold_as} (about a minute)")
    return compile.make_plan(job)


if __name__ == "__main__":
    tpu_slices.prepare()
    cli.define_config()
    define_flags()
    cli.run(main)

"""Tells what fits on a TPU, and how fast it can be, without a TPU.

    python -m musilingo_jax.plan --config=finetune_musiccaps --topology=v5e-8
    python -m musilingo_jax.plan --config=tiny --topology=v5e-8 --config.mesh.fsdp=8
    python -m musilingo_jax.plan --config=tiny --topology=v5e-8,v4-32 --search
    python -m musilingo_jax.plan --config=tiny --topology=v5e-8 --program=encode,decode

Compiles a program at full size for a TPU slice, with the TPU's own compiler
(`pip install -e '.[plan]'`), and prints what a chip holds, computes and exchanges. The
programs are the update of a stage (train), a batch of clips on their way into the cache
of features (encode), prompts that are read (read), and one more token of each answer
(decode).
Nothing is downloaded: shapes of released models are known by name, those of others are
read from their `config.json`. Each program takes about a minute and 1.5 GB of this
machine's memory.

`--estimate` counts the memory of an update without the compiler, for devices of any
kind. `--search` tries meshes and ways of splitting an update into batches, the most
promising ones first, and ends with the flags to train with.
"""

import json
from collections.abc import Mapping
from dataclasses import replace

from absl import flags
from ml_collections import ConfigDict

from musilingo_jax.answering.config import GenerateConfig
from musilingo_jax.answering.padded_prompts import LENGTH_MULTIPLE
from musilingo_jax.audio.features import FeatureConfig
from musilingo_jax.plan import (
    compile,
    memory_estimate,
    model_shapes,
    search,
    tables,
    tpu_slices,
)
from musilingo_jax.plan.answerer import AbstractAnswerer
from musilingo_jax.plan.compile import CompiledPlan
from musilingo_jax.plan.decode_program import DecodeJob
from musilingo_jax.plan.encode_program import EncodeJob
from musilingo_jax.plan.job import PROGRAMS, Job, mesh_sizes
from musilingo_jax.plan.model_shapes import Shapes
from musilingo_jax.plan.read_program import PREFIX_SLOTS, ReadJob
from musilingo_jax.plan.tpu_slices import Topology
from musilingo_jax.plan.train_program import TrainJob, largest_row
from musilingo_jax.pretrained import number_type
from musilingo_jax.pretrained.model_config import ModelConfig
from musilingo_jax.runtime import cli
from musilingo_jax.runtime.errors import UsageError, UserError
from musilingo_jax.runtime.printable import print_note
from musilingo_jax.training import starting
from musilingo_jax.training.packing import RowShape
from musilingo_jax.training.stage_config import StageConfig

# The sections of a config that a program reads, besides `model` and `mesh`.
_SECTIONS = {
    "train": ("stages",),
    "encode": ("features",),
    "read": ("generate", "features"),
    "decode": ("generate",),
}
# Flag → the programs whose sizes it changes.
_OWN_FLAGS = {
    "stage": ("train",),
    "length": ("train", "read"),
    "windows": ("train", "read"),
    "answers": ("train",),
    "batch": ("encode", "read", "decode"),
    "seconds": ("encode",),
    "context": ("read", "decode"),
    "language_model_config": ("train", "read", "decode"),
    "encoder_width": ("train", "read", "decode"),
}


def define_flags() -> None:
    """Defines the flags of this program, besides those of the config."""
    flags.DEFINE_list(
        "topology", [], "TPU slices, e.g. v5e-8,v4-32, or grids of chips: v5e:2x4"
    )
    flags.DEFINE_list(
        "estimate", [], "memory by arithmetic: slices, or 8x80 for 8 devices of 80 GiB"
    )
    flags.DEFINE_list("program", ["train"], f"what to plan: {', '.join(PROGRAMS)}")
    flags.DEFINE_string("stage", "", "the stage to plan; default: the last one")
    flags.DEFINE_integer(
        "length", 0, "tokens per row or prompt; 0: the longest possible", lower_bound=0
    )
    flags.DEFINE_integer(
        "windows", 0, "audio vectors per row; 0: the most possible", lower_bound=0
    )
    flags.DEFINE_integer(
        "answers", 0, "target tokens per row; 0: the most possible", lower_bound=0
    )
    flags.DEFINE_integer(
        "batch", 0, "clips, prompts or rows; 0: the config's", lower_bound=0
    )
    flags.DEFINE_float(
        "seconds", 0.0, "of a clip to encode; 0: the longest chunk", lower_bound=0
    )
    flags.DEFINE_integer("context", 1280, "slots of a row's cache", lower_bound=1)
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
    programs = _programs()
    needed = {section for name in programs for section in _SECTIONS[name]}
    config = cli.required_config(*sorted(needed), "model", "mesh")
    if config.model.get("dtype") == number_type.AUTO:
        config.model.dtype = "bfloat16"  # On the TPU, whatever processor plans for it.
    if given.json and given.markdown:
        raise UsageError("choose --json or --markdown")
    if given.estimate:
        _estimate(config)
        return
    if not given.topology:
        raise UsageError("--topology is missing: name a slice, as in --topology=v5e-8")
    for name in ("search_minutes", "search_programs"):
        if given[name].present and not given.search:
            raise UsageError(f"--{name} is for a search: add --search")
    slices = [Topology.parse(name) for name in given.topology]
    if repeated := [s.sold_as for s in slices if slices.count(s) > 1]:
        raise UsageError(f"--topology names {repeated[0]} twice: name each slice once")
    plans_made = []
    for topology in slices:
        for program in programs:
            plan, found = _planned(program, config, topology)
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


def _estimate(config: ConfigDict) -> None:
    """Prints the memory of an update by arithmetic."""
    given = flags.FLAGS
    if given.topology or given.search or given.program != ["train"]:
        raise UsageError(
            "--estimate is of an update, for the devices that it names: leave out "
            "--topology, --search and --program"
        )
    found = [
        memory_estimate.estimate(
            train_job(config, memory_estimate.parse(name)), dict(config.mesh)
        )
        for name in given.estimate
    ]
    if given.markdown:
        print(memory_estimate.markdown(found))
    elif given.json:
        print(memory_estimate.as_json(found))
    else:
        print("\n\n".join(map(memory_estimate.describe, found)))


def _programs() -> list[str]:
    """The programs to plan, after checking that the flags are theirs."""
    given = flags.FLAGS
    for name in given.program:
        if name not in PROGRAMS:
            raise UsageError(f"--program={name}: choose {' or '.join(PROGRAMS)}")
    if not given.program or len(set(given.program)) < len(given.program):
        raise UsageError("--program: name each program once, as in --program=train")
    for flag, programs in _OWN_FLAGS.items():
        if given[flag].present and not set(programs) & set(given.program):
            raise UsageError(f"--{flag} is for --program={' or '.join(programs)}")
    if given.search and given.program != ["train"]:
        raise UsageError("--search is for --program=train")
    return given.program


def _planned(
    program: str, config: ConfigDict, topology: Topology
) -> tuple[CompiledPlan, list[CompiledPlan]]:
    """The plan of a program on a slice, and all that a search has compiled for it."""
    given = flags.FLAGS
    if given.search:
        found = search.search(
            train_job(config, topology),
            programs=given.search_programs,
            seconds=60 * given.search_minutes,
        )
        return found[0], found
    mesh = mesh_sizes(dict(config.mesh), topology)
    if program == "train":
        job: Job = replace(train_job(config, topology), mesh=mesh)
    elif program == "encode":
        job = encode_job(config, topology, mesh)
    else:
        job = answer_job(program, config, topology, mesh)
    print_note(f"compiling {program} for {topology.sold_as} (about a minute)")
    return compile.make_plan(job), []


def train_job(config: ConfigDict, topology: Topology) -> TrainJob:
    """The update that flags and config describe, with the mesh still to be chosen.

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
    shapes, bridge = _shapes(config), config.get(starting.BRIDGE)
    adds = not starting.described(config).splices
    largest = largest_row(stage, states=shapes.encoder_states if adds else 0)
    model = ModelConfig.from_config(config)
    return TrainJob(
        name=name,
        stage=stage,
        row=RowShape(
            length=given.length or largest.length,
            windows=given.windows or largest.windows,
            answers=min(given.answers or largest.answers, given.length or 10**9),
        ),
        shapes=shapes,
        dtype=model.dtype,
        quantization=model.quantization,
        mesh={},
        topology=topology,
        bridge=dict(bridge) if bridge else None,
    )


def _is_tuned(config: ConfigDict, name: str) -> bool:
    """Whether a stage trains something beside the language model's weights."""
    return StageConfig.from_config(config, name).tuning.anything


def encode_job(
    config: ConfigDict, topology: Topology, mesh: Mapping[str, int]
) -> EncodeJob:
    """The batch of clips that flags and config describe.

    Raises:
      UserError: a setting is invalid, or the clips are shorter than a frame.
    """
    given = flags.FLAGS
    chosen = FeatureConfig.from_config(config)
    model = ModelConfig.from_config(config)
    encoder, source = model_shapes.encoder(model.encoder)
    frames = chosen.chunk_windows * chosen.window_frames
    # The longest chunk, as `features.encode` cuts it.
    samples = encoder.samples_for_frames(frames + 1) - 1
    if given.seconds:
        samples = round(given.seconds * encoder.sample_rate)
    if samples < encoder.receptive_field:
        raise UserError(
            f"--seconds={given.seconds}: one frame takes {encoder.receptive_field} "
            f"samples, of {encoder.sample_rate:,} per second"
        )
    return EncodeJob(
        encoder=encoder,
        source=source,
        batch=given.batch or chosen.batch_size,
        samples=samples,
        window_frames=chosen.window_frames,
        reduction=chosen.reduction,
        dtype=model.dtype,
        mesh=mesh,
        topology=topology,
    )


def answer_job(
    program: str, config: ConfigDict, topology: Topology, mesh: Mapping[str, int]
) -> ReadJob | DecodeJob:
    """The prompts or the rows that flags and config describe.

    Raises:
      UserError: a setting is invalid, a prompt and its answer exceed the context, or
        the config trains what the planned program would leave out.
    """
    given = flags.FLAGS
    tuned = [name for name in config.get("stages", ()) if _is_tuned(config, name)]
    if config.get(starting.BRIDGE) or tuned:
        part = f"config.{tuned[0]}.tuning" if tuned else f"config.{starting.BRIDGE}"
        raise UserError(
            f"--program={program} is planned for MusiLingo's bridge and frozen weights "
            f"alone, and would leave out {part}: plan a config without it, of the same "
            "language model"
        )
    generate = GenerateConfig.from_config(config)
    model = ModelConfig.from_config(config)
    answerer = AbstractAnswerer(
        shapes=_shapes(config),
        dtype=model.dtype,
        quantization=model.quantization,
        choice=generate.choice,
        max_new_tokens=generate.max_new_tokens,
    )
    batch = given.batch or generate.batch_size
    if program == "decode":
        return DecodeJob(answerer, batch, given.context, mesh, topology)
    # An answer's last token is never read.
    room = given.context - PREFIX_SLOTS - generate.max_new_tokens + 1
    longest = room // LENGTH_MULTIPLE * LENGTH_MULTIPLE
    if longest < max(given.length, LENGTH_MULTIPLE):
        raise UserError(
            f"--context={given.context} has room for {max(0, longest)} tokens of a "
            f"prompt, besides {PREFIX_SLOTS} that were read before and the "
            f"{generate.max_new_tokens} of an answer (config.generate.max_new_tokens)"
        )
    length = given.length or longest
    heard = FeatureConfig.from_config(config).chunk_windows
    windows = given.windows or min(length, heard)
    return ReadJob(answerer, batch, length, windows, given.context, mesh, topology)


def _shapes(config: ConfigDict) -> Shapes:
    given = flags.FLAGS
    return model_shapes.shapes(
        config,
        language_model_config=given.language_model_config,
        encoder_width=given.encoder_width,
    )


def pasted(plan: CompiledPlan, config: ConfigDict) -> list[str]:
    """The flags that turn a config into the planned one."""
    job = plan.job
    assert isinstance(job, TrainJob)
    stage = job.stage
    planned: Mapping[str, str | int] = {
        **{f"mesh.{axis}": size for axis, size in job.mesh.items()},
        f"{job.name}.batch_size": stage.batch_size,
        f"{job.name}.rows": stage.rows,
        f"{job.name}.accumulate": stage.accumulate,
        f"{job.name}.remat": stage.remat,
        f"{job.name}.query_block": stage.query_block,
        f"{job.name}.key_block": stage.key_block,
        "model.quantization": job.quantization,
    }
    return [
        f"--config.{key}={value}"
        for key, value in planned.items()
        if _get(config, key) != value
    ] or ["(the config as it is)"]


def _get(config: ConfigDict, key: str) -> str | int | None:
    """The value of a key, dotted; None if it is newer than the config."""
    *sections, last = key.split(".")
    for section in sections:
        config = config[section]
    return config.get(last)


if __name__ == "__main__":
    tpu_slices.prepare()
    cli.define_config()
    define_flags()
    cli.run(main)

"""Teaches the adapter: `python -m musilingo_jax.train --config=configs/tiny.py`.

The whole story, from top to bottom: the songs are encoded once and cached; then, stage
after stage, batches of questions and answers are drawn, and the adapter learns to turn
audio into vectors that make the frozen language model say the answers. Encoder and
language model never change: the adapter alone is the argument that is differentiated.

The same command goes on where a run was stopped, at whatever moment, and ends with the
same adapter bit for bit; when all is done, it only writes the results again. SIGTERM
and Ctrl-C save first, and exit with 143 and 130. On another mesh or another number of
processes (see `distributed.py`) the batches are the same, and so are the losses up to
the order of sums.

Each stage begins with the last adapter of the one before, and `adapter/` is the last
one of all. If `config.corpus.validation_split` names a split, a stage looks at it every
`validate_every` updates and at its end; the adapter with the lowest loss of the last
stage that looked is kept in `adapter-best/`, for whoever prefers it.
"""

import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

import grain
import jax
import numpy as np
import optax
from absl import flags
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from musilingo_jax.audio.cache import feature_cache
from musilingo_jax.audio.cache.feature_cache import Identity
from musilingo_jax.corpora import mixture
from musilingo_jax.models.adapter import Adapter
from musilingo_jax.models.llama import Llama
from musilingo_jax.models.musilingo import Batch
from musilingo_jax.pretrained import sources, weights
from musilingo_jax.pretrained.sources import ModelConfig
from musilingo_jax.runtime import cli, distributed
from musilingo_jax.runtime.compilation_cache import keep_compiled_programs
from musilingo_jax.runtime.errors import UsageError, UserError
from musilingo_jax.runtime.sharding import make_mesh, shardings
from musilingo_jax.runtime.signals import StopRequest, stop_request
from musilingo_jax.training import flops, loss_plot, stage_data, summary
from musilingo_jax.training.batches import Batches, ValidationBatches
from musilingo_jax.training.checkpoints import Checkpoints
from musilingo_jax.training.metrics_log import MetricsLog
from musilingo_jax.training.profiler import Profiler
from musilingo_jax.training.run_folder import RunFolder, writing
from musilingo_jax.training.stage_config import StageConfig
from musilingo_jax.training.stage_data import Records, StageData
from musilingo_jax.training.trackers import Trackers
from musilingo_jax.training.train_step import (
    StepReport,
    TrainState,
    make_update,
    make_validation,
)

Update = Callable[[TrainState, Llama, Batch], tuple[TrainState, StepReport]]


def main(argv: list[str]) -> None:
    """Reads the flags and trains."""
    if argv[1:]:
        raise UsageError(f"unknown argument {argv[1]!r} (try --help)")
    if flags.FLAGS.config is None:
        raise UsageError("say what to train, for example --config=configs/tiny.py")
    distributed.start()
    # What is said of this start does not hold for the next program.
    ours = ("profile", *distributed.FLAGS)
    typed = summary.without(flags.FLAGS, sys.argv[1:], ours)
    train(flags.FLAGS.config, typed=typed, profile=flags.FLAGS.profile)


def train(config: ConfigDict, *, typed: Sequence[str] = (), profile: str = "") -> None:
    """Trains all stages of a config, or what is left of them.

    Args:
      config: as in `configs/tiny.py`.
      typed: the flags to suggest for what comes next.
      profile: which updates to trace, as in `Profiler`.

    Raises:
      UserError: something in the config, the corpus or the run folder is wrong.
      SystemExit: it was told to stop, and has saved where it is.
    """
    started = time.monotonic()
    keep_compiled_programs()
    stages = {name: StageConfig.from_config(config, name) for name in config.stages}
    if not stages:
        raise UserError("config.stages is empty: name at least one stage")
    if len(stages) < len(config.stages):
        raise UserError(
            f"config.stages is {tuple(config.stages)!r}: name each stage once, and to "
            "train one for longer, set its steps"
        )
    if config.seed < 0:
        raise UserError(f"config.seed is {config.seed}: it must be 0 or more")
    mesh = make_mesh(**config.mesh)
    for name, stage in stages.items():
        stage.check_rows(name, mesh)
    run = RunFolder(config)
    records = Records.of(config, stages)
    traced = Profiler(profile, run.path / "profile")
    run.claim(fingerprints(config, records))

    with Trackers(run, config.wandb) as tracker, traced:
        features = feature_cache.prepare(
            config, [*records.training, *records.validation], mesh
        )
        heard = [record for record in records.training if record.clip in features.ids]
        if not heard:
            title = mixture.title(config.corpus)
            raise UserError(f"{title}: none of its songs can be read")
        model = ModelConfig.from_config(config)
        tokenizer = weights.load_tokenizer(model.language_model)
        llama = weights.load_language_model(
            model.language_model,
            dtype=model.dtype,
            quantization=model.quantization,
            mesh=mesh,
        )
        width = features.features(heard[0].clip).shape[1]
        adapter = first_adapter(config, width, llama.config.width, mesh)
        best = None
        for name in stages:
            lesson = stage_data.prepare(
                config, stages, name, records, features, tokenizer, mesh
            )
            run.write(
                f"{name}/examples.json", json.dumps(lesson.about, indent=2) + "\n"
            )
            adapter, found = train_stage(
                lesson, adapter, llama, run, mesh, tracker, traced
            )
            best = best if found is None else found

    for folder, one in (("adapter", adapter), ("adapter-best", best)):
        if one is not None:
            weights.save_adapter(
                one,
                run.path / folder,
                dtype=np.float32,
                window_frames=config.features.window_frames,
            )
    if jax.process_index() == 0:
        curves = {name: run.metrics(name) for name in stages}
        with writing(run.path):
            loss_plot.loss_curves(curves, run.path / "loss.png")
        seconds = time.monotonic() - started
        learnt = {r for s in stages.values() for r in s.choose(records.training)}
        text = summary.describe(
            run,
            stages,
            features,
            records.clips,
            not_learnt=sum(record not in learnt for record in records.training),
            seconds=seconds,
            typed=typed,
        )
        run.write("summary.txt", text)
        print(text, end="")


def train_stage(
    lesson: StageData,
    adapter: Adapter,
    llama: Llama,
    run: RunFolder,
    mesh: Mesh,
    tracker: Trackers,
    profile: Profiler,
) -> tuple[Adapter, Adapter | None]:
    """Trains one stage from its newest checkpoint, or from `adapter` if it has none.

    Returns:
      The last adapter, and the one with the lowest validation loss, None if it was not
      looked for.

    Raises:
      UserError: the loss or the adapter is no number any more, or nothing can be
        written.
      SystemExit: it was told to stop, and has saved where it is.
    """
    name, stage = lesson.name, lesson.stage
    optimiser = stage.optimiser()
    with Checkpoints(run.checkpoints(name), keep=stage.keep) as checkpoints:
        state, done = first_state(optimiser, adapter, checkpoints, mesh)
        placement = shardings(state, mesh)
        run.rewind(name, done)
        tracker.begin(name, run.metrics(name), before=lesson.before)
        stop = None
        if done < stage.steps:
            journal = MetricsLog(
                name,
                stage,
                lesson.batches,
                run,
                tracker,
                done,
                flops=functools.partial(model_flops, adapter, llama, lesson.batches),
                peak=peak_of(mesh),
            )
            update = make_update(stage, optimiser, placement)
            with closing(journal):
                state, done, stop = learn(
                    lesson,
                    state,
                    done,
                    llama,
                    update,
                    checkpoints,
                    run,
                    journal,
                    profile,
                )
        best = checkpoints.best()
        if stop is None and best is not None:
            best = checkpoints.restore(best[0], abstract(state, placement)).adapter
    if stop is not None:
        if jax.process_index() == 0:
            print(
                f"stopped after update {done} of {stage.steps} of {name}, which is "
                "saved: the same command goes on there.",
                file=sys.stderr,
            )
        stop.exit()
    return state.adapter, best


def learn(
    lesson: StageData,
    state: TrainState,
    start: int,
    llama: Llama,
    update: Update,
    checkpoints: Checkpoints,
    run: RunFolder,
    journal: MetricsLog,
    profile: Profiler,
) -> tuple[TrainState, int, StopRequest | None]:
    """The loop: updates `start` to the last one of the stage, counted from 0.

    Returns:
      The state after them, how many updates it has seen, and what stopped the loop
      before its time, None if nothing did.
    """
    name, stage, batches, validation, before, _ = lesson
    look = make_validation(stage)
    data = grain.MapDataset.range(start, stage.steps).map(batches.batch)
    # Grain makes the next batches on a thread while the device is busy.
    data = data.to_iter_dataset(grain.ReadOptions(1, prefetch_buffer_size=2))
    with closing(iter(data)) as rows, stop_request() as stop:
        for done, batch in enumerate(rows, start=start + 1):
            journal.before(done)
            profile.before(state)
            state, report = update(state, llama, batch)
            profile.after(report)
            journal.add(done, report)
            last, loss = done == stage.steps, None
            if validation and (last or done % stage.validate_every == 0):
                mean = functools.partial(mean_loss, look, state, llama, validation)
                loss = journal.look(done, mean)
            stopping = stop.agreed(before + done)
            if (
                stopping
                or last
                or loss is not None
                or done % stage.checkpoint_every == 0
            ):
                journal.catch_up()  # Never saves what is no number.
                checkpoints.save(done, state, run.config, loss)
            if stopping:
                return state, done, stop
    return state, done, None


def mean_loss(
    look: Callable[..., tuple[jax.Array, jax.Array]],
    state: TrainState,
    llama: Llama,
    batches: ValidationBatches,
) -> float:
    """Nats per target token of all the examples together."""
    # All are started before the first is waited for.
    looked = [look(state.adapter, llama, batch) for batch in batches]
    losses, counts = zip(*jax.device_get(looked), strict=True)
    return float(np.sum(losses, dtype=np.float64) / np.sum(counts))


def model_flops(adapter: Adapter, llama: Llama, batches: Batches, step: int) -> float:
    """Operations of update `step`, counted from 0, as in `costs.step_flops`."""
    return flops.step_flops(
        llama.config,
        encoder_width=adapter.projection.kernel.shape[0],
        windows=batches.windows(step),
        tokens=batches.tokens(step),
        targets=batches.targets(step),
        attended=batches.attended(step),
    )


def peak_of(mesh: Mesh) -> float | None:
    """Operations per second of all devices of a mesh; None where it is not known."""
    peak = flops.peak_flops(mesh.devices.flat[0].device_kind)
    return None if peak is None else peak * mesh.devices.size


def first_state(
    optimiser: optax.GradientTransformation,
    adapter: Adapter,
    checkpoints: Checkpoints,
    mesh: Mesh,
) -> tuple[TrainState, int]:
    """The newest saved state and how many updates it has seen, or a fresh one and 0."""

    def fresh(adapter: Adapter) -> TrainState:
        return TrainState(adapter=adapter, optimiser=optimiser.init(adapter))

    like = jax.eval_shape(fresh, adapter)
    placement = shardings(like, mesh)
    step = checkpoints.latest()
    if step is None:
        # A copy, because the loop gives away the memory of its state.
        return jax.jit(fresh, out_shardings=placement)(adapter), 0
    return checkpoints.restore(step, abstract(like, placement)), step


def abstract(state: TrainState, placement: TrainState) -> TrainState:
    """Its shapes, types and shardings, to restore a checkpoint to."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=place
        ),
        state,
        placement,
    )


def first_adapter(
    config: ConfigDict, width_in: int, width_out: int, mesh: Mesh
) -> Adapter:
    """A random adapter, or the one that the config names.

    Raises:
      UserError: the named one was made for another encoder, language model or window.
    """
    named = ModelConfig.from_config(config).adapter
    if named == "random":
        make = functools.partial(Adapter, width_in, width_out)
        abstract = jax.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
        seeded = jax.jit(
            lambda: make(rngs=nnx.Rngs(config.seed)),
            out_shardings=shardings(abstract, mesh),
        )
        return seeded()
    found = sources.find(named, "adapter").config
    adapter = weights.load_adapter(named, mesh=mesh)
    wanted = {
        "encoder_width": width_in,
        "language_model_width": width_out,
        "window_frames": config.features.window_frames,
    }
    for key, value in wanted.items():
        if found.get(key) != value:
            raise UserError(
                f"config.model.adapter = {named!r} has {key} "
                f"{found.get(key)}, and here it is {value}: choose the adapter that "
                'belongs to this encoder and language model, or "random"'
            )
    return adapter


def fingerprints(config: ConfigDict, records: Records) -> dict[str, Any]:
    """What a run learns from and looks at, besides the numbers of its config."""
    model = ModelConfig.from_config(config)
    adapter = model.adapter
    return {
        "features": asdict(Identity.of(config)),
        "language_model": weights.digest(model.language_model, "language_model"),
        "adapter": (
            adapter if adapter == "random" else weights.digest(adapter, "adapter")
        ),
        **records.fingerprints(),
    }


if __name__ == "__main__":
    cli.define_config()
    distributed.define_flags()
    flags.DEFINE_string("profile", "", "FIRST:COUNT, updates to trace, e.g. 10:3")
    cli.run(main)

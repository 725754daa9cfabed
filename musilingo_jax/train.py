"""Trains the adapter.

    python -m musilingo_jax.train --config=tiny
    python -m musilingo_jax.train --config=tiny --config.stage2.steps=1000
    python -m musilingo_jax.train --config=finetune_music_instruct:long --distributed

The encoder turns every song into features once, which are cached. Then, stage by stage,
the adapter learns to turn features into vectors from which the frozen language model
predicts the answers:

    features → adapter → vectors among the words → language model → loss of the answer
                 ↑                                                        │
                 └────────────────────── gradient ────────────────────────┘

Each stage starts with the last adapter of the stage before; `adapter/` in the run
folder is the last one of all. If `config.corpus.validation_split` names a split, a
stage validates every `validate_every` updates and at its end. The adapter with the
lowest loss of the last stage that validates is kept in `adapter-best/`.

The same command resumes a run that was stopped or killed at any moment, and ends with
the same adapter, bit for bit; a finished run only writes its results again. SIGTERM and
Ctrl-C save first, and exit with status 143 and 130. On another mesh, or with another
number of processes (`runtime/distributed.py`), the batches are the same, and the losses
differ by the order of sums only.
"""

import functools
import json
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

import grain
import jax
import numpy as np
import optax
from absl import flags
from jax.sharding import Mesh
from ml_collections import ConfigDict

from musilingo_jax.answering import chat_templates
from musilingo_jax.audio.cache import feature_cache, recorded_type
from musilingo_jax.audio.cache.feature_cache import Identity
from musilingo_jax.corpora import mixture
from musilingo_jax.models.answer_loss import Batch
from musilingo_jax.models.llama import Llama
from musilingo_jax.models.parts import Parts, joined
from musilingo_jax.pretrained import (
    embedded_models,
    trained_with,
    tuned_model,
    weights,
)
from musilingo_jax.pretrained.model_config import ModelConfig
from musilingo_jax.pretrained.trained_with import TrainedWith
from musilingo_jax.runtime import cli, distributed, platforms
from musilingo_jax.runtime.errors import UsageError, UserError
from musilingo_jax.runtime.printable import print_note
from musilingo_jax.runtime.settings import identity_of
from musilingo_jax.runtime.sharding import make_mesh, shardings
from musilingo_jax.runtime.signals import stop_request
from musilingo_jax.training import flops, loss_plot, stage_data, starting, summary
from musilingo_jax.training.batches import Batches
from musilingo_jax.training.checkpoints import Checkpoints
from musilingo_jax.training.metrics_log import MetricsLog
from musilingo_jax.training.profiler import Profiler
from musilingo_jax.training.run_folder import RunFolder, writing
from musilingo_jax.training.stage_config import read_stages
from musilingo_jax.training.stage_data import Records, StageData
from musilingo_jax.training.trackers import Trackers
from musilingo_jax.training.train_step import (
    TrainState,
    abstract_state,
    fresh_state,
    make_update,
    make_validation,
    mean_loss,
)


def main(argv: list[str]) -> None:
    """Reads the flags and trains."""
    if argv[1:]:
        raise UsageError(f"unknown argument {argv[1]!r} (try --help)")
    config = cli.required_config(
        "seed",
        "run",
        "stages",
        "corpus",
        "corpus.train_split",
        "corpus.validation_split",
        "features",
        "model",
        "mesh",
        "wandb",
    )
    distributed.start()
    typed = summary.config_arguments(flags.FLAGS)
    train(config, typed=typed, profile=flags.FLAGS.profile)


def train(config: ConfigDict, *, typed: Sequence[str] = (), profile: str = "") -> None:
    """Trains all stages of a config, or what is left of them.

    Args:
      config: as in `configs/tiny.py`.
      typed: flags for the commands that are suggested at the end.
      profile: which updates to trace, as in `Profiler`.

    Raises:
      UserError: something in the config, the corpus or the run folder is wrong.
      SystemExit: the program was asked to stop, and has saved.
    """
    started = time.monotonic()
    platforms.start()
    embedded_models.settle(config)
    chat_templates.settle(config)
    stages = read_stages(config)
    bridge = starting.bridge_of(config)
    starting.check(config, stages, bridge)
    if config.seed < 0:
        raise UserError(f"config.seed is {config.seed}: it must be at least 0")
    recorded_type.settle(config)
    model = ModelConfig.from_config(config)
    if model.adapter != "random":
        model = tuned_model.with_adapter(model, model.adapter)
        parts = model.adapter, model.encoder, model.language_model
        trained_with.check(*parts)
        trained_with.tell_if_unknown(*parts)
    mesh = make_mesh(**config.mesh)
    for name, stage in stages.items():
        stage.check_rows(name, mesh)
    run = RunFolder(config)
    records = Records.of(config, stages)
    profiler = Profiler(profile, run.path / "profile")
    frozen = TrainedWith.of_sources(model.encoder, model.language_model)
    run.claim(fingerprints(config, records, frozen))

    with Trackers(run, config.wandb) as trackers, profiler:
        features = feature_cache.prepare(
            config, [*records.training, *records.validation], mesh
        )
        readable = [r.clip for r in records.training if r.clip in features.ids]
        if not readable:
            title = mixture.title(config.corpus)
            raise UserError(f"{title}: none of its songs can be read")
        tokenizer = weights.load_tokenizer(model.language_model)
        layers_learn = any(stage.learns_layers for stage in stages.values())
        llama = weights.load_language_model(
            model.language_model,
            dtype="float32" if layers_learn else model.dtype,
            quantization=model.quantization,
            mesh=mesh,
        )
        shape = features.features(readable[0]).shape
        learnt, best = starting.first_parts(config, shape, llama.config, mesh), None
        if layers_learn:
            layers, llama = starting.layers_and_ends(llama, model.dtype)
            learnt = replace(learnt, llama=layers)
        setup = Setup(run, mesh, llama, trackers, profiler)
        for name in stages:
            learnt = starting.with_tuning(
                learnt, stages[name], name, llama.config, config.seed, mesh
            )
            data = stage_data.prepare(
                config,
                stages,
                name,
                records,
                features,
                tokenizer,
                mesh,
                bridge=bridge,
            )
            run.write(
                f"{name}/examples.json",
                json.dumps(asdict(data.counts), indent=2) + "\n",
            )
            learnt, best_of_stage = train_stage(setup, data, learnt)
            best = best if best_of_stage is None else best_of_stage

    for folder, parts in (("adapter", learnt), ("adapter-best", best)):
        if parts is None:
            continue
        beside = frozen
        if parts.llama is not None:
            inside = tuned_model.save(
                joined(parts.llama, llama),
                run.path / folder,
                dtype=model.dtype,
                origin=model.language_model,
            )
            if jax.process_index() == 0:
                beside = TrainedWith.of_sources(model.encoder, str(inside))
        weights.save_adapter(
            parts,
            run.path / folder,
            dtype=np.float32,
            window_frames=config.features.window_frames,
            trained_with=beside.stored(),
        )
    if jax.process_index() == 0:
        curves = {name: run.metrics(name) for name in stages}
        with writing(run.path):
            loss_plot.loss_curves(curves, run.path / "loss.png")
        used = {r for stage in stages.values() for r in stage.choose(records.training)}
        text = summary.describe(
            run,
            stages,
            features,
            records.clips,
            unused=sum(record not in used for record in records.training),
            seconds=time.monotonic() - started,
            typed=typed,
        )
        run.write("summary.txt", text)
        print(text, end="")


@dataclass(frozen=True)
class Setup:
    """What all stages of a run have in common.

    Attributes:
      run: the folder that everything is written to.
      mesh: the devices.
      llama: the language model, on these devices; only its ends if its layers are
        among what is learnt.
      trackers: show the metrics elsewhere.
      profiler: traces some updates.
    """

    run: RunFolder
    mesh: Mesh
    llama: Llama
    trackers: Trackers
    profiler: Profiler


def train_stage(
    setup: Setup, data: StageData, learnt: Parts
) -> tuple[Parts, Parts | None]:
    """Trains one stage from its newest checkpoint, or from `learnt` if it has none.

    Steps are counted from 1 and per stage: step `s` trains on batch `s - 1`, and
    checkpoint `s` is the state after it.

    Returns:
      What has been learnt, at the end and at the lowest validation loss; the latter is
      None if the stage does not validate.

    Raises:
      UserError: the loss or the new adapter contains NaN or infinity, or something
        cannot be written.
      SystemExit: the program was asked to stop, and has saved.
    """
    name, stage, run, llama = data.name, data.stage, setup.run, setup.llama
    learning, frozen = learnt.only(*stage.learns), learnt.without(*stage.learns)
    whole = llama if frozen.llama is None else joined(frozen.llama, llama)
    frozen = replace(frozen, llama=whole)
    optimiser = stage.optimiser()
    like = abstract_state(optimiser, learning, setup.mesh)
    update = make_update(stage, optimiser, shardings(like, setup.mesh))
    batch_loss = make_validation(stage)

    with (
        Checkpoints(run.checkpoints(name), keep=stage.keep) as checkpoints,
        stop_request() as stop,
    ):
        state, start = first_state(optimiser, learning, checkpoints, like)
        run.rewind(name, start)
        rows = run.metrics(name)
        setup.trackers.begin(name, rows, earlier_steps=data.earlier_steps)

        step, stopping = start, False
        multiplied = flops.Multiplied.by(
            learnt,
            bridge_learns=stage.learns_bridge,
            layers_learn=stage.learns_layers,
        )
        log = MetricsLog(
            data, start, run, setup.trackers, llama.config, multiplied, setup.mesh
        )
        with (
            closing(log) as metrics,
            closing(read_ahead(data.batches, start, stage.steps)) as batches,
        ):
            for step, batch in enumerate(batches, start=start + 1):
                metrics.begin(step)
                setup.profiler.begin(state)
                state, report = update(state, frozen, batch)
                setup.profiler.end(report)
                # Waits for the update before this one, so that the device never idles.
                metrics.end(step, report)

                last, validation = step == stage.steps, None
                if data.validation and (last or step % stage.validate_every == 0):
                    metrics.check()
                    validation = mean_loss(
                        batch_loss, state.learning, frozen, data.validation
                    )
                    metrics.add_validation(step, validation)

                # After Ctrl-C or SIGTERM, at the same step in every process.
                stopping = stop.agreed(data.earlier_steps + step)
                due = step % stage.checkpoint_every == 0 or validation is not None
                if due or last or stopping:
                    metrics.check()  # A state with NaN or infinity must not be saved.
                    checkpoints.save(step, state.stored(), run.config, validation)
                if stopping:
                    break

        best, best_parts = checkpoints.best(), None  # Waits for what is being saved.
        if best is not None and not stopping:
            stored = checkpoints.restore(best[0], like.stored())
            best_parts = learnt.replaced_by(like.from_stored(stored).learning)
        # A signal may have arrived during that wait.
        stopping = stopping or stop.agreed(data.earlier_steps + step)

    if stopping:
        if jax.process_index() == 0:
            print_note(
                f"stopped after update {step} of {stage.steps} of {name}, which is "
                "saved: the same command resumes there."
            )
        stop.exit()
    return learnt.replaced_by(state.learning), best_parts


def read_ahead(
    batches: Batches, start: int, steps: int
) -> Generator[Batch, None, None]:
    """Batches `start` to `steps - 1`. A thread prepares the next two meanwhile."""
    if start == steps:
        return
    data = grain.MapDataset.range(start, steps).map(batches.batch)
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    with closing(iter(data.to_iter_dataset(options))) as ready:
        yield from ready


def first_state(
    optimiser: optax.GradientTransformation,
    learning: Parts,
    checkpoints: Checkpoints,
    like: TrainState,
) -> tuple[TrainState, int]:
    """The state to continue from, and how many updates it has seen.

    Args:
      optimiser: of what learns.
      learning: to start with if there is no checkpoint.
      checkpoints: of the stage.
      like: as of `abstract_state`.
    """
    step = checkpoints.latest()
    if step is not None:
        return like.from_stored(checkpoints.restore(step, like.stored())), step
    # Makes a copy of what learns, since the loop donates the memory of its state.
    fresh = jax.jit(
        functools.partial(fresh_state, optimiser),
        out_shardings=jax.tree.map(lambda leaf: leaf.sharding, like),
    )
    return fresh(learning), 0


def fingerprints(
    config: ConfigDict, records: Records, frozen: TrainedWith
) -> dict[str, Any]:
    """What a run trains and validates on, besides the values of its config."""
    adapter = ModelConfig.from_config(config).adapter
    return {
        "features": identity_of(Identity.of(config)),
        "language_model": frozen.language_model.digest,
        "adapter": (
            adapter if adapter == "random" else weights.digest(adapter, "adapter")
        ),
        **records.fingerprints(),
    }


if __name__ == "__main__":
    cli.define_config()
    flags.DEFINE_string("profile", "", "updates to trace, as FIRST:COUNT, e.g. 10:3")
    distributed.define_flags()
    cli.run(main)

"""Teaches the adapter: `python -m musilingo_jax.train --config=configs/tiny.py`.

The whole story, from top to bottom: the songs are encoded once and cached; then, stage
after stage, batches of questions and answers are drawn, and the adapter learns to turn
audio into vectors that make the frozen language model say the answers. Encoder and
language model never change: the adapter alone is the argument that is differentiated.

The same command goes on where a run was stopped, at whatever moment, and ends with the
same adapter bit for bit; when all is done, it only writes the results again.
"""

import functools
import hashlib
import json
import sys
import time
from collections.abc import Sequence
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

from musilingo_jax import cache, cli, plots, sources, summary, weights
from musilingo_jax.batches import Batches
from musilingo_jax.cache import Identity
from musilingo_jax.checkpoints import Checkpoints
from musilingo_jax.compilation import keep_compiled_programs
from musilingo_jax.corpora import mixture
from musilingo_jax.corpora.records import Record
from musilingo_jax.errors import UsageError, UserError
from musilingo_jax.interruption import told_to_stop
from musilingo_jax.journal import Journal
from musilingo_jax.models.adapter import Adapter
from musilingo_jax.models.llama import Llama
from musilingo_jax.runs import RunFolder
from musilingo_jax.sharding import make_mesh, shardings
from musilingo_jax.sources import ModelConfig
from musilingo_jax.stages import StageConfig
from musilingo_jax.update import TrainState, make_update


def main(argv: list[str]) -> None:
    """Reads the flags and trains."""
    if argv[1:]:
        raise UsageError(f"unknown argument {argv[1]!r} (try --help)")
    if flags.FLAGS.config is None:
        raise UsageError("say what to train, for example --config=configs/tiny.py")
    train(flags.FLAGS.config, typed=sys.argv[1:])


def train(config: ConfigDict, *, typed: Sequence[str] = ()) -> None:
    """Trains all stages of a config, or what is left of them.

    Args:
      config: as in `configs/tiny.py`.
      typed: the flags to suggest for what comes next.

    Raises:
      UserError: something in the config, the corpus or the run folder is wrong.
      SystemExit: it was told to stop, and has saved where it is.
    """
    started = time.monotonic()
    keep_compiled_programs()
    stages = {name: StageConfig.from_config(config, name) for name in config.stages}
    if not stages:
        raise UserError("config.stages is empty: name at least one stage")
    if config.seed < 0:
        raise UserError(f"config.seed is {config.seed}: it must be 0 or more")
    mesh = make_mesh(**config.mesh)
    for name, stage in stages.items():
        stage.check_rows(name, mesh)
    run = RunFolder(config)
    records = training_records(config)
    run.claim(fingerprints(config, records))

    features = cache.prepare(config, records, mesh)
    heard = [record for record in records if record.clip in features.ids]
    if not heard:
        title = mixture.title(config.corpus)
        raise UserError(f"{title}: none of its songs can be read")
    model = ModelConfig.from_config(config)
    tokenizer = weights.load_tokenizer(model.language_model)
    llama = weights.load_language_model(
        model.language_model, dtype=model.dtype, mesh=mesh
    )
    width = features.features(heard[0].clip).shape[1]
    adapter = first_adapter(config, width, llama.config.width, mesh)
    for name, stage in stages.items():
        chosen = stage.choose(heard)
        if not chosen:
            raise UserError(
                f"config.{name}.questions = {stage.questions!r} leaves nothing to learn"
                f" from: none of the {len(heard)} records is of that kind"
            )
        batches = Batches(
            chosen,
            features,
            tokenizer,
            stage.prompt,
            mixture.weights(config.corpus),
            rows=stage.batch_size * stage.accumulate,
            max_tokens=stage.max_tokens,
            max_windows=stage.max_windows,
            seed=config.seed,
            mesh=mesh,
        )
        examples = {
            "clips": len({record.clip for record in chosen}),
            "examples": batches.examples,
            "of_corpus": batches.of_corpus,
            "cut": batches.cut,
            "too_long": batches.too_long,
            "without_audio": len(stage.choose(records)) - len(chosen),
        }
        run.write(f"{name}/examples.json", json.dumps(examples, indent=2) + "\n")
        adapter = train_stage(name, stage, adapter, llama, batches, run, mesh)

    weights.save_adapter(
        adapter,
        run.path / "adapter",
        dtype=np.float32,
        window_frames=config.features.window_frames,
    )
    if jax.process_index() == 0:
        plots.loss_curves({s: run.metrics(s) for s in stages}, run.path / "loss.png")
        clips = list(dict.fromkeys(record.clip for record in records))
        seconds = time.monotonic() - started
        learnt = {r for stage in stages.values() for r in stage.choose(records)}
        text = summary.describe(
            run,
            stages,
            features,
            clips,
            not_learnt=sum(record not in learnt for record in records),
            seconds=seconds,
            typed=typed,
        )
        run.write("summary.txt", text)
        print(text, end="")


def train_stage(
    name: str,
    stage: StageConfig,
    adapter: Adapter,
    llama: Llama,
    batches: Batches,
    run: RunFolder,
    mesh: Mesh,
) -> Adapter:
    """Trains one stage from its newest checkpoint, or from `adapter` if it has none.

    Raises:
      UserError: the loss is no number any more.
      SystemExit: it was told to stop, and has saved where it is.
    """
    optimiser = stage.optimiser()
    checkpoints = Checkpoints(run.checkpoints(name), keep=stage.keep)
    with closing(checkpoints):
        state, start = first_state(optimiser, adapter, checkpoints, mesh)
        run.rewind(name, start)
        if start >= stage.steps:
            return state.adapter
        update = make_update(stage, optimiser, shardings(state, mesh))
        data = grain.MapDataset.range(start, stage.steps).map(batches.batch)
        # Grain makes the next batches on a thread while the device is busy.
        data = data.to_iter_dataset(grain.ReadOptions(1, prefetch_buffer_size=2))
        journal = Journal(name, stage, batches, run, start)
        with closing(journal), closing(iter(data)) as rows, told_to_stop() as stop:
            for done, batch in enumerate(rows, start=start + 1):
                state, report = update(state, llama, batch)
                journal.add(done, report)
                stopping = stop.agreed(done, every=stage.log_every)
                last = done == stage.steps
                if stopping or last or done % stage.checkpoint_every == 0:
                    journal.catch_up()  # Never saves what is no number.
                    checkpoints.save(done, state, run.config)
                if stopping:
                    break
    if stopping:
        print(
            f"stopped after update {done} of {stage.steps} of {name}, which is saved: "
            "the same command goes on there.",
            file=sys.stderr,
        )
        stop.exit()
    return state.adapter


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
    like = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=place
        ),
        like,
        placement,
    )
    return checkpoints.restore(step, like), step


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


def training_records(config: ConfigDict) -> list[Record]:
    """The records of the training split; errors as in `mixture.split`."""
    return mixture.split(config.corpus, config.corpus.train_split, answered=True)


def fingerprints(config: ConfigDict, records: list[Record]) -> dict[str, Any]:
    """What a run learns from, besides the numbers of its config."""
    model = ModelConfig.from_config(config)
    adapter = model.adapter
    lines = [
        json.dumps([record.corpus, record.clip, record.question, record.answer])
        for record in records
    ]
    return {
        "features": asdict(Identity.of(config)),
        "language_model": weights.digest(model.language_model, "language_model"),
        "adapter": (
            adapter if adapter == "random" else weights.digest(adapter, "adapter")
        ),
        "records": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
    }


if __name__ == "__main__":
    cli.define_config()
    cli.run(main)

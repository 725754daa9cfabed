"""Features by song: the frozen encoder hears each song once, not once per epoch.

    python -m musilingo_jax.cache --config=configs/features/tiny.py
    python -m musilingo_jax.cache --config=… --task=3 --tasks=16     # of a job array
    python -m musilingo_jax.cache --config=… --distributed           # on each of a pod
    python -m musilingo_jax.cache inspect runs/tiny/cache
    python -m musilingo_jax.cache export runs/tiny/cache --out=embeddings.parquet

The first encodes the songs that the cache lacks. Kill it whenever you like: it goes on
with the shard that was not finished, and ends with the same bits as if nobody had
stopped it, or as if any number of tasks had shared the work, on machines of one kind.
Songs that cannot be read are listed, not replaced, and the exit status is 1 unless
`--allow_missing` is given. Those whose files are missing, or not what the corpus
knows, are looked for by every job; those that cannot be decoded are tried again with
`--retry`. Folders may be on `gs://`.
"""

import time
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict

from musilingo_jax.audio.cache import description, export, feature_cache
from musilingo_jax.audio.cache.fill import Share
from musilingo_jax.audio.cache.reader import FeatureCache
from musilingo_jax.corpora import mixture
from musilingo_jax.runtime import cli, distributed, paths
from musilingo_jax.runtime.compilation_cache import keep_compiled_programs
from musilingo_jax.runtime.errors import UsageError, UserError
from musilingo_jax.runtime.sharding import make_mesh


def main(argv: list[str]) -> None:
    """Encodes the songs of `config.corpus`, or looks at what there is of them."""
    config, arguments = flags.FLAGS.config, argv[1:]
    command = "encode"
    if arguments and arguments[0] in ("inspect", "export"):
        command, *arguments = arguments
    if command != "encode" and arguments:
        name, *arguments = arguments
    elif config is not None:
        name = config.features.cache
    else:
        raise UsageError("--config is missing: name a file of configs/")
    if arguments:
        raise UsageError(f"unknown argument {arguments[0]!r} (try --help)")
    if command == "encode":
        _encode(config)
    elif command == "inspect":
        told, problem = description.inspection(paths.open_folder(name))
        print(told)
        if problem:
            raise UserError(problem)
    elif flags.FLAGS.out is None:
        raise UsageError("--out is missing: name a file ending in .parquet or .npz")
    else:
        cache = FeatureCache.open(name, None)
        cache.fetch(cache.ids)
        export.export(cache, Path(flags.FLAGS.out))


def _encode(config: ConfigDict) -> None:
    """This process's share of the work, and what came of it."""
    started = time.monotonic()
    share = _share()
    keep_compiled_programs()
    if flags.FLAGS.allow_missing:
        config.features.allow_missing = True
    clips = feature_cache.clips_of(mixture.load(config.corpus))
    mesh = make_mesh(**config.mesh) if share.tasks == 1 else None
    state = feature_cache.fill(
        config, clips, share, mesh, retry=flags.FLAGS.retry, others=True
    )
    cache = FeatureCache(paths.open_folder(config.features.cache), state)
    told = [clip.id for clip in clips]
    if state.unfinished:
        # What is wrong with the songs of other tasks, those will tell.
        mine = [ids for n, ids in enumerate(state.plans.shards) if share.has(n)]
        mine = set().union(*mine)
        told = [clip for clip in told if clip in mine]
    if jax.process_index() == 0:
        print(description.summary(cache, told, reasons=config.features.allow_missing))
        if state.unfinished:
            print(
                f"task {share.task} of {share.tasks} is done; {state.progress}: the "
                "cache can be used when the other tasks are done too"
            )
        print(f"took {time.monotonic() - started:.1f} s")
    if not config.features.allow_missing:
        feature_cache.refuse_skipped(cache, told)


def _share() -> Share:
    """What the flags say about other processes.

    Raises:
      UsageError: it makes no sense.
    """
    task, tasks = flags.FLAGS.task, flags.FLAGS.tasks
    distributed.start()
    together = Share.of_this_process()
    if together.tasks > 1:
        if tasks > 1:
            raise UsageError(
                "--tasks and --distributed or --processes are two ways; choose one"
            )
        return together
    if not 0 <= task < tasks:
        raise UsageError(
            f"--task={task} --tasks={tasks}: tasks are counted from 0, so --task must "
            f"be from 0 to {tasks - 1}"
        )
    if tasks > 1 and flags.FLAGS.retry:
        raise UsageError(
            "--retry makes a new plan, which depends on what failed: start it once, "
            "without --tasks"
        )
    return Share(task, tasks)


if __name__ == "__main__":
    cli.define_config()
    flags.DEFINE_integer("task", 0, "which task of --tasks this is, from 0")
    flags.DEFINE_integer("tasks", 1, "how many tasks share the songs", lower_bound=1)
    distributed.define_flags()
    flags.DEFINE_bool("retry", False, "try again what could not be read")
    flags.DEFINE_bool("allow_missing", False, "accept that songs cannot be read")
    flags.DEFINE_string("out", None, "export: a file ending in .parquet or .npz")
    cli.run(main)

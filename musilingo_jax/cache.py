"""Encodes each song of a corpus once, and keeps the features on disk.

    python -m musilingo_jax.cache --config=features/tiny
    python -m musilingo_jax.cache --config=features/tiny --task=3 --tasks=16
    python -m musilingo_jax.cache --config=features/tiny --distributed
    python -m musilingo_jax.cache --config=features/tiny --engine=ray
    python -m musilingo_jax.cache inspect runs/tiny/cache
    python -m musilingo_jax.cache export runs/tiny/cache --out=embeddings.parquet

Without a command it encodes the songs that the cache lacks; the second example is one
task of a job array, the third is for each process of a TPU pod or SLURM job, and the
fourth encodes in the processes of a Ray cluster. Kill it at any time: the same command
resumes with the shard that was not finished. However often it was killed, and however
many tasks shared the work, the files are the same, bit for bit, on machines of one
kind. The folder `journal` in the cache says who made which shard, and when.

Songs that cannot be read are listed, not replaced, and the exit status is 1 unless
`--allow_missing` is given. Songs that were missing, or were not what the corpus says,
are looked for again by every job; songs that cannot be decoded only with `--retry`.
Folders may be on `gs://`.
"""

import argparse
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict

from musilingo_jax.audio.cache import description, feature_cache, recorded_type
from musilingo_jax.audio.cache import export as exports
from musilingo_jax.audio.cache.cache_state import CacheState
from musilingo_jax.audio.cache.clips import Clip
from musilingo_jax.audio.cache.reader import FeatureCache
from musilingo_jax.corpora import mixture
from musilingo_jax.jobs import flags as job_flags
from musilingo_jax.jobs.engine import RAY, Engine
from musilingo_jax.jobs.share import Share
from musilingo_jax.pretrained import embedded_models, number_type
from musilingo_jax.runtime import (
    cli,
    command_line,
    distributed,
    paths,
    platforms,
)
from musilingo_jax.runtime.command_line import CommandParser
from musilingo_jax.runtime.errors import UsageError, UserError
from musilingo_jax.runtime.sharding import make_mesh


def parser() -> CommandParser:
    """The command line, but for the flags that absl parses."""
    parser = CommandParser(prog="python -m musilingo_jax.cache", description=__doc__)
    parser.set_defaults(run=encode)
    encoding = parser.add_argument_group("encoding")
    job_flags.add(encoding)
    encoding.add_argument(
        "--retry", action="store_true", help="decode songs again that failed before"
    )
    encoding.add_argument(
        "--allow_missing",
        action="store_true",
        help="succeed even if some songs cannot be read",
    )
    command_line.list_flags(parser)

    commands = parser.add_subparsers(
        title="other commands", metavar="COMMAND", dest="command"
    )
    about = "print what a cache holds and what it still lacks"
    _add(commands, "inspect", about, inspect)
    about = "write a cache as one file, for other programs"
    _add(commands, "export", about, export).add_argument(
        "--out", metavar="FILE", required=True, help="a file ending in .parquet or .npz"
    )
    return parser


def _add(
    commands: Any, name: str, about: str, run: Callable[[argparse.Namespace], None]
) -> CommandParser:
    """Adds a command about the cache that a folder or a config names.

    Args:
      commands: what `add_subparsers` has returned.
      name: the command.
      about: its help.
      run: what it does.
    """
    parser = commands.add_parser(name, help=about, description=about)
    parser.set_defaults(run=run)
    parser.add_argument(
        "folder", metavar="FOLDER", nargs="?", help="the cache; default: the config's"
    )
    command_line.list_flags(parser, "config")
    return parser


def main(given: argparse.Namespace) -> None:
    """Runs the command that the command line names."""
    given.run(given)


def inspect(given: argparse.Namespace) -> None:
    """Prints what a cache holds and what it still lacks.

    Raises:
      UserError: there is no cache, or it cannot be used yet.
    """
    text, problem = description.inspection(paths.open_folder(_folder(given)))
    print(text)
    if problem:
        raise UserError(problem)


def export(given: argparse.Namespace) -> None:
    """Writes a cache as one file, for other programs."""
    cache = FeatureCache.open(_folder(given), None)
    cache.fetch(cache.ids)
    exports.export(cache, Path(given.out))


def encode(given: argparse.Namespace) -> None:
    """Encodes this process's share of the songs, and says which could not be read.

    Raises:
      UserError: songs cannot be read and `--allow_missing` is not given, or as in
        `feature_cache.fill`.
    """
    started = time.monotonic()
    config = cli.required_config("corpus", "features", "model", "mesh")
    engine = job_flags.engine(given)
    share = _share(given, engine)
    if given.allow_missing:
        config.features.allow_missing = True
    clips = feature_cache.clips_of(mixture.load(config.corpus))
    state = _fill(config, clips, share, engine, retry=given.retry)
    cache = FeatureCache(paths.open_folder(config.features.cache), state)
    reported = [clip.id for clip in clips]
    if state.unfinished:
        # The other tasks report their own songs.
        mine = [ids for n, ids in enumerate(state.plans.shards) if share.has(n)]
        mine = set().union(*mine)
        reported = [clip for clip in reported if clip in mine]
    if jax.process_index() == 0:
        reasons = config.features.allow_missing
        print(description.summary(cache, reported, reasons=reasons))
        if state.unfinished:
            print(
                f"task {share.task} of {share.tasks} is done; {state.progress}: the "
                "cache can be used when the other tasks are done too"
            )
        print(f"took {time.monotonic() - started:.1f} s")
    if not config.features.allow_missing:
        feature_cache.refuse_skipped(cache, reported)


def _fill(
    config: ConfigDict,
    clips: Sequence[Clip],
    share: Share,
    engine: Engine,
    *,
    retry: bool,
) -> CacheState:
    """Makes this process's share of the shards, in the type of numbers of all shares.

    Raises:
      UsageError: the type is "auto", and other machines encode.
      UserError: as in `recorded_type.settle` and `feature_cache.fill`.
    """
    embedded_models.settle(config)
    if engine.name == RAY and config.model.get("dtype") == number_type.AUTO:
        raise UsageError(
            f"--engine={RAY}: this process does not know the processors of the cluster;"
            " give --config.model.dtype=bfloat16 or float32"
        )
    automatic = recorded_type.settle(config, parts=("encoder",))
    alone = share.tasks == 1 and engine.name != RAY
    mesh = make_mesh(**config.mesh) if alone else None
    fill = functools.partial(
        feature_cache.fill, config, clips, share, mesh, engine, retry=retry, others=True
    )
    try:
        return fill()
    except UserError:
        # Tasks of an array start together, perhaps on different processors. The one
        # that is first to write a plan decides for all, before anything is encoded.
        planned = recorded_type.of_cache(config)
        if (
            not automatic
            or jax.process_count() > 1
            or planned in (None, config.model.dtype)
        ):
            raise
        config.model.dtype = planned
        return fill()


def _folder(given: argparse.Namespace) -> str:
    """The cache that the command line names.

    Raises:
      UsageError: it names several or none, or has flags that only encoding uses.
    """
    typed = {name for name in flags.FLAGS if flags.FLAGS[name].present}
    if unused := sorted(typed.intersection(distributed.FLAGS)):
        raise UsageError(f"--{unused[0]} is for encoding, not for {given.command}")
    if given.folder is not None:
        if "config" in typed:
            raise UsageError(
                f"{given.folder} and --config both name a cache: give one of them"
            )
        return given.folder
    return cli.required_config("features").features.cache


def _share(given: argparse.Namespace, engine: Engine) -> Share:
    """Which part of the work is this process's.

    Raises:
      UsageError: the flags contradict each other.
      UserError: as in `platforms.start`.
    """
    if engine.name == RAY:
        # The accelerators of this machine are for the processes of the cluster.
        jax.config.update("jax_platforms", "cpu")
    distributed.start()
    platforms.start()
    together = Share.of_this_process()
    if together.tasks == 1:
        return job_flags.share(given)
    if given.tasks > 1 or engine.name == RAY:
        raise UsageError(
            f"--{'engine' if engine.name == RAY else 'tasks'} and --distributed or "
            "--processes are two ways to share the work: choose one"
        )
    return together


if __name__ == "__main__":
    cli.define_config()
    distributed.define_flags()
    cli.run(main, parser())

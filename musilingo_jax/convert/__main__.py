"""Released weights from one form into another.

    python -m musilingo_jax.convert safetensors FOLDER --out=DIR      (PyTorch's files)
    python -m musilingo_jax.convert merge --base=LLAMA --delta=VICUNA_DELTA --out=DIR
    python -m musilingo_jax.convert split m-a-p/MusiLingo-long-v1 --out=DIR
    python -m musilingo_jax.convert adapter checkpoint_4.pth --out=DIR
    python -m musilingo_jax.convert export --adapter=RUN/adapter --out=DIR
    python -m musilingo_jax.convert export RUN --out=DIR            (the whole model)
    python -m musilingo_jax.convert export RUN --out=DIR \
        --mert_model=m-a-p/MERT-v1-330M --llama_model=OWNER/VICUNA  (… for others)
    python -m musilingo_jax.convert --inspect SOURCE                (writes nothing)

A source is what `sources.py` says: a folder, an embedded model, a name on the hub. All
of these are the same work: names, each with a tensor that can be read, written one
after the other. What is not a sum is a copy to the bit.
"""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags

from musilingo_jax.convert import (
    inspection,
    musilingo_releases,
    vicuna_deltas,
    write_folders,
)
from musilingo_jax.convert.write_folders import Output, copies, small_files
from musilingo_jax.pretrained import sources
from musilingo_jax.pretrained.sources import KINDS
from musilingo_jax.pretrained.tensor_files import CONFIG, open_tensors
from musilingo_jax.runtime import cli
from musilingo_jax.runtime.errors import UsageError
from musilingo_jax.runtime.paths import read_json
from musilingo_jax.runtime.signals import Interrupted

PROGRAM = "python -m musilingo_jax.convert"
USAGES = {
    "safetensors": "safetensors SOURCE --out=DIR",
    "merge": "merge --base=SOURCE --delta=SOURCE --out=DIR",
    "split": "split SOURCE --out=DIR",
    "adapter": "adapter FILE.pth --out=DIR [--window_frames=325]",
    "export": "export [SOURCE] [--encoder=SOURCE] [--language_model=SOURCE] "
    "[--adapter=SOURCE] [--mert_model=NAME] [--llama_model=NAME] --out=DIR",
}
_FLAGS = (
    "base",
    "delta",
    "encoder",
    "language_model",
    "adapter",
    "mert_model",
    "llama_model",
    "window_frames",
)
_INSPECT = f"{PROGRAM} --inspect=SOURCE [--json]"
_CHOICES = f"{PROGRAM} {'|'.join(USAGES)} … --out=DIR, or {_INSPECT}"


def safetensors(source: str) -> list[Output]:
    """Any folder of weights, as safetensors under the same names.

    Raises:
      UserError: as in `sources.resolve` and `open_tensors`.
    """
    folder = sources.resolve(source)
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else None
    return [Output(copies(open_tensors(folder)), config, small_files(folder))]


def _plan(command: str, arguments: Sequence[str], given: Any) -> list[Output]:
    """What the command line asks for.

    Raises:
      UsageError: it asks for nothing that makes sense.
    """
    if command not in USAGES:
        raise UsageError(f"{command} is no conversion: {_CHOICES}")
    usage = f"{PROGRAM} {USAGES[command]}"
    if not given.out:
        raise UsageError(f"--out is missing: {usage}")
    takes = {"merge": (0, 0), "export": (0, 1)}.get(command, (1, 1))
    if not takes[0] <= len(arguments) <= takes[1]:
        wrong = "too many sources" if len(arguments) > takes[1] else "name a source"
        raise UsageError(f"{wrong}: {usage}")
    if not all(arguments):
        raise UsageError(f"the source is empty: {usage}")
    for name in _FLAGS:
        if getattr(given, name) is not None and f"--{name}" not in usage:
            raise UsageError(f"--{name} has no meaning here: {usage}")
    if command == "merge":
        if not given.base or not given.delta:
            raise UsageError(f"name both --base and --delta: {usage}")
        return vicuna_deltas.merge(given.base, given.delta)
    if command == "export":
        whole = arguments[0] if arguments else None
        parts = [getattr(given, kind) or whole for kind in KINDS]
        if parts[:2] == [None, None] and parts[2]:
            if given.mert_model or given.llama_model:
                raise UsageError(f"an adapter alone names no other models: {usage}")
            return musilingo_releases.export_adapter(parts[2])
        if None in parts:
            raise UsageError(f"name all three parts, or the adapter alone: {usage}")
        return musilingo_releases.export(
            *parts, mert_model=given.mert_model, llama_model=given.llama_model
        )
    if command == "adapter":
        return musilingo_releases.adapter(
            arguments[0], window_frames=given.window_frames
        )
    return {"safetensors": safetensors, "split": musilingo_releases.split}[command](
        arguments[0]
    )


def main(argv: list[str]) -> None:
    """Reads the flags; inspects or converts."""
    given = flags.FLAGS
    if given.inspect is not None:
        if len(argv) > 1 or given.out:
            raise UsageError(f"--inspect stands alone: {_INSPECT}")
        if not given.inspect:
            raise UsageError(f"--inspect is empty; name a source: {_INSPECT}")
        reports = inspection.inspect(given.inspect)
        if given.json:
            print(json.dumps(inspection.as_json(given.inspect, reports), indent=2))
        else:
            print(inspection.table(reports))
        return
    if len(argv) < 2 or given.json:
        wrong = "--json goes with --inspect" if given.json else "name a conversion"
        raise UsageError(f"{wrong}: {_CHOICES}")
    if not math.isfinite(given.shard_gb):
        raise UsageError(f"--shard_gb={given.shard_gb}: is no size of a file")
    try:
        plan = _plan(argv[1], argv[2:], given)
        write_folders.write(
            Path(given.out), plan, shard_bytes=int(given.shard_gb * 1e9)
        )
    except Interrupted as told:
        print(f"interrupted: nothing was kept in {given.out}.", file=sys.stderr)
        sys.exit(told.status)
    print(f"{given.out}: complete")
    if argv[1] == "merge":
        print(
            "Whether the base was that of the delta only the sum can tell: ask the "
            "merged model something; if it answers nonsense, merge with another base."
        )


if __name__ == "__main__":
    # Sums are the only arithmetic here, and no accelerator is faster than the disk.
    jax.config.update("jax_platforms", "cpu")
    # Here and not above, so that other programs can import this one's functions.
    flags.DEFINE_string("out", None, "folder to be made")
    flags.DEFINE_string("base", None, "source of the model that a delta is one to")
    flags.DEFINE_string("delta", None, "source of the difference to it")
    flags.DEFINE_string("encoder", None, "source of an encoder to export")
    flags.DEFINE_string("language_model", None, "source of a language model to export")
    flags.DEFINE_string("adapter", None, "source of an adapter to export")
    # The original's code calls `from_pretrained` of these two.
    flags.DEFINE_string(
        "mert_model", None, "name on the hub of the encoder that is exported"
    )
    flags.DEFINE_string(
        "llama_model", None, "name on the hub of the language model that is exported"
    )
    flags.DEFINE_integer(
        "window_frames",
        None,
        "frames that an imported adapter sees the means of; default: what its config "
        f"says, else {sources.RELEASED_WINDOW_FRAMES} as the released ones",
        lower_bound=1,
    )
    flags.DEFINE_float("shard_gb", 5.0, "largest file of weights", lower_bound=0.001)
    flags.DEFINE_string("inspect", None, "source to look at; writes nothing")
    flags.DEFINE_bool("json", False, "the inspection for programs")
    cli.run(main)

r"""Converts released weights from one form into another.

    python -m musilingo_jax.convert safetensors FOLDER --out=DIR
    python -m musilingo_jax.convert merge --base=LLAMA --delta=VICUNA_DELTA --out=DIR
    python -m musilingo_jax.convert merge --lora=LORA --out=DIR
    python -m musilingo_jax.convert split m-a-p/MusiLingo-long-v1 --out=DIR
    python -m musilingo_jax.convert adapter checkpoint_4.pth --out=DIR
    python -m musilingo_jax.convert adapter runs/tiny --lora=LORA --out=DIR
    python -m musilingo_jax.convert peft runs/tiny --out=DIR
    python -m musilingo_jax.convert merge --adapter=runs/tiny --out=DIR
    python -m musilingo_jax.convert export --adapter=runs/tiny --out=DIR
    python -m musilingo_jax.convert export --adapter=runs/tiny --format=pth --out=DIR
    python -m musilingo_jax.convert export runs/tiny --out=DIR
    python -m musilingo_jax.convert gguf model-q8_0.gguf --out=DIR --dtype=bfloat16
    python -m musilingo_jax.convert --inspect m-a-p/MusiLingo-long-v1

A SOURCE is a folder, an embedded model such as musilingo-tiny, or a name on the Hugging
Face hub such as owner/name. Tensors are streamed from their files into the new ones;
all but the sums of `merge` and the rounded weights of `gguf` are copied bit for bit.
The rows of a head in a LLaMA as Meta hands it out are put in another order.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from musilingo_jax.convert import (
    inspection,
    language_models,
    mu_llama_releases,
    musilingo_releases,
    peft_folders,
    vicuna_deltas,
)
from musilingo_jax.pretrained import (
    gguf_folder,
    meta_layout,
    model_folder,
    sources,
    write_folders,
)
from musilingo_jax.pretrained.model_config import KINDS
from musilingo_jax.pretrained.tensor_files import CONFIG, open_tensors
from musilingo_jax.pretrained.weights import bridge_kind
from musilingo_jax.pretrained.write_folders import Output, copies, small_files
from musilingo_jax.runtime import cli
from musilingo_jax.runtime.command_line import CommandParser, nonempty, positive
from musilingo_jax.runtime.errors import UsageError
from musilingo_jax.runtime.json_files import read_json
from musilingo_jax.runtime.printable import print_note, printable
from musilingo_jax.runtime.signals import Interrupted


def parser() -> CommandParser:
    """The command line: `--inspect`, and a subcommand for each conversion."""
    parser = CommandParser(prog="python -m musilingo_jax.convert", description=__doc__)
    parser.set_defaults(outputs=None)
    parser.add_argument(
        "--inspect",
        metavar="SOURCE",
        type=nonempty,
        help="print what a source holds, from the headers of its files; writes nothing",
    )
    parser.add_argument("--json", action="store_true", help="print --inspect as JSON")

    commands = parser.add_subparsers(
        title="conversions", metavar="COMMAND", dest="command"
    )
    source: dict[str, Any] = {"metavar": "SOURCE", "type": nonempty}
    about = "convert files of PyTorch to safetensors; Meta's with other names"
    folder = _add(
        commands, "safetensors", about, lambda given: safetensors(given.source)
    )
    folder.add_argument("source", **source, help="a folder of weights")

    about = "add a published difference, or a LoRA, to the LLaMA that it was made from"
    merge = _add(commands, "merge", about, lambda given: _merge(given, merge))
    merge.add_argument(
        "--base",
        **source,
        help="the LLaMA; without --delta, the default is what the other names",
    )
    added = merge.add_mutually_exclusive_group(required=True)
    added.add_argument("--delta", **source, help="the difference to it")
    added.add_argument("--lora", **source, help="a LoRA of the peft library")
    added.add_argument(
        "--adapter",
        **source,
        help="an adapter with a LoRA, such as a run; its bridge is written, too",
    )

    about = "split a whole model into encoder/, language_model/ and adapter/"
    split = _add(
        commands, "split", about, lambda given: musilingo_releases.split(given.source)
    )
    split.add_argument("source", **source, help="a release of MusiLingo or MU-LLaMA")

    about = (
        "import an adapter from a checkpoint of the original trainer, or add a LoRA of "
        "the peft library to an adapter"
    )
    adapter = _add(commands, "adapter", about, lambda given: _adapter(given, adapter))
    adapter.add_argument(
        "source", **source, help="the checkpoint, a .pth file; with --lora, an adapter"
    )
    adapter.add_argument(
        "--lora", **source, help="what is to be trained beside the language model"
    )
    adapter.add_argument(
        "--base",
        **source,
        help="with --lora, the language model; default: the one that the LoRA names",
    )
    adapter.add_argument(
        "--window_frames",
        metavar="N",
        type=positive,
        help="frames that the adapter sees the mean of; default: what its config says, "
        f"else {sources.RELEASED_WINDOW_FRAMES}",
    )

    about = "write an adapter's LoRA as a folder of the peft library"
    peft = _add(
        commands,
        "peft",
        about,
        lambda given: peft_folders.export(given.source, given.base),
    )
    peft.add_argument("source", **source, help="an adapter with a LoRA, such as a run")
    peft.add_argument(
        "--base",
        **source,
        help="the language model's name for others; default: its name in the training",
    )

    about = "convert a language model in GGUF, of llama.cpp, to safetensors"
    gguf = _add(
        commands,
        "gguf",
        about,
        lambda given: gguf_folder.convert(given.source, dtype=given.dtype),
    )
    gguf.add_argument(
        "source",
        **source,
        help="a .gguf file, a folder with one model in such files, or a wheel with one",
    )
    gguf.add_argument(
        "--dtype",
        choices=tuple(gguf_folder.DTYPES),
        metavar="TYPE",
        help="float32, bfloat16 or float16 (default: as in the file)",
    )

    about = "write a model, or an adapter alone, as the original code reads it"
    export = _add(commands, "export", about, lambda given: _export(given, export))
    export.add_argument("source", **source, nargs="?", help="a whole model")
    for kind in KINDS:
        name = kind.replace("_", " ")
        export.add_argument(
            f"--{kind}", metavar="SOURCE", help=f"the {name}, if not that of SOURCE"
        )
    export.add_argument(
        "--format",
        choices=("safetensors", "pth"),
        metavar="FORMAT",
        help="safetensors, or pth for the setting `ckpt`; default: what is read there",
    )
    # The original's code calls `from_pretrained` with these two names.
    export.add_argument(
        "--mert_model", metavar="NAME", help="the encoder's name on the hub"
    )
    export.add_argument(
        "--llama_model", metavar="NAME", help="the language model's name on the hub"
    )
    return parser


def _add(
    commands: Any,
    name: str,
    about: str,
    outputs: Callable[[argparse.Namespace], list[Output]],
) -> CommandParser:
    """Adds a conversion.

    Args:
      commands: what `add_subparsers` has returned.
      name: the subcommand.
      about: its help.
      outputs: plans what it writes.
    """
    parser = commands.add_parser(name, help=about, description=about)
    parser.set_defaults(outputs=outputs)
    parser.add_argument(
        "--out", metavar="DIR", type=nonempty, required=True, help="folder to make"
    )
    parser.add_argument(
        "--shard_gb",
        metavar="GB",
        type=_gigabytes,
        default=5.0,
        help="size of the largest file of weights (default: 5)",
    )
    return parser


def main(given: argparse.Namespace) -> None:
    """Inspects a source, or runs one conversion."""
    if given.outputs is None:
        _inspect(given)
        return
    try:
        write_folders.write(
            Path(given.out), given.outputs(given), shard_bytes=int(given.shard_gb * 1e9)
        )
    except Interrupted as interrupted:
        print_note(f"interrupted: nothing was kept in {given.out}.")
        sys.exit(interrupted.status)
    print(f"{given.out}: complete")
    if given.command == "merge":
        print(
            "Only its answers show whether the base was the right one: ask the merged "
            "model something, and if it answers nonsense, merge with another base."
        )


def safetensors(source: str) -> list[Output]:
    """Any folder of weights, as safetensors with the same names, but for Meta's.

    Raises:
      UserError: as in `model_folder.resolve` and `open_tensors`.
    """
    folder = model_folder.resolve(source)
    if meta_layout.is_layout(folder):
        return language_models.written(sources.find(folder, "language_model"))
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else None
    pieces = copies(open_tensors(folder), folder)
    return [Output(pieces, config, small_files(folder))]


def _inspect(given: argparse.Namespace) -> None:
    if given.inspect is None:
        raise UsageError(
            "name a conversion (safetensors, merge, split, adapter, peft, gguf or "
            "export), or a source to --inspect (try python -m musilingo_jax.convert "
            "--help)"
        )
    reports = inspection.inspect(given.inspect)
    if given.json:
        print(json.dumps(inspection.as_json(given.inspect, reports), indent=2))
    else:
        print(printable(inspection.table(reports)))


def _merge(given: argparse.Namespace, parser: CommandParser) -> list[Output]:
    """Plans the merge of a delta, or of a LoRA.

    Raises:
      UsageError: a delta is given without its base.
    """
    if given.lora is not None:
        return language_models.merge_lora(given.base, given.lora)
    if given.adapter is not None:
        return language_models.merge_adapter(given.adapter, given.base)
    if given.base is None:
        parser.error("the following arguments are required: --base")
    return vicuna_deltas.merge(given.base, given.delta)


def _adapter(given: argparse.Namespace, parser: CommandParser) -> list[Output]:
    """Plans the import of an adapter, or of a LoRA for one.

    Raises:
      UsageError: an argument is for the other of the two.
    """
    if given.lora is not None:
        if given.window_frames is not None:
            parser.error("--window_frames is for a checkpoint: leave out --lora")
        return peft_folders.with_lora(given.source, given.lora, given.base)
    if given.base is not None:
        parser.error("--base is the language model of a LoRA: name that as --lora")
    return musilingo_releases.adapter(given.source, window_frames=given.window_frames)


def _export(given: argparse.Namespace, parser: CommandParser) -> list[Output]:
    """Plans the export of an adapter alone, or of a whole model.

    Raises:
      UsageError: parts are missing, or names are given that an adapter does not hold.
    """
    encoder, language_model, adapter = (
        getattr(given, kind) or given.source for kind in KINDS
    )
    if encoder is None and language_model is None and adapter is not None:
        if given.mert_model or given.llama_model:
            parser.error(
                "an adapter alone does not name other models: leave out --mert_model "
                "and --llama_model"
            )
        return musilingo_releases.export_adapter(
            adapter, checkpoint=given.format == "pth"
        )
    if encoder is None or language_model is None or adapter is None:
        parser.error("name all three parts, or the adapter alone")
    found = sources.find(adapter, "adapter")
    if not bridge_kind(found.config).splices:
        if given.mert_model or given.llama_model or given.format == "safetensors":
            parser.error(
                "MU-LLaMA's code reads one .pth file that names no other models: leave "
                "out --mert_model, --llama_model and --format=safetensors"
            )
        return mu_llama_releases.export(encoder, language_model, adapter)
    if given.format == "pth":
        parser.error(
            "--format=pth is for an adapter alone, because the original's setting "
            "`ckpt` reads nothing else: name --adapter only"
        )
    return musilingo_releases.export(
        encoder,
        language_model,
        adapter,
        mert_model=given.mert_model,
        llama_model=given.llama_model,
    )


def _gigabytes(text: str) -> float:
    """The size of a file, as the `type` of an argument.

    Raises:
      argparse.ArgumentTypeError: it is not a finite number of at least 0.001.
    """
    try:
        size = float(text)
    except ValueError:
        size = math.nan
    if not (math.isfinite(size) and size >= 0.001):
        raise argparse.ArgumentTypeError(
            f"{text} is not a finite number of at least 0.001"
        )
    return size


if __name__ == "__main__":
    # Sums are the only arithmetic, and no accelerator is faster than the disk.
    jax.config.update("jax_platforms", "cpu")
    cli.run(main, parser())

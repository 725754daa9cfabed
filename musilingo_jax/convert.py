"""Released weights from one form into another.

    python -m musilingo_jax.convert safetensors FOLDER --out=DIR      (PyTorch's files)
    python -m musilingo_jax.convert merge --base=LLAMA --delta=VICUNA_DELTA --out=DIR
    python -m musilingo_jax.convert split m-a-p/MusiLingo-long-v1 --out=DIR
    python -m musilingo_jax.convert adapter checkpoint_4.pth --out=DIR
    python -m musilingo_jax.convert export --adapter=RUN/adapter --out=DIR
    python -m musilingo_jax.convert export RUN --out=DIR            (the whole model)
    python -m musilingo_jax.convert --inspect SOURCE                (writes nothing)

A source is what `sources.py` says: a folder, an embedded model, a name on the hub. All
of these are the same work: names, each with a tensor that can be read, written one
after the other. What is not a sum is a copy to the bit.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict

from musilingo_jax import (
    cli,
    deltas,
    generate,
    inspection,
    outputs,
    pickles,
    released,
    sources,
    tensors,
)
from musilingo_jax.errors import UsageError, UserError
from musilingo_jax.outputs import Output, copies, small_files
from musilingo_jax.sources import KINDS, PREFIXES, Part
from musilingo_jax.tensor_files import CONFIG, open_tensors, read_json, under
from musilingo_jax.weights import blueprint

PROGRAM = "python -m musilingo_jax.convert"
USAGES = {
    "safetensors": "safetensors SOURCE --out=DIR",
    "merge": "merge --base=SOURCE --delta=SOURCE --out=DIR",
    "split": "split SOURCE --out=DIR",
    "adapter": "adapter FILE.pth --out=DIR [--window_frames=325]",
    "export": "export [SOURCE] [--encoder=SOURCE] [--language_model=SOURCE] "
    "[--adapter=SOURCE] --out=DIR",
}
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


def split(source: str) -> list[Output]:
    """The three parts of a whole model, each as a folder of its own.

    Raises:
      UserError: the source has not all three.
    """
    found = sources.kinds(source)
    if lacking := [kind for kind in KINDS if kind not in found]:
        raise UserError(
            f"{source}: is no whole model, for it has no {' and no '.join(lacking)}"
        )
    parts = [sources.find(source, kind) for kind in KINDS]
    return [
        Output(copies(part.tensors()), part.config, _tokenizer(part), part.kind)
        for part in parts
    ]


def adapter(source: str, *, window_frames: int) -> list[Output]:
    """The adapter in a trainer's checkpoint, or in any folder with its two tensors.

    Args:
      source: an author's `.pth`, or a folder or name of safetensors.
      window_frames: frames that it was trained to see the means of.

    Raises:
      UserError: there is no adapter in it, or more than one.
    """
    path = Path(source)
    if path.is_file():
        content = pickles.open_tensors(path)
    elif path.suffix in pickles.ENDINGS and not path.exists():
        raise UserError(f"{source}: there is no such file")
    else:
        content = open_tensors(sources.resolve(source))
    # In a whole model they have a prefix, and stand among others.
    inside = under(content, f"{PREFIXES['adapter']}llama_proj.")
    content = {f"llama_proj.{name}": t for name, t in inside.items()} or content
    weight = content.get("llama_proj.weight")
    if weight is None or len(weight.shape) != 2:
        raise UserError(
            f"{source}: holds no adapter, for it has no matrix llama_proj.weight "
            f"(but {', '.join(list(content)[:3])} …)"
        )
    width_out, width_in = weight.shape
    config = {
        "encoder_width": width_in,
        "language_model_width": width_out,
        "window_frames": window_frames,
    }
    plan = blueprint(Part("adapter", source, path, "", config, None))
    tensors.check(*plan, content, source=source)
    return [Output(copies(content), config)]


def export_adapter(source: str) -> list[Output]:
    """An adapter under the names by which the original's checkpoints know it."""
    part = sources.find(source, "adapter")
    return [Output(copies(part.tensors()), part.config)]


def export(encoder: str, language_model: str, adapter: str) -> list[Output]:
    """A whole model, laid out as the releases are.

    Its `config.json` is that of the language model, as released, and has sections
    `encoder` and `language_model` of which the whole is understood again.

    Raises:
      UserError: the parts do not fit together.
    """
    parts = [
        sources.find(source, kind)
        for source, kind in zip((encoder, language_model, adapter), KINDS, strict=True)
    ]
    *frozen, learnt = parts
    widths = [part.config.get("hidden_size") for part in frozen]
    wanted = [learnt.config.get(f"{part.kind}_width") for part in frozen]
    if widths != wanted:
        raise UserError(
            f"{adapter}: leads from width {wanted[0]} to {wanted[1]}, but {encoder} has"
            f" width {widths[0]} and {language_model} {widths[1]}; name the parts that "
            "it was trained with"
        )
    if sources.is_delta(frozen[1].tensors()):
        raise UserError(f"{language_model}: is only a delta; merge it first")
    pieces = {
        PREFIXES[part.kind] + name: piece
        for part in parts
        for name, piece in copies(part.tensors()).items()
    }
    whole = {
        "architectures": ["MusilingoModel"],
        "model_type": "musilingo",
        "mert_model": encoder,
        "llama_model": language_model,
        "prompt_template": _template(adapter),
        "window_frames": learnt.config.get(
            "window_frames", sources.RELEASED_WINDOW_FRAMES
        ),
    }
    sections = {part.kind: dict(part.config) for part in frozen}
    config = dict(frozen[1].config) | whole | sections
    return [Output(pieces, config, _tokenizer(frozen[1]))]


def _tokenizer(part: Part) -> list[Path]:
    """Files to copy with a language model."""
    return small_files(part.tokenizer) if part.tokenizer else []


def _template(adapter: str) -> str:
    """How questions were put to the adapter in training: the released way if unknown.

    Raises:
      UserError: in a way that a release's `config.json` has no words for.
    """
    folder = sources.resolve(adapter)
    for place in (folder, folder.parent):
        config = read_json(place / CONFIG) if (place / CONFIG).is_file() else {}
        if sources.is_release(config):
            return released.prompt_of(config).template
        if not sources.is_run(config):
            continue
        if stage := generate.stage_of(ConfigDict(config), "a question"):
            for name in ("instruction", "end_sign"):
                learnt = getattr(stage.prompt, name)
                if learnt != (usual := getattr(released.PROMPT, name)):
                    raise UserError(
                        f"{place / CONFIG}: it was trained with {name} {learnt!r}, and "
                        f"a released model always has {usual!r}; export the adapter "
                        "alone"
                    )
            return stage.prompt.template
    return released.PROMPT.template


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
    for name in ("base", "delta", "encoder", "language_model", "adapter"):
        if getattr(given, name) is not None and f"--{name}" not in usage:
            raise UsageError(f"--{name} has no meaning here: {usage}")
    if command == "merge":
        if not given.base or not given.delta:
            raise UsageError(f"name both --base and --delta: {usage}")
        return deltas.merge(given.base, given.delta)
    if command == "export":
        whole = arguments[0] if arguments else None
        parts = [getattr(given, kind) or whole for kind in KINDS]
        if parts[:2] == [None, None] and parts[2]:
            return export_adapter(parts[2])
        if None in parts:
            raise UsageError(f"name all three parts, or the adapter alone: {usage}")
        return export(*parts)
    if command == "adapter":
        return adapter(arguments[0], window_frames=given.window_frames)
    return {"safetensors": safetensors, "split": split}[command](arguments[0])


def main(argv: list[str]) -> None:
    """Reads the flags; inspects or converts."""
    given = flags.FLAGS
    if given.inspect is not None:
        if len(argv) > 1 or given.out:
            raise UsageError(f"--inspect stands alone: {_INSPECT}")
        reports = inspection.inspect(given.inspect)
        if given.json:
            print(json.dumps(inspection.as_json(given.inspect, reports), indent=2))
        else:
            print(inspection.table(reports))
        return
    if len(argv) < 2 or given.json:
        wrong = "--json goes with --inspect" if given.json else "name a conversion"
        raise UsageError(f"{wrong}: {_CHOICES}")
    plan = _plan(argv[1], argv[2:], given)
    try:
        outputs.write(Path(given.out), plan, shard_bytes=int(given.shard_gb * 1e9))
    except KeyboardInterrupt:
        print(f"interrupted: nothing was kept in {given.out}.", file=sys.stderr)
        sys.exit(130)
    print(f"{given.out}: complete")


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
    flags.DEFINE_integer(
        "window_frames",
        sources.RELEASED_WINDOW_FRAMES,
        "frames that an imported adapter sees the means of",
        lower_bound=1,
    )
    flags.DEFINE_float("shard_gb", 5.0, "largest file of weights", lower_bound=0.001)
    flags.DEFINE_string("inspect", None, "source to look at; writes nothing")
    flags.DEFINE_bool("json", False, "the inspection for programs")
    cli.run(main)

"""Splits releases and checkpoints into parts, and exports parts as MusiLingo releases.

    whole model  ⇄  encoder, language model, adapter            `split`, `export`
    a trainer's checkpoint  →  adapter                          `adapter`
    adapter  →  what their `load_state_dict` accepts            `export_adapter`

These functions write nothing. They return each `Output` to write.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from musilingo_jax.answering import released
from musilingo_jax.answering.question_format import question_format
from musilingo_jax.models import llama as llamas
from musilingo_jax.models.bridges.linear import LinearBridge
from musilingo_jax.pretrained import (
    model_folder,
    pytorch_files,
    sources,
    tensor_map,
    trained_with,
)
from musilingo_jax.pretrained.lazy_tensors import Tensors
from musilingo_jax.pretrained.model_config import KINDS
from musilingo_jax.pretrained.safetensors_file import open_file
from musilingo_jax.pretrained.sources import PREFIXES, TRAINED_WITH, Part
from musilingo_jax.pretrained.tensor_files import CONFIG, open_tensors
from musilingo_jax.pretrained.trained_with import TrainedWith
from musilingo_jax.pretrained.weights import TUNING, blueprint, bridge_kind, is_delta
from musilingo_jax.pretrained.write_folders import (
    FolderPart,
    Output,
    copies,
    small_files,
)
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json

# The authors' checkpoints hold the trained parameters, and the buffers of the frozen
# models, which nothing reads.
_BUFFERS = tuple(rf"llama_model\.{pattern}" for pattern in llamas.IGNORED)


def split(source: str) -> list[Output]:
    """The three parts of a whole model, each as a folder of its own.

    The prompt template, which only the configuration of a whole model has, goes into
    that of the adapter, which was trained with it. So do the digests of the other two.

    Raises:
      UserError: the source lacks a part, a part is incomplete, or the adapter was
        trained with others.
    """
    found = sources.kinds(source)
    if lacking := [kind for kind in KINDS if kind not in found]:
        raise UserError(
            f"{source}: is not a whole model: it has no {' and no '.join(lacking)}"
        )
    trained_with.check(source, source, source)
    parts = {kind: sources.find(source, kind) for kind in KINDS}
    configs = {kind: part.config for kind, part in parts.items()}
    # What a release or a folder holds as a whole was trained together.
    known = TrainedWith.of_adapter(parts["adapter"])
    known = known or TrainedWith.of_sources(source, source)
    configs["adapter"] = adapter_config(parts["adapter"]) | _record(parts, known)
    return [
        Output(_copies(part), configs[kind], _tokenizer(part), kind)
        for kind, part in parts.items()
    ]


def adapter(source: str, *, window_frames: int | None) -> list[Output]:
    """The adapter in a trainer's checkpoint, or in any folder with its two tensors.

    Args:
      source: an author's `.pth`, or a folder or name of safetensors.
      window_frames: encoder frames per vector in its training; None for what the source
        says, or for the released adapters' number if it does not say.

    Raises:
      UserError: the source holds no adapter, or more than one.
    """
    part, content = _adapter(source)
    weight = content.get("llama_proj.weight")
    if weight is None or len(weight.shape) != 2:
        raise UserError(
            f"{source}: holds no adapter: it has no matrix llama_proj.weight "
            f"(but {', '.join(list(content)[:3])} …)"
        )
    width_out, width_in = weight.shape
    widths = {"encoder_width": width_in, "language_model_width": width_out}
    config = adapter_config(part) | widths | record_of(part)
    if window_frames is not None:
        config["window_frames"] = window_frames
    content = tensor_map.without(content, _BUFFERS)
    return [Output(_copies(replace(part, config=config), content), config)]


def bridge_alone(part: Part) -> Output:
    """An adapter without what was trained beside the language model's weights.

    It belongs to another language model than it was trained with, so that is left out.

    Raises:
      UserError: the adapter is incomplete.
    """
    config = {k: v for k, v in adapter_config(part).items() if k != TUNING}
    content = {
        name: tensor
        for name, tensor in part.tensors().items()
        if not name.startswith(f"{TUNING}.")
    }
    alone = replace(part, config=config)
    return Output(_copies(alone, content), config, folder="adapter")


def encoder_alone(source: str) -> Output:
    """The encoder of a source as a folder of its own.

    Raises:
      UserError: it is incomplete.
    """
    part = sources.find(source, "encoder")
    return Output(_copies(part), part.config, folder="encoder")


def _adapter(source: str) -> tuple[Part, Tensors]:
    """An adapter and its tensors; its configuration may be empty."""
    path = Path(source)
    if path.exists() and not path.is_dir():
        alone = path.suffix == ".safetensors"
        content = open_file(path) if alone else pytorch_files.open_tensors(path)
        return Part("adapter", source, path, "", {}, None), content
    if path.suffix in pytorch_files.ENDINGS and not path.exists():
        raise UserError(f"{source}: there is no such file")
    folder = model_folder.resolve(source)
    if (folder / CONFIG).is_file() or (folder / "adapter" / CONFIG).is_file():
        part = sources.find(source, "adapter")
        return part, part.tensors()
    return Part("adapter", source, folder, "", {}, None), open_tensors(folder)


def export_adapter(source: str, *, checkpoint: bool = False) -> list[Output]:
    """An adapter under the names that the original's checkpoints use.

    Args:
      source: of the adapter.
      checkpoint: whether to write a `.pth`, which is all that the original's setting
        `ckpt` reads: `torch.load(path)["model"]`.

    Raises:
      UserError: the source holds no adapter.
    """
    part = sources.find(source, "adapter")
    if bridge_kind(part.config) is not LinearBridge:
        raise UserError(
            f"{source}: the original's code reads such an adapter only in one file "
            "with the encoder and the language model: name all three parts"
        )
    sources.released_window(part.config, part.folder)
    config = dict(part.config) | record_of(part)
    return [Output(_copies(part), config, checkpoint=checkpoint)]


def export(
    encoder: str,
    language_model: str,
    adapter: str,
    *,
    mert_model: str | None = None,
    llama_model: str | None = None,
) -> list[Output]:
    """A whole model, laid out as the releases are.

    Its `config.json` is that of the language model, as in the releases, with sections
    `encoder` and `language_model` from which the whole model can be loaded again.

    Args:
      encoder: source of the encoder.
      language_model: source of the language model.
      adapter: source of the adapter.
      mert_model: the name of the encoder that the release is made from; None for where
        it is now. The original's code calls `from_pretrained` with it, so a release
        for others needs a name on the hub here.
      llama_model: the same for the language model.

    Raises:
      UserError: the parts do not fit together, or one is incomplete.
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
            f"{adapter}: maps width {wanted[0]} to {wanted[1]}, but {encoder} has width"
            f" {widths[0]} and {language_model} {widths[1]}; name the parts that it "
            "was trained with"
        )
    trained_with.check(adapter, encoder, language_model)
    if is_delta(frozen[1].tensors()):
        raise UserError(f"{language_model}: is only a delta; merge it first")
    pieces = {
        PREFIXES[part.kind] + name: piece
        for part in parts
        for name, piece in _copies(part).items()
    }
    whole = {
        "architectures": ["MusilingoModel"],
        "model_type": "musilingo",
        "mert_model": mert_model or _origin(frozen[0]),
        "llama_model": llama_model or _origin(frozen[1]),
        "prompt_template": template_of(learnt) or released.PROMPT.template,
        "window_frames": sources.released_window(learnt.config, learnt.folder),
    }
    sections = {part.kind: dict(part.config) for part in frozen}
    record = _record(
        {part.kind: part for part in parts}, TrainedWith.of_adapter(learnt)
    )
    config = dict(frozen[1].config) | whole | sections | record
    return [Output(pieces, config, _tokenizer(frozen[1]))]


def _copies(part: Part, content: Tensors | None = None) -> dict[str, FolderPart]:
    """A part's tensors (or those given), checked to be complete and no more.

    Raises:
      UserError: as in `tensor_map.check`.
    """
    content = part.tensors() if content is None else content
    tensor_map.check(*blueprint(part), content, source=str(part.folder))
    return copies(content, part.folder)


def record_of(part: Part) -> dict[str, Any]:
    """The entry of a `config.json` with what an adapter was trained with, if known."""
    known = TrainedWith.of_adapter(part)
    return {TRAINED_WITH: known.stored()} if known else {}


def _record(
    parts: Mapping[str, Part], known: TrainedWith | None
) -> dict[str, dict[str, Any]]:
    """The entry of a `config.json` with what the adapter was trained with, if any.

    A LoRA of the language model is merged into what is written, which has another
    digest than the two apart: such an adapter is written without the entry.
    """
    if known is None or parts["language_model"].lora is not None:
        return {}
    return {TRAINED_WITH: known.stored()}


def _tokenizer(part: Part) -> list[Path]:
    """The small files to copy with a language model."""
    return small_files(part.tokenizer) if part.tokenizer else []


def _origin(part: Part) -> str:
    """The name by which others can find a part, or else the folder it is in."""
    return part.origin or str(part.folder.resolve())


def adapter_config(part: Part) -> dict[str, Any]:
    """The configuration of an adapter in a folder of its own."""
    config = dict(part.config)
    if bridge_kind(config) is LinearBridge:
        config["window_frames"] = sources.released_window(part.config, part.folder)
    config.pop("prompt_template", None)
    config.pop(TRAINED_WITH, None)
    template = template_of(part)
    return config | ({"prompt_template": template} if template else {})


def template_of(part: Part) -> str | None:
    """The prompt template that an adapter was trained with; None if it is not known.

    That of a bridge which puts nothing into the text is all of the prompt.

    Raises:
      UserError: it is not a template, or the run had settings that the `config.json` of
        a release cannot express.
    """
    if template := part.config.get("prompt_template"):
        if not isinstance(template, str) or template.count("{}") != 1:
            raise UserError(
                f"{part.folder}: prompt_template = {template!r} is not a text with one "
                f"{{}}, where the question goes; correct it in its {CONFIG}"
            )
        return template
    # The adapter of a run is in its folder `adapter`.
    path = part.folder.parent / CONFIG
    config = {}
    if part.folder.name == "adapter" and path.is_file():
        config = read_json(path)
    if not model_folder.is_run(config):
        return None
    try:
        stage = question_format(config, "a question")
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if stage is None:
        return None
    splices = bridge_kind(part.config).splices
    original = released.PROMPT if splices else released.MU_LLAMA_PROMPT
    for name in ("instruction", "end_sign") if splices else ("end_sign",):
        learnt = getattr(stage.prompt, name)
        if learnt != (usual := getattr(original, name)):
            raise UserError(
                f"{path}: the adapter was trained with {name} {learnt!r}, but a "
                f"release always has {usual!r}; export the adapter alone"
            )
    template = stage.prompt.template
    return template if splices else template.replace("{}", stage.prompt.instruction)

"""Releases of MusiLingo and checkpoints of its authors, taken apart and put together.

    whole model  ⇄  encoder, language model, adapter            `split`, `export`
    a trainer's checkpoint  →  adapter                          `adapter`
    adapter  →  what their `load_state_dict` accepts            `export_adapter`

Nothing is written here: an `Output` says what to write.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from musilingo_jax.answering import released
from musilingo_jax.answering.question_format import question_format
from musilingo_jax.convert.write_folders import Output, copies, small_files
from musilingo_jax.models import llama as llamas
from musilingo_jax.pretrained import pytorch_files, sources, tensor_map
from musilingo_jax.pretrained.lazy_tensors import Tensors
from musilingo_jax.pretrained.safetensors_file import open_file
from musilingo_jax.pretrained.sources import KINDS, PREFIXES, Part
from musilingo_jax.pretrained.tensor_files import CONFIG, open_tensors
from musilingo_jax.pretrained.weights import blueprint
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import read_json

# Authors' checkpoints have no parameters but those that learn; of the frozen models
# they keep the buffers, which nothing reads.
_BUFFERS = tuple(rf"llama_model\.{pattern}" for pattern in llamas.IGNORED)


def split(source: str) -> list[Output]:
    """The three parts of a whole model, each as a folder of its own.

    What the configuration of a whole says and those of its parts do not, the way in
    which questions are put, goes into that of the adapter, which was trained with it.

    Raises:
      UserError: the source has not all three, or they are not whole.
    """
    found = sources.kinds(source)
    if lacking := [kind for kind in KINDS if kind not in found]:
        raise UserError(
            f"{source}: is no whole model, for it has no {' and no '.join(lacking)}"
        )
    parts = {kind: sources.find(source, kind) for kind in KINDS}
    configs = {kind: part.config for kind, part in parts.items()}
    configs["adapter"] = _adapter_config(parts["adapter"])
    return [
        Output(copies(_whole(part)), configs[kind], _tokenizer(part), kind)
        for kind, part in parts.items()
    ]


def adapter(source: str, *, window_frames: int | None) -> list[Output]:
    """The adapter in a trainer's checkpoint, or in any folder with its two tensors.

    Args:
      source: an author's `.pth`, or a folder or name of safetensors.
      window_frames: frames that it was trained to see the means of; None for what the
        source says, or what the released ones were trained with if it says nothing.

    Raises:
      UserError: there is no adapter in it, or more than one.
    """
    part, content = _adapter(source)
    weight = content.get("llama_proj.weight")
    if weight is None or len(weight.shape) != 2:
        raise UserError(
            f"{source}: holds no adapter, for it has no matrix llama_proj.weight "
            f"(but {', '.join(list(content)[:3])} …)"
        )
    width_out, width_in = weight.shape
    widths = {"encoder_width": width_in, "language_model_width": width_out}
    config = _adapter_config(part) | widths
    if window_frames is not None:
        config["window_frames"] = window_frames
    content = tensor_map.without(content, _BUFFERS)
    return [Output(copies(_whole(replace(part, config=config), content)), config)]


def _adapter(source: str) -> tuple[Part, Tensors]:
    """An adapter of which nothing may be known but its tensors, and these."""
    path = Path(source)
    if path.is_file():
        alone = path.suffix == ".safetensors"
        content = open_file(path) if alone else pytorch_files.open_tensors(path)
        return Part("adapter", source, path, "", {}, None), content
    if path.suffix in pytorch_files.ENDINGS and not path.exists():
        raise UserError(f"{source}: there is no such file")
    folder = sources.resolve(source)
    if (folder / CONFIG).is_file() or (folder / "adapter" / CONFIG).is_file():
        part = sources.find(source, "adapter")
        return part, part.tensors()
    return Part("adapter", source, folder, "", {}, None), open_tensors(folder)


def export_adapter(source: str) -> list[Output]:
    """An adapter under the names by which the original's checkpoints know it."""
    part = sources.find(source, "adapter")
    _window_frames(part)
    return [Output(copies(_whole(part)), part.config)]


def export(
    encoder: str,
    language_model: str,
    adapter: str,
    *,
    mert_model: str | None = None,
    llama_model: str | None = None,
) -> list[Output]:
    """A whole model, laid out as the releases are.

    Its `config.json` is that of the language model, as released, and has sections
    `encoder` and `language_model` of which the whole is understood again.

    Args:
      encoder: source of the encoder.
      language_model: source of the language model.
      adapter: source of the adapter.
      mert_model: what the release calls the encoder that it was made of; None for
        where it really is. The original's code calls `from_pretrained` of it, so that
        a release for others needs a name on the hub here.
      llama_model: the same of the language model.

    Raises:
      UserError: the parts do not fit together, or one is not whole.
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
        for name, piece in copies(_whole(part)).items()
    }
    whole = {
        "architectures": ["MusilingoModel"],
        "model_type": "musilingo",
        "mert_model": mert_model or _origin(frozen[0], "mert_model"),
        "llama_model": llama_model or _origin(frozen[1], "llama_model"),
        "prompt_template": _template(learnt) or released.PROMPT.template,
        "window_frames": _window_frames(learnt),
    }
    sections = {part.kind: dict(part.config) for part in frozen}
    config = dict(frozen[1].config) | whole | sections
    return [Output(pieces, config, _tokenizer(frozen[1]))]


def _whole(part: Part, content: Tensors | None = None) -> Tensors:
    """A part's tensors (or those given), if they are all there and nothing else is.

    Raises:
      UserError: as in `tensors.check`.
    """
    content = part.tensors() if content is None else content
    tensor_map.check(*blueprint(part), content, source=str(part.folder))
    return content


def _tokenizer(part: Part) -> list[Path]:
    """Files to copy with a language model."""
    return small_files(part.tokenizer) if part.tokenizer else []


def _origin(part: Part, key: str) -> str:
    """Of which model a part is, as far as that can be told.

    What its release says, or its name on the hub, or else the folder where it is.
    """
    said = read_json(part.folder / CONFIG).get(key) if part.prefix else None
    if isinstance(said, str) and said:
        return said
    remote = sources.glance(part.source, part.kind).remote
    # The part of a whole model has no name of its own there.
    if remote and sources.resolve(part.source, weights=False) == part.folder:
        return part.source.partition("@")[0]
    return str(part.folder.resolve())


def _adapter_config(part: Part) -> dict[str, Any]:
    """All that is known of an adapter, for a folder of its own."""
    config = dict(part.config) | {"window_frames": _window_frames(part)}
    config.pop("prompt_template", None)
    template = _template(part)
    return config | ({"prompt_template": template} if template else {})


def _window_frames(part: Part) -> int:
    """Frames that an adapter sees the means of, as in the releases if it is not said.

    Raises:
      UserError: what is said is no number of frames.
    """
    said = part.config.get("window_frames", sources.RELEASED_WINDOW_FRAMES)
    if not isinstance(said, int) or isinstance(said, bool) or said < 1:
        raise UserError(
            f"{part.folder}: window_frames = {said!r} is no number of frames; give the "
            f"adapter's {CONFIG} the whole number that it was trained with"
        )
    return said


def _template(part: Part) -> str | None:
    """How questions were put to an adapter in training; None if nothing says it.

    Raises:
      UserError: in a way that a release's `config.json` has no words for.
    """
    if said := part.config.get("prompt_template"):
        if not isinstance(said, str) or said.count("{}") != 1:
            raise UserError(
                f"{part.folder}: prompt_template = {said!r} is no text with one {{}}, "
                f"where the question goes; correct it in its {CONFIG}"
            )
        return said
    # A run has it in its folder `adapter`.
    path = part.folder.parent / CONFIG
    config = {}
    if part.folder.name == "adapter" and path.is_file():
        config = read_json(path)
    if not sources.is_run(config):
        return None
    stage = question_format(ConfigDict(config), "a question")
    if stage is None:
        return None
    for name in ("instruction", "end_sign"):
        learnt = getattr(stage.prompt, name)
        if learnt != (usual := getattr(released.PROMPT, name)):
            raise UserError(
                f"{path}: it was trained with {name} {learnt!r}, and a released model "
                f"always has {usual!r}; export the adapter alone"
            )
    return stage.prompt.template

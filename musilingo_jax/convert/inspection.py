"""What a source holds, from the headers of its files alone.

encoder         MERT, pre-norm                                   loads
language_model  LLaMA-1, rope base 10,000                        does not load
adapter         one linear map                                   loads

                encoder  language_model    adapter
width             1,024           4,096
…
parameters  315,428,992   6,738,423,808  4,198,400

The language model does not load: …
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from musilingo_jax.convert import hearing
from musilingo_jax.convert.hearing import LayerHearing
from musilingo_jax.models.llama_config import Llama3Scaling, LlamaConfig
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.pretrained import sources, tensor_map
from musilingo_jax.pretrained.lazy_tensors import Tensors
from musilingo_jax.pretrained.sources import Part
from musilingo_jax.pretrained.weights import (
    blueprint,
    bridge_kind,
    is_delta,
    load_tokenizer,
    tuning_of,
)
from musilingo_jax.runtime.errors import UserError

_LLAMA_3_BASE = 500_000.0
_LLAMA_1_EPSILON = 1e-6
_FAMILIES = {
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "smollm3": "SmolLM3",
}


@dataclass(frozen=True)
class Inspection:
    """One part of a source.

    Attributes:
      kind: "encoder", "language_model" or "adapter".
      folder: where its files are; "" if it was not found.
      family: the architecture, in words.
      shapes: the sizes of the architecture, by name.
      dtypes: type as safetensors spells it → the number of tensors of that type.
      parameters: the number of parameters that are used, buffers not counted.
      bytes: the size of all tensors.
      loads: whether the part can be loaded.
      reason: why it cannot, in a sentence; "" if it can.
      tensors: name → type and shape.
      trainer: the plain values that a trainer saved in the same file: its flags, the
        number of epochs.
      hearing: what the layers of the language model add, of an adapter that does so.
    """

    kind: str
    folder: str
    family: str
    shapes: Mapping[str, int]
    dtypes: Mapping[str, int]
    parameters: int
    bytes: int
    loads: bool
    reason: str
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]
    trainer: Mapping[str, Any]
    hearing: Sequence[LayerHearing]


def inspect(source: str) -> list[Inspection]:
    """An inspection of each part that a source holds; no weights are read.

    Raises:
      UserError: the source does not exist, or holds no part.
    """
    return [_inspect(source, kind) for kind in sources.kinds(source)]


def as_json(source: str, reports: Sequence[Inspection]) -> dict[str, Any]:
    """The inspections for programs: `{"source": …, "parts": {kind: {…}}}`."""
    parts = {}
    for report in reports:
        entry = asdict(report)
        entry["tensors"] = {
            name: {"dtype": dtype, "shape": list(shape)}
            for name, (dtype, shape) in report.tensors.items()
        }
        parts[entry.pop("kind")] = entry
    return {"source": source, "parts": parts}


def table(reports: Sequence[Inspection]) -> str:
    """The inspections for people: families, sizes, and why parts do not load."""
    heads = [
        (report.kind, report.family, "loads" if report.loads else "does not load")
        for report in reports
    ]
    numbers: list[tuple[Any, ...]] = [("", *(report.kind for report in reports))]
    for name in dict.fromkeys(name for report in reports for name in report.shapes):
        numbers.append((name, *(report.shapes.get(name, "") for report in reports)))
    numbers += [
        ("types", *(" ".join(sorted(report.dtypes)) for report in reports)),
        ("tensors", *(len(report.tensors) for report in reports)),
        ("parameters", *(report.parameters for report in reports)),
        ("bytes", *(report.bytes for report in reports)),
    ]
    lines = [*_columns(heads, "<"), "", *_columns(numbers, ">")]
    for report in reports:
        if not report.loads:
            kind = report.kind.replace("_", " ")
            lines += ["", f"The {kind} does not load: {report.reason}"]
        if report.hearing:
            lines += ["", *hearing.table(report.hearing)]
        if report.trainer:
            lines += ["", "What the trainer saved beside the tensors:"]
            lines += [f"  {key} {value!r}" for key, value in _flat(report.trainer)]
    return "\n".join(lines)


def _inspect(source: str, kind: str) -> Inspection:
    folder, family, reason = "", "unknown", ""
    content: Tensors = {}
    shapes, ignored = {}, ()
    trainer: Mapping[str, Any] = {}
    layers: Sequence[LayerHearing] = ()
    try:
        part = sources.find(source, kind, weights=False)
        folder = str(part.folder)
        content = part.tensors()
        plan = blueprint(part)
        ignored = plan.ignored
        config = getattr(plan.module, "config", part.config)
        family, shapes = _DESCRIPTIONS[kind](config)
        tensor_map.check(*plan, content, source=folder)
        if kind == "language_model" and is_delta(content):
            family = f"unmerged delta of {family}"
            reason = (
                "its norms scale by nearly 0, so these are only differences to another "
                "model; merge them with `convert merge`"
            )
        elif kind == "language_model":
            _check_tokenizer(source, part)
        elif kind == "adapter":
            trainer = part.trainer()
            layers = _hearing(source, part)
    except UserError as error:
        reason = str(error)
    return Inspection(
        kind=kind,
        folder=folder,
        family=family,
        shapes=shapes,
        dtypes=dict(Counter(tensor.dtype for tensor in content.values())),
        parameters=_parameters(content, ignored),
        bytes=sum(tensor.nbytes for tensor in content.values()),
        loads=not reason,
        reason=reason,
        tensors={name: (t.dtype, tuple(t.shape)) for name, t in content.items()},
        trainer=trainer,
        hearing=layers,
    )


def _hearing(source: str, adapter: Part) -> list[LayerHearing]:
    """What the layers add; with the language model if it is on this machine."""
    if bridge_kind(adapter.config).splices:
        return []
    found = sources.kinds(source)
    llama = "language_model" if "language_model" in found else None
    part = sources.find(source, llama, weights=False) if llama else None
    here = part is not None and part.remote is None
    return hearing.hearing(adapter, part if here else None)


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """The values of dicts in dicts, by the keys that lead to them."""
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        name = f"{before}{key}"
        inside = isinstance(value, Mapping)
        found += _flat(value, f"{name}.") if inside else [(name, value)]
    return found


def _check_tokenizer(source: str, part: Part) -> None:
    """Raises what `weights.load_tokenizer` does.

    That would download a model on the hub, so there it only checks for the files.
    """
    if part.remote is None:
        load_tokenizer(source)
    elif part.tokenizer is None:
        raise UserError(
            f"{part.source}: has no tokenizer; after downloading the model, copy the "
            "tokenizer of its language model into its folder"
        )


def _encoder(config: MertConfig) -> tuple[str, dict[str, int]]:
    kind = {"mert_model": "MERT", "hubert": "HuBERT"}[config.model_type]
    norm = "pre-norm" if config.do_stable_layer_norm else "post-norm"
    bins = ", constant-Q bins" if config.feature_extractor_cqt else ""
    shapes = {
        "width": config.hidden_size,
        "depth": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "mlp width": config.intermediate_size,
        "convolutions": len(config.conv_dim),
        "sample rate": config.sample_rate,
    }
    return f"{kind}, {norm}{bins}", shapes


def _language_model(config: LlamaConfig) -> tuple[str, dict[str, int]]:
    """The family; of LLaMAs, the nearest: they differ only in rope and epsilon."""
    scaling = config.rope_scaling
    if config.family != "llama":
        family = _FAMILIES[config.family]
    elif isinstance(scaling, Llama3Scaling) or config.rope_theta == _LLAMA_3_BASE:
        family = "LLaMA-3"
    elif config.norm_eps == _LLAMA_1_EPSILON:
        family = "LLaMA-1"
    else:
        family = "LLaMA-2"
    features = [f"{family}-like", f"rope base {config.rope_theta:,.0f}"]
    if windows := [size for size in config.windows if size]:
        features.append(f"windows of {max(windows):,} in {len(windows)} layers")
    if config.biases:
        features.append(f"biases of {', '.join(config.biases)}")
    if scaling is not None:
        kind = "llama3" if isinstance(scaling, Llama3Scaling) else "linear"
        features.append(f"{kind} scaling by {scaling.factor:g}")
    if config.key_heads < config.heads:
        features.append("grouped-query attention")
    if config.tied:
        features.append("tied head")
    shapes = {
        "width": config.width,
        "depth": config.depth,
        "heads": config.heads,
        "mlp width": config.mlp_width,
        "key heads": config.key_heads,
        "head width": config.head_dim,
        "vocabulary": config.vocab,
    }
    return ", ".join(features), shapes


def _adapter(config: Mapping[str, Any]) -> tuple[str, dict[str, int]]:
    """The bridge, and what was trained beside the weights."""
    splices = bridge_kind(config).splices
    family = ["one linear map" if splices else "one vector, added in layers"]
    shapes = {
        "width": config["encoder_width"],
        "width out": config["language_model_width"],
    }
    if isinstance(window := config.get("window_frames"), int):
        shapes["window"] = window
    if not splices:
        shapes["states"] = config["encoder_states"]
        shapes["depth"] = config["language_model_depth"]
        shapes["heads"] = config["language_model_heads"]
        shapes["layers that hear"] = config["query_layers"]
        shapes["blocks"] = config["blocks"]
        shapes["mlp width"] = config["block_width"]
    tuning = tuning_of(config)
    if tuning is not None:
        shapes["rank"] = tuning.rank
        family += ["LoRA"] if tuning.rank else []
        family += ["biases"] if tuning.biases else []
        family += ["norms"] if tuning.norms else []
    return ", ".join(family), shapes


_DESCRIPTIONS = {
    "encoder": _encoder,
    "language_model": _language_model,
    "adapter": _adapter,
}


def _parameters(content: Tensors, ignored: Sequence[str]) -> int:
    """The number of parameters that are used; a copied tensor counts once."""
    used = tensor_map.without(content, ignored).values()
    return sum(math.prod(tensor.shape) for tensor in used)


def _columns(rows: Sequence[Sequence[Any]], side: str) -> list[str]:
    """Lines of aligned cells; the first column is always aligned to the left.

    Args:
      rows: cells; integers are written with commas.
      side: "<" or ">", where the other columns are aligned.
    """
    texts = [
        [f"{cell:,}" if isinstance(cell, int) else cell for cell in row] for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return [
        "  ".join(
            f"{cell:{side if place else '<'}{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in texts
    ]

"""MU-LLaMA's `checkpoint.pth`: all parts of a model in the state of its trainer.

    mert_model.*                                   the encoder, under its own names
    llama.*                                        the language model, under Meta's
    mu_mert_{agg,proj,norm_1,f1_1,f2_1,f3_1,…}     the bridge
    prefix_query.weight, llama.layers.{}.attention.gate
    llama.layers.{}.*.lora_w{q,k,v,o,1,2,3}_{l1,l2}.weight, llama.layers.{}.*.bias

A file of the first stage has no LoRA and no biases. The scales of norms were trained
and replaced those of LLaMA 2 in the file; so they belong to the language model here.

Rows of queries and keys, their biases and the second halves of their LoRA are in Meta's
order of rotary pairs (`row_tensors.halved`). Facts from the code that writes and reads
the file (Liu et al. 2023, "Music Understanding LLaMA"); the released file itself was
never read.
"""

import re
from pathlib import Path
from typing import Any

from musilingo_jax.models import lora
from musilingo_jax.pretrained import pytorch_files
from musilingo_jax.pretrained.lazy_tensors import LazyTensor, Tensors, shortened, under
from musilingo_jax.pretrained.meta_names import to_transformers
from musilingo_jax.pretrained.row_tensors import halved, reshaped, stacked, transposed
from musilingo_jax.runtime.errors import UserError

CHECKPOINT = "checkpoint.pth"
ENCODER = "m-a-p/MERT-v1-330M"
"""The model that its encoder is, whose `config.json` describes it."""

ENCODER_PREFIX, LLAMA_PREFIX = "mert_model.", "llama."
MIX = "mu_mert_agg.weight"
NORM_EPS, ROPE_THETA = 1e-5, 10_000.0
"""LLaMA 2's; the file does not say them."""
_CONTEXT = 4096
BLOCKS = {"norm": "norm", "f1": "gate_proj", "f3": "up_proj", "f2": "down_proj"}
"""Of the bridge's blocks: their name → ours."""
SINGLE = {
    "mu_mert_agg.bias": "mix.bias",
    "mu_mert_proj.weight": "projection.weight",
    "mu_mert_proj.bias": "projection.bias",
    "prefix_query.weight": "queries",
}
"""Of the rest of the bridge, what is the same in both: their name → ours."""
MAPS = {
    "attention.wq": ("query", True),
    "attention.wk": ("key", True),
    "attention.wv": ("value", False),
    "attention.wo": ("out", False),
    "feed_forward.w1": ("gate", False),
    "feed_forward.w2": ("down", False),
    "feed_forward.w3": ("up", False),
}
"""Their name → ours, and whether its rows turn in pairs."""
BIASED = ("query", "out", "gate", "up", "down")
"""The maps that have a bias in the second stage."""


def is_layout(folder: Path) -> bool:
    """Whether a folder has such a file, from the names of its tensors."""
    path = folder / CHECKPOINT
    return path.is_file() and MIX in pytorch_files.open_tensors(path)


def tokenizer_folders(folder: Path) -> tuple[Path, ...]:
    """Where its tokenizer may be."""
    return (folder, folder / "LLaMA")


def open_part(folder: Path, kind: str) -> Tensors:
    """The tensors of a part, under the names that they have when it is alone.

    Args:
      folder: with the file.
      kind: "encoder", "language_model" or "adapter".

    Raises:
      UserError: the file cannot be read, or lacks what `read_config` needs.
    """
    found = pytorch_files.open_tensors(folder / CHECKPOINT)
    if kind == "encoder":
        own = {n: t for n, t in found.items() if n.startswith(ENCODER_PREFIX)}
        return under(own, ENCODER_PREFIX)
    sizes = _Sizes(folder, found)
    if kind == "language_model":
        return to_transformers(_frozen(found), sizes.head_dim)
    return _bridge(found, sizes) | _tuning(found, sizes)


def read_config(folder: Path, kind: str) -> dict[str, Any]:
    """The `config.json` that the language model or the adapter would have.

    Raises:
      UserError: the file lacks a tensor whose shape says a size.
    """
    found = pytorch_files.open_tensors(folder / CHECKPOINT)
    sizes = _Sizes(folder, found)
    if kind == "language_model":
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": sizes.vocab,
            "hidden_size": sizes.width,
            "intermediate_size": sizes.mlp,
            "num_hidden_layers": sizes.depth,
            "num_attention_heads": sizes.heads,
            "num_key_value_heads": sizes.heads,
            "rms_norm_eps": NORM_EPS,
            "rope_theta": ROPE_THETA,
            "max_position_embeddings": _CONTEXT,
            "tie_word_embeddings": False,
        }
    described: dict[str, Any] = {
        "encoder_states": sizes.states,
        "encoder_width": sizes.encoder_width,
        "language_model_width": sizes.width,
        "language_model_depth": sizes.depth,
        "language_model_heads": sizes.heads,
        "query_layers": sizes.query_layers,
        "blocks": sizes.blocks,
        "block_width": sizes.block_width,
    }
    ranks = {
        ours: found[name].shape[0]
        for theirs, (ours, _) in MAPS.items()
        if (name := lora_name(0, theirs, "l1")) in found
    }
    biases = [
        ours
        for theirs, (ours, _) in MAPS.items()
        if f"{LLAMA_PREFIX}layers.0.{theirs}.bias" in found
    ]
    if ranks or biases:
        rank = next(iter(ranks.values()), 0)
        described["tuning"] = {
            "rank": rank,
            "alpha": float(rank or 1),  # The product of the factors counts once.
            "targets": [name for name in lora.MAPS if name in ranks],
            "biases": [name for name in lora.MAPS if name in biases],
            "norms": False,
            "depth": sizes.depth,
            "width": sizes.width,
            "queries": sizes.width,
            "keys": sizes.width,
            "mlp": sizes.mlp,
        }
    return described


class _Sizes:
    """The sizes of all parts, which the shapes of some tensors say."""

    def __init__(self, folder: Path, found: Tensors):
        names = {
            "vocab": (f"{LLAMA_PREFIX}tok_embeddings.weight", 0),
            "width": (f"{LLAMA_PREFIX}tok_embeddings.weight", 1),
            "mlp": (f"{LLAMA_PREFIX}layers.0.feed_forward.w1.weight", 0),
            "heads": (f"{LLAMA_PREFIX}layers.0.attention.gate", 1),
            "states": (MIX, 1),
            "encoder_width": ("mu_mert_proj.weight", 1),
            "block_width": ("mu_mert_f1_1.weight", 0),
            "query_layers": ("prefix_query.weight", 0),
        }
        missing = [
            name
            for name, axis in names.values()
            if name not in found or len(found[name].shape) <= axis
        ]
        if missing:
            raise UserError(
                f"{folder / CHECKPOINT}: is not a whole model of MU-LLaMA: it lacks "
                f"{shortened(sorted(set(missing)))}, or has them in another shape"
            )
        size = {key: found[name].shape[axis] for key, (name, axis) in names.items()}
        self.vocab, self.width, self.mlp = size["vocab"], size["width"], size["mlp"]
        self.heads, self.states = size["heads"], size["states"]
        self.encoder_width = size["encoder_width"]
        self.block_width, self.query_layers = size["block_width"], size["query_layers"]
        self.depth = _count(found, r"llama\.layers\.(\d+)\..*")
        self.blocks = _count(found, r"mu_mert_f1_(\d+)\.weight")
        if not self.heads or self.width % (2 * self.heads):
            raise UserError(
                f"{folder / CHECKPOINT}: a width of {self.width} does not divide into "
                f"{self.heads} heads of an even width"
            )

    @property
    def head_dim(self) -> int:
        return self.width // self.heads


def _count(found: Tensors, pattern: str) -> int:
    """How many different numbers stand in the names that match a pattern."""
    return len({match[1] for name in found if (match := re.fullmatch(pattern, name))})


def lora_name(layer: int, theirs: str, half: str) -> str:
    """llama.layers.3.attention.lora_wq_l1.weight, of "attention.wq" and "l1"."""
    room, name = theirs.split(".")
    return f"{LLAMA_PREFIX}layers.{layer}.{room}.lora_{name}_{half}.weight"


def _frozen(found: Tensors) -> Tensors:
    """The language model's tensors, without what was trained beside them."""
    beside = re.compile(r"layers\.\d+\..*(lora_|\.gate$|\.bias$).*|.*\.gate|.*\.bias")
    own = {name: t for name, t in found.items() if name.startswith(LLAMA_PREFIX)}
    return {
        n: t for n, t in under(own, LLAMA_PREFIX).items() if not beside.fullmatch(n)
    }


def _bridge(found: Tensors, sizes: _Sizes) -> dict[str, LazyTensor]:
    """The bridge under the names of `gated_values.NAMES`; absent ones are left out."""
    names = dict(SINGLE)
    for block in range(sizes.blocks):
        names |= {
            f"mu_mert_{theirs}_{block + 1}.weight": f"blocks.{block}.{ours}.weight"
            for theirs, ours in BLOCKS.items()
        }
    renamed = {ours: found[theirs] for theirs, ours in names.items() if theirs in found}
    gates = [
        found[name]
        for layer in range(sizes.depth)
        if (name := f"{LLAMA_PREFIX}layers.{layer}.attention.gate") in found
    ]
    mix = reshaped(found[MIX], (1, sizes.states))
    return {"mix.weight": mix, "gates": stacked(gates, sizes.heads), **renamed}


def _tuning(found: Tensors, sizes: _Sizes) -> dict[str, LazyTensor]:
    """LoRA and biases under the names of `lora.NAMES`."""
    tensors: dict[str, LazyTensor] = {}
    for layer in range(sizes.depth):
        for theirs, (ours, turns) in MAPS.items():
            path = f"tuning.layers.{layer}.{ours}"
            first, second = (lora_name(layer, theirs, half) for half in ("l1", "l2"))
            bias = f"{LLAMA_PREFIX}layers.{layer}.{theirs}.bias"
            turned = {
                name: halved(found[name], sizes.head_dim) if turns else found[name]
                for name in (second, bias)
                if name in found
            }
            if first in found:
                tensors[f"{path}.a"] = transposed(found[first])
            if second in turned:
                tensors[f"{path}.b"] = transposed(turned[second])
            if bias in turned:
                tensors[f"{path}.bias"] = turned[bias]
    return tensors

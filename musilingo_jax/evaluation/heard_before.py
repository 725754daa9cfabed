"""What a model was trained on that its test corpus does not show.

A report counts the clips that are in both splits of one corpus. It cannot see that
clips of another corpus are the same recordings under other names: MU-LLaMA's first
stage learnt from all of MusicCaps, the rows of its test split among them, as the split
"pretrain" of MusicQA (Liu et al. 2024).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from musilingo_jax.corpora import mixture
from musilingo_jax.pretrained import sources
from musilingo_jax.pretrained.model_folder import ModelFolder
from musilingo_jax.pretrained.weights import bridge_kind
from musilingo_jax.runtime.errors import UserError

_OF_MUSICCAPS = ("musiccaps", "music_instruct")
"""Corpora of MusicCaps' clips, as `corpora.build` names their folders."""

_ADAPTERS = ("adapter", "adapter-best")
"""Folders in those of a run, or of a whole model, which say more than they do."""

_NOTE = (
    "this is no test: {model} learnt from all of MusicCaps, its test clips among them, "
    "as the split “pretrain” of MusicQA"
)


def notes(config: ConfigDict, adapter: str) -> list[str]:
    """Sentences for a report; empty if nothing is known against the test.

    Args:
      config: of the evaluation.
      adapter: the source of the adapter that is evaluated.
    """
    tested = {part for one in _paths(config.corpus) for part in one.parts}
    if not tested.intersection(_OF_MUSICCAPS):
        return []
    model = _pretrained_on_musiccaps(adapter)
    return [_NOTE.format(model=model) + "."] if model else []


def _paths(corpus: ConfigDict) -> list[Path]:
    """The folders of a section `corpus`."""
    return [Path(path) for path in mixture.title(corpus).split(" + ")]


def _pretrained_on_musiccaps(source: str) -> str | None:
    """What learnt from that split, of an adapter and those that it began with."""
    seen: set[str] = set()
    while source not in seen:
        seen.add(source)
        if Path(source).name in _ADAPTERS:
            source = str(Path(source).parent)
        try:
            model = ModelFolder.open(source, weights=False)
        except UserError:
            return None
        if model.layout == "mu_llama" or _is_split_release(source, model):
            return "MU-LLaMA"
        config = model.config if model.layout == "run" else None
        if config is None:
            return None
        if _learnt_from_it(config):
            return source
        source = str(config["model"].get("adapter") or "")
    return None


def _is_split_release(source: str, model: ModelFolder) -> bool:
    """Whether it is a release of MU-LLaMA that was taken apart: its prompt says so."""
    if model.layout != "whole" or "adapter" not in model.subfolders:
        return False
    config = sources.find(source, "adapter").config
    return not bridge_kind(config).splices and "prompt_template" not in config


def _learnt_from_it(config: Mapping[str, Any]) -> bool:
    corpus = config.get("corpus") or {}
    parts = Path(str(corpus.get("path", ""))).parts
    return "music_qa" in parts and corpus.get("train_split") == "pretrain"

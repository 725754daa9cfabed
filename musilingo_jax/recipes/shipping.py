"""What is shipped of a trained recipe: the adapter, a config that fits, all of it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from musilingo_jax.pretrained import trained_with, weights
from musilingo_jax.pretrained.model_config import KINDS
from musilingo_jax.pretrained.trained_with import TrainedWith
from musilingo_jax.runtime import storage

# A recipe whose parts have other digests makes another version: adapters, caches and
# runs record these names.
MODEL, CORPUS = "musilingo-tiny-5", "musilingo-tiny-corpus"
CARD = "README.md"
# Weights are stored as float16: half the size, and no value is near its limits.
STORED = np.float16


def write_adapter(experiment: ConfigDict, model: Path) -> None:
    """Puts a trained adapter beside the other parts, with a config for all three.

    Args:
      experiment: the config of the training, which is finished.
      model: the folder of the whole model.

    Raises:
      UserError: the run folder has no adapter, or it was trained with other parts than
        those in the folder.
    """
    adapter = f"{experiment.run}/adapter"
    trained_with.check(adapter, str(model / "encoder"), str(model / "language_model"))
    weights.save_adapter(
        weights.load_adapter(adapter, mesh=None),
        model / "adapter",
        dtype=np.float32,
        window_frames=experiment.features.window_frames,
        trained_with=record(model).stored(),
    )
    text = json.dumps(shipped_config(experiment), indent=2) + "\n"
    storage.write_text(model / "config.json", text)


def shipped_config(experiment: ConfigDict) -> dict[str, Any]:
    """The training's config, with the shipped parts in place of those in its folders.

    Programs read from it how the three parts are used together: windows and prompts.
    """
    shipped = experiment.copy_and_resolve_references()
    shipped.model.update(pretrained=MODEL, **dict.fromkeys(KINDS, ""))
    shipped.run, shipped.features.cache = "runs/tiny", "runs/tiny/cache"
    return shipped.to_dict()


def record(model: Path) -> TrainedWith:
    """What the shipped adapter was trained with, under the names that users have.

    Args:
      model: the folder of the whole model.
    """
    parts = (str(model / kind) for kind in KINDS[:2])
    made = TrainedWith.of_sources(*parts)
    return TrainedWith(
        encoder=replace(made.encoder, name=MODEL),
        language_model=replace(made.language_model, name=MODEL),
    )


def install(work: Path, assets: Path) -> None:
    """Replaces the embedded model and corpus by those that a recipe made.

    Args:
      work: the recipe's folder, in which everything is finished.
      assets: the folder of the embedded model and corpus.
    """
    for made, name in (("model", MODEL), ("corpus", CORPUS)):
        # Copied beside the old one first: copying may fail, and renaming hardly can.
        partial = assets / f"{name}{storage.PARTIAL}"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(work / made, partial)
        shutil.rmtree(assets / name, ignore_errors=True)
        partial.rename(assets / name)
        print(f"installed {assets / name}")

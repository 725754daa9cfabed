"""A package with two versions of the embedded model, of the same widths."""

import json
import shutil

from helpers.stored_weights import rewrite
from musilingo_jax.pretrained import embedded_models, model_folder
from musilingo_jax.pretrained.trained_with import TrainedWith


def embed(monkeypatch, folder, versions=(1, 2)):
    """Puts versions of the embedded model in the place of the package's; the folder.

    The first is the package's. Each later one has other ears and another language, and
    an adapter that records them.
    """
    first = model_folder.resolve("musilingo-tiny-1")
    folder.mkdir()
    monkeypatch.setattr(embedded_models, "assets", lambda: folder)
    for version in versions:
        name = f"musilingo-tiny-{version}"
        shutil.copytree(first, folder / name)
        if version > 1:
            _make_another(folder / name, name, version)
    return folder


def _make_another(model, name, version):
    def change(tensor):
        def change(tensors):
            tensors[tensor][0] += version

        return change

    rewrite(model / "encoder", change("encoder.layer_norm.bias"))
    rewrite(model / "language_model", change("model.norm.weight"))
    config = json.loads((model / "config.json").read_text())
    config["model"]["pretrained"] = name
    (model / "config.json").write_text(json.dumps(config))
    path = model / "adapter/config.json"
    known = TrainedWith.of_sources(name, name).stored()
    record = json.loads(path.read_text()) | {"trained_with": known}
    path.write_text(json.dumps(record))

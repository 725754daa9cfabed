"""A release, and a language model with a delta to it."""

import json
import shutil

import pytest
import torch
from helpers.model_folders import CONFIG, ROWS, TINY, language_model, read, write
from safetensors.torch import save_file

from musilingo_jax.convert import musilingo_releases


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The embedded model as a release; not to be changed."""
    folder = tmp_path_factory.mktemp("whole") / "release"
    return write(musilingo_releases.export(TINY, TINY, TINY), folder)


@pytest.fixture
def base(tmp_path):
    return language_model(tmp_path / "base", CONFIG, torch.float16)


@pytest.fixture
def delta(base, tmp_path):
    """As published: one more row, rotary buffers, a tokenizer of its own."""
    folder = shutil.copytree(base, tmp_path / "delta")
    generator = torch.Generator().manual_seed(1)
    differences = {}
    for name, tensor in read(base).items():
        rows = (len(tensor) + (name in ROWS), *tensor.shape[1:])
        differences[name] = (0.02 * torch.randn(rows, generator=generator)).half()
    differences["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(2)
    save_file(differences, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text()) | {"vocab_size": 11}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.model").write_bytes(b"the delta's")
    (folder / "training.py").write_text("raise SystemExit")
    return folder

"""Editors on Windows begin files with a byte order mark, and JSON stays JSON."""

import json
import shutil

import pytest
from safetensors.numpy import load_file, save_file

from musilingo_jax.pretrained import foreign_models, model_folder, sources, weights
from musilingo_jax.pretrained.model_config import KINDS
from musilingo_jax.pretrained.tensor_files import INDEX, open_tensors

MARK = b"\xef\xbb\xbf"


@pytest.fixture
def marked(tmp_path):
    """The embedded model, in which every file of JSON has a mark."""
    folder = tmp_path / "marked"
    shutil.copytree(model_folder.resolve("musilingo-tiny"), folder)
    config = json.loads((folder / "encoder/config.json").read_text())
    assert config.pop("do_normalize") is False
    (folder / "encoder/config.json").write_text(json.dumps(config))
    extra = folder / "encoder" / "preprocessor_config.json"
    extra.write_text('{"do_normalize": true}')
    paths = list(folder.rglob("*.json"))
    assert len(paths) >= 6
    for path in paths:
        path.write_bytes(MARK + path.read_bytes())
    return folder


def test_a_whole_model_is_read(marked):
    plain = model_folder.resolve("musilingo-tiny")
    assert sources.kinds(marked) == list(KINDS)
    for kind in ("language_model", "adapter"):
        found, expected = (sources.find(place, kind) for place in (marked, plain))
        assert found.config == expected.config
    assert sources.find(marked, "encoder").config["do_normalize"] is True
    text = "###Human: a b ###Assistant: "
    found, expected = map(weights.load_tokenizer, (marked, plain))
    assert found.encode(text) == expected.encode(text)
    assert (found.start, found.ends) == (expected.start, expected.ends)


def test_an_index_and_a_lora_are_read(marked):
    folder = marked / "adapter"
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    save_file(tensors, folder / "model-1.safetensors")
    where = dict.fromkeys(tensors, "model-1.safetensors")
    (folder / INDEX).write_bytes(MARK + json.dumps({"weight_map": where}).encode())
    assert set(open_tensors(folder)) == set(tensors)
    lora = json.dumps({"peft_type": "LORA", "base_model_name_or_path": "a/b"})
    (folder / "adapter_config.json").write_bytes(MARK + lora.encode())
    assert "a LoRA of a/b" in str(foreign_models.recognised(folder))

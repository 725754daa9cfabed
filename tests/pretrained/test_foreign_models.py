"""Folders that other programs wrote are named, with the way on from them."""

import json
import shutil

import pytest

from musilingo_jax.convert import inspection
from musilingo_jax.pretrained import (
    foreign_models,
    model_folder,
    sources,
    tensor_files,
    weights,
)
from musilingo_jax.pretrained.model_folder import ModelFolder
from musilingo_jax.runtime.errors import UserError

LORA = {"peft_type": "LORA", "base_model_name_or_path": "somebody/llama", "r": 8}

# The names of files → what the message says.
KINDS = [
    (["params.json", "checklist.chk"], "layout of Meta's own code, of which params"),
    (["consolidated.01.pth"], "layout of Meta's own code, of which params"),
    (["params.json", "consolidated.safetensors"], "layout of Mistral's own code"),
    (["ggml-model-q4_0.gguf", "x.h5"], "GGUF file of llama.cpp"),
    (["ggml-model-f16.bin"], "GGUF file of llama.cpp"),
    (["tf_model.h5"], "from_tf=True"),
    (["flax_model.msgpack"], "from_flax=True"),
    (["model.onnx"], "a program in ONNX"),
    (["weights.00.npz"], "weights of MLX"),
    (["zero_to_fp32.py", "latest", "global_step5/"], "zero_to_fp32.py {folder} …`"),
    (["__0_0.distcp", ".metadata"], "dcp_to_torch {folder}"),
    (["quantize_config.json", "gptq_model-4bit-128g.safetensors"], "GPTQ or AWQ"),
    (["_CHECKPOINT_METADATA", "state/"], "name the folder of the run"),
    (["last.ckpt"], "rename it to pytorch_model.bin"),
    (["refs/", "snapshots/", "blobs/"], "name a folder in {folder}/snapshots"),
]


def fill(folder, names):
    folder.mkdir(exist_ok=True)
    for name in names:
        if name.endswith("/"):
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(b"{}")
    return folder


@pytest.fixture
def complete(tmp_path):
    """A language model that loads."""
    folder = tmp_path / "complete"
    shutil.copytree(model_folder.resolve("musilingo-tiny/language_model"), folder)
    return folder


@pytest.mark.parametrize(("names", "told"), KINDS)
@pytest.mark.parametrize("described", [False, True])
def test_it_is_recognised(tmp_path, complete, names, told, described):
    folder = fill(tmp_path / "model", names)
    if described:  # With a config.json, only its weights are foreign.
        shutil.copy(complete / "config.json", folder)
    with pytest.raises(UserError) as refused:
        sources.find(folder, "language_model").tensors()
    assert told.format(folder=folder) in str(refused.value)
    assert str(refused.value).startswith(f"{folder}: ")


def test_each_kind_is_recognised_by_a_case():
    assert len(foreign_models._KINDS) == 12
    named = [sentence for _, sentence in foreign_models._KINDS]
    recognised = {told.split("{")[0] for _, told in KINDS}
    assert all(any(told in sentence for told in recognised) for sentence in named)


def test_a_lora_that_nothing_is_added_to_is_named(tmp_path):
    """Where a language model is asked for, `sources.find` adds it."""
    folder = fill(tmp_path / "lora", ["adapter_model.safetensors"])
    with pytest.raises(UserError, match=r"is a LoRA of another model, not a .*--lora="):
        ModelFolder.open(folder, weights=True)
    (folder / "adapter_config.json").write_text(json.dumps(LORA))
    told = foreign_models.recognised(folder)
    assert "is a LoRA of somebody/llama, not a model by itself; merge it" in str(told)
    with pytest.raises(
        UserError, match="has a LoRA in it .*, which would not be added"
    ):
        tensor_files.open_tensors(folder)
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "PROMPT_TUNING", "base_model_name_or_path": "\x1b[1m"})
    )
    told = foreign_models.recognised(folder)
    assert r"a small model of kind PROMPT_TUNING of \x1b[1m, not" in str(told)


@pytest.mark.parametrize("kind", ["encoder", "adapter"])
def test_a_lora_beside_something_else_is_not_left_out_silently(tmp_path, kind):
    folder = tmp_path / "part"
    shutil.copytree(model_folder.resolve("musilingo-tiny") / kind, folder)
    (folder / "adapter_config.json").write_text(json.dumps(LORA))
    told = "has a LoRA in it .*, which would not be added here; merge"
    with pytest.raises(UserError, match=told):
        sources.find(folder, kind).tensors()


def test_a_lora_that_is_gone_is_not_left_out_silently(complete):
    """Links into a cache that was cleared."""
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (complete / name).symlink_to("gone")
    told = r"has a LoRA in it \(adapter_config.json, adapter_model.safetensors\), which"
    with pytest.raises(UserError, match=told):
        weights.load_language_model(
            complete, dtype="float32", quantization="", mesh=None
        )


def test_a_lora_without_its_settings_is_not_left_out_silently(complete):
    (complete / "adapter_model.bin").write_text(json.dumps(LORA))
    told = r"has a LoRA in it \(adapter_model.bin\), which would not be added here"
    with pytest.raises(UserError, match=told):
        weights.load_language_model(
            complete, dtype="float32", quantization="", mesh=None
        )
    with pytest.raises(UserError, match=told):
        weights.digest(complete, "language_model")
    (report,) = inspection.inspect(str(complete))
    assert not report.loads and "has a LoRA in it" in report.reason


def test_a_folder_of_models_lists_them(tmp_path, complete):
    with pytest.raises(UserError, match="holds folders that may be: complete; name on"):
        ModelFolder.open(tmp_path, weights=True)


def test_a_shard_without_its_index_is_not_to_be_renamed(tmp_path, complete):
    (complete / "model.safetensors").rename(
        complete / "model-00001-of-00002.safetensors"
    )
    with pytest.raises(UserError, match="but not the model.safetensors.index.json"):
        sources.find(complete, "language_model").tensors()

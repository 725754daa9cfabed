"""Inspection reads headers, names the architecture, and says what does not load."""

import json
import shutil
from dataclasses import replace

import torch
import transformers
from helpers.model_folders import CONFIG, TINY, change, language_model, save_tokenizer

from musilingo_jax.convert import inspection
from musilingo_jax.models.llama_config import LinearScaling, Llama3Scaling
from musilingo_jax.pretrained import (
    model_folder,
    safetensors_file,
    sources,
    tensor_files,
)


def test_inspection_reads_headers(base, tmp_path, monkeypatch):
    read_tensors = []
    whole = safetensors_file.Tensor.__getitem__

    def noticed(tensor, index):
        read_tensors.append(tensor.nbytes)
        return whole(tensor, index)

    monkeypatch.setattr(safetensors_file.Tensor, "__getitem__", noticed)
    encoder, language_model, adapter = inspection.inspect(TINY)
    assert read_tensors == [256]  # The norm that tells a model from a delta.
    assert all(report.loads for report in (encoder, language_model, adapter))
    assert encoder.family == "MERT, pre-norm, constant-Q bins"
    assert language_model.family == "LLaMA-1-like, rope base 10,000"
    assert encoder.shapes["width"] == adapter.shapes["width"] == 192
    assert encoder.dtypes == {"F16": len(encoder.tensors)}
    theirs = transformers.LlamaForCausalLM.from_pretrained(
        model_folder.resolve(TINY) / "language_model"
    )
    assert language_model.parameters == theirs.num_parameters()
    assert adapter.parameters == 192 * 128 + 128
    assert adapter.bytes == 4 * adapter.parameters
    text = inspection.table([encoder, language_model, adapter])
    assert "adapter         one linear map                   loads" in text
    assert any(line.split()[0] == "parameters" for line in text.splitlines() if line)
    said = json.loads(json.dumps(inspection.as_json(TINY, [adapter])))
    assert said["parts"]["adapter"]["tensors"]["llama_proj.bias"] == {
        "dtype": "F32",
        "shape": [128],
    }


def test_inspection_tells_families(tmp_path):
    def family(name, **said):
        folder = tmp_path / name
        language_model(folder, replace(CONFIG, **said), torch.bfloat16)
        save_tokenizer(folder, CONFIG.vocab)
        (report,) = inspection.inspect(str(folder))
        assert report.loads, report.reason
        assert report.dtypes == {"BF16": len(report.tensors)}
        return report.family

    assert family("1", norm_eps=1e-5) == "LLaMA-2-like, rope base 10,000"
    assert family("2", norm_eps=1e-5, rope_scaling=LinearScaling(4.0)).endswith(
        "rope base 10,000, linear scaling by 4"
    )
    scaling = Llama3Scaling(32.0, 1.0, 4.0, 8192)
    assert (
        family("3", rope_theta=5e5, rope_scaling=scaling, key_heads=1, tied=True)
        == "LLaMA-3-like, rope base 500,000, llama3 scaling by 32, grouped-query "
        "attention, tied head"
    )


def test_inspection_says_why_not(base, delta, tmp_path):
    def reason(folder):
        (report,) = inspection.inspect(str(folder))
        assert not report.loads
        assert report.reason in inspection.table([report])
        return report.family, report.reason

    family, why = reason(delta)
    assert family == "unmerged delta of LLaMA-1-like, rope base 10,000"
    assert "merge them with `convert merge`" in why
    change(base, lambda content: content | {"extra": torch.zeros(2)})
    assert "unused: extra" in reason(base)[1]
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"new_trick": 3}))
    (report,) = inspection.inspect(str(base))
    assert report.family == "unknown" and "new_trick" in report.reason
    assert report.parameters > 0
    path = base / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert "broken or cut off" in reason(base)[1]


def test_inspection_looks_for_a_tokenizer(base):
    def reason():
        (report,) = inspection.inspect(str(base))
        assert report.loads == (not report.reason)
        assert report.family == "LLaMA-1-like, rope base 10,000"
        return report.reason

    assert "base: has no tokenizer" in reason()
    save_tokenizer(base, CONFIG.vocab + 1)
    assert (
        "the tokenizer has 11 tokens but the language model embeds only 10" in reason()
    )
    save_tokenizer(base, CONFIG.vocab)
    assert reason() == ""
    (base / "tokenizer.json").write_text("{")
    assert "is not JSON" in reason()


def test_inspection_of_what_is_elsewhere_looks_whether_there_is_one(base, monkeypatch):
    there = sources.find(base, "language_model")
    there = replace(there, remote=("some/model", ""))
    content = tensor_files.open_tensors(base)
    monkeypatch.setattr(sources.Part, "tensors", lambda part: content)
    monkeypatch.setattr(sources, "find", lambda source, kind, weights: there)
    (report,) = inspection.inspect(str(base))
    assert not report.loads and "has no tokenizer" in report.reason
    there = replace(there, tokenizer=base)
    (report,) = inspection.inspect(str(base))
    assert report.loads


def test_inspection_counts_what_is_used(base, tmp_path):
    (before,) = inspection.inspect(str(base))
    layer = "model.layers.0.self_attn.rotary_emb.inv_freq"
    change(base, lambda content: content | {layer: torch.ones(2)})
    (report,) = inspection.inspect(str(base))
    assert report.parameters == before.parameters
    assert layer in report.tensors
    encoder = shutil.copytree(
        model_folder.resolve(TINY) / "encoder", tmp_path / "encoder"
    )
    (before,) = inspection.inspect(str(encoder))
    change(encoder, lambda content: content | {"masked_spec_embed": torch.ones(192)})
    (report,) = inspection.inspect(str(encoder))
    assert report.loads and report.parameters == before.parameters

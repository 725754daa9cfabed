"""MU-LLaMA's release is split, inspected and written again without a change."""

import json

import numpy as np
import pytest
import torch
from helpers.model_folders import assert_equal, configure, read
from helpers.model_folders import write as write_plan
from helpers.mu_llama_files import (
    DEPTH,
    HEADS,
    QUERIES,
    WIDTH,
    encoder_tensors,
    tensors,
    write,
)
from helpers.small_run import small_tokenizer
from safetensors.torch import save_file

from musilingo_jax.answering.usage import Usage
from musilingo_jax.convert import __main__ as convert
from musilingo_jax.convert import inspection, mu_llama_releases, musilingo_releases
from musilingo_jax.pretrained import sources, trained_with, weights
from musilingo_jax.pretrained.model_config import KINDS
from musilingo_jax.runtime.errors import UsageError, UserError

pytestmark = pytest.mark.medium


def release(folder, *, second_stage=True):
    theirs, _ = tensors(second_stage=second_stage, vocab=small_tokenizer().size)
    theirs |= encoder_tensors()
    return theirs, str(write(folder, theirs))


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A release's tensors, its folder, and the folder of its parts; not to change."""
    folder = tmp_path_factory.mktemp("mu")
    theirs, source = release(folder / "release")
    split = musilingo_releases.split(source)
    return theirs, source, write_plan(split, folder / "parts")


@pytest.mark.parametrize("second_stage", [False, True])
def test_a_release_is_split_and_written_again_to_the_bit(tmp_path, second_stage):
    theirs, source = release(tmp_path / "release", second_stage=second_stage)
    folder = write_plan(musilingo_releases.split(source), tmp_path / "parts")
    for kind in KINDS:
        for place in (folder, folder / kind):
            assert weights.digest(place, kind) == weights.digest(source, kind)
    described = json.loads((folder / "adapter/config.json").read_text())
    assert "window_frames" not in described
    assert ("tuning" in described) == second_stage
    gates = read(folder / "adapter")["gates"]
    assert gates.shape == (DEPTH, HEADS) and gates.dtype == torch.float16
    trained_with.check(*[str(folder)] * 3)

    plan = mu_llama_releases.export(*[str(folder)] * 3)
    again = write_plan(plan, tmp_path / "again")
    state = torch.load(again / "checkpoint.pth", weights_only=True)
    assert_equal(state["model"], theirs)
    for kind in KINDS:
        assert weights.digest(again, kind) == weights.digest(source, kind)


def test_parts_are_asked_as_the_release_is(parts):
    _, source, folder = parts
    whole, split = Usage.of(source, None), Usage.of(str(folder), None)
    assert split.prompt == whole.prompt
    assert split.features == whole.features and split.generate == whole.generate
    assert split.max_tokens == whole.max_tokens


def test_inspection_shows_flags_gates_and_sizes(parts):
    theirs, source, folder = parts
    encoder, language_model, adapter = inspection.inspect(source)
    assert encoder.loads and language_model.loads and adapter.loads
    assert adapter.family == "one vector, added in layers, LoRA, biases"
    assert adapter.shapes["layers that hear"] == QUERIES
    assert adapter.trainer["args"] == {"blr": 1e-3, "epochs": 20, "max_words": 512}
    assert adapter.trainer["epoch"] == 19 and "optimizer" not in adapter.trainer
    assert [layer.layer for layer in adapter.hearing] == [1, 2, 3]
    last = adapter.hearing[-1]
    gate = theirs["llama.layers.3.attention.gate"].float().tanh().flatten()
    assert np.isclose(last.gate, gate.abs().mean(), rtol=1e-6)
    assert np.isclose(last.largest_gate, gate.abs().max(), rtol=1e-6)
    query = theirs["prefix_query.weight"][-1]
    value = theirs["llama.layers.3.attention.wv.weight"].float() @ query
    added = (gate[:, None] * value.view(HEADS, -1)).norm()
    assert np.isclose(last.added, added, rtol=1e-5)
    text = inspection.table([adapter])
    assert "  args.max_words 512" in text.splitlines()
    assert f"{last.gate:.4g}" in text and f"{last.added:.4g}" in text
    said = json.loads(json.dumps(inspection.as_json(source, [adapter])))
    assert said["parts"]["adapter"]["hearing"][2]["layer"] == 3
    # Without its language model, an adapter has gates all the same.
    (alone,) = inspection.inspect(str(folder / "adapter"))
    assert alone.loads and alone.hearing[0].added is None and not alone.trainer


def test_what_our_trainings_have_besides_is_computed(parts, tmp_path):
    """LoRA with a scale, and trained norms: the file has no place for either."""
    theirs, _, folder = parts
    config = json.loads((folder / "adapter/config.json").read_text())
    config["tuning"] |= {"alpha": 8.0, "norms": True}
    content = read(folder / "adapter")
    extra = {"tuning.norm": torch.full((WIDTH,), 2.0)}
    for layer in range(DEPTH):
        for name in ("attention_norm", "mlp_norm"):
            extra[f"tuning.layers.{layer}.{name}"] = torch.full((WIDTH,), 3.0 + layer)
    mine = tmp_path / "mine"
    mine.mkdir()
    save_file(content | extra, mine / "model.safetensors")
    (mine / "config.json").write_text(json.dumps(config))
    plan = mu_llama_releases.export(str(folder), str(folder), str(mine))
    again = write_plan(plan, tmp_path / "again")
    found = torch.load(again / "checkpoint.pth", weights_only=True)["model"]
    assert (found["llama.norm.weight"] == 2).all()
    assert (found["llama.layers.2.ffn_norm.weight"] == 5).all()
    for half, times in (("l1", 1), ("l2", 2)):
        name = f"llama.layers.1.attention.lora_wq_{half}.weight"
        assert torch.equal(found[name], times * theirs[name])


def changed(folder, tmp_path, kind, **said):
    """A part with another `config.json`, as a source."""
    copy = tmp_path / kind
    copy.mkdir()
    for path in (folder / kind).iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    configure(copy, **said)
    return str(copy)


@pytest.mark.parametrize(
    "kind, said, message",
    [
        ("language_model", {"rms_norm_eps": 1e-6}, "has norm_eps 1e-06, but the orig"),
        ("language_model", {"rope_theta": 5e5}, "rope_theta 500000.0, but the orig"),
        ("adapter", {"prompt_template": "Q: {}"}, "trained with the prompt 'Q: {}'"),
    ],
)
def test_what_the_original_would_compute_otherwise_is_refused(
    parts, tmp_path, kind, said, message
):
    folder = parts[2]
    sources_of = {name: str(folder) for name in KINDS}
    sources_of[kind] = changed(folder, tmp_path, kind, **said)
    if kind == "language_model":  # Whose digest the adapter records.
        adapter = changed(folder, tmp_path, "adapter")
        described = json.loads((folder / "adapter/config.json").read_text())
        del described["trained_with"]
        (tmp_path / "adapter/config.json").write_text(json.dumps(described))
        sources_of["adapter"] = adapter
    with pytest.raises(UserError, match=message):
        mu_llama_releases.export(*(sources_of[name] for name in KINDS))


def test_the_command_line_knows_the_bridge(parts, tmp_path):
    source, out = str(parts[2]), tmp_path / "out"
    words = ["convert", "export", source, "--out", str(out)]
    convert.main(convert.parser().parse(words))
    assert {path.name for path in out.iterdir()} >= {"checkpoint.pth", "tokenizer.json"}
    assert weights.digest(out, "adapter") == weights.digest(parts[1], "adapter")
    given = convert.parser().parse([*words, "--format", "safetensors"])
    with pytest.raises(UsageError, match="reads one .pth file"):
        convert.main(given)


def test_an_adapter_alone_has_no_file_of_its_own(parts):
    with pytest.raises(UserError, match="name all three parts"):
        musilingo_releases.export_adapter(str(parts[2]))
    assert not weights.bridge_kind(sources.find(parts[2], "adapter").config).splices

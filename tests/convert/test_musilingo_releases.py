"""Releases are split, exported and split again without a change to any number.

The original's side is plain PyTorch here: its files, its `load_state_dict`.
"""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers.model_folders import TINY, assert_equal, change, configure, read, write
from safetensors.torch import save_file

from musilingo_jax.convert import musilingo_releases
from musilingo_jax.pretrained import model_config, model_folder, sources, weights
from musilingo_jax.runtime.errors import UserError

pytestmark = pytest.mark.medium


def test_a_release_is_written_split_and_written_again(whole, tmp_path):
    names = set(read(whole))
    assert {
        "model.audio_encoder.encoder.layers.3.attention.q_proj.weight",
        "model.audio_encoder.encoder.layer_norm.bias",
        "model.llama_proj.weight",
        "model.llama_proj.bias",
        "model.llama_model.model.embed_tokens.weight",
        "model.llama_model.model.layers.3.mlp.up_proj.weight",
        "model.llama_model.lm_head.weight",
    } <= names
    config = json.loads((whole / "config.json").read_text())
    assert config["model_type"] == "musilingo"
    assert config["hidden_size"] == 128  # The language model's, as released.
    assert config["prompt_template"] == "###Human: {} ###Assistant: "
    parts = write(musilingo_releases.split(str(whole)), tmp_path / "parts")
    for kind in model_config.KINDS:
        original = sources.find(TINY, kind)
        assert_equal(read(parts / kind), read(original.folder))
        for place in (whole, parts, parts / kind):
            assert weights.digest(place, kind) == weights.digest(TINY, kind)
    mert = weights.load_encoder(parts / "encoder", dtype="float32", mesh=None)
    assert mert.config == weights.blueprint(sources.find(TINY, "encoder")).module.config
    assert_equal(
        read(write(musilingo_releases.export(*[str(parts)] * 3), tmp_path / "again")),
        read(whole),
    )
    with pytest.raises(UserError, match="no language_model and no adapter"):
        musilingo_releases.split(str(parts / "encoder"))


def test_parts_that_do_not_fit_are_not_made_one(base, delta, tmp_path):
    pattern = "maps width 192 to 128, but musilingo-tiny-1 has width 192 and .* 8;"
    with pytest.raises(UserError, match=pattern):
        musilingo_releases.export(TINY, str(base), TINY)
    narrow = tmp_path / "narrow"
    content = {"llama_proj.weight": torch.zeros(8, 192)}
    torch.save(content | {"llama_proj.bias": torch.zeros(8)}, tmp_path / "a.pth")
    write(
        musilingo_releases.adapter(str(tmp_path / "a.pth"), window_frames=325), narrow
    )
    with pytest.raises(UserError, match="delta: is only a delta; merge it first"):
        musilingo_releases.export(TINY, str(delta), str(narrow))


def test_adapters_come_and_go(whole, tmp_path):
    class Original(torch.nn.Module):
        """What of the authors' model matters: other parameters, and the one map."""

        def __init__(self):
            super().__init__()
            self.llama_model = torch.nn.Linear(5, 5)
            self.llama_proj = torch.nn.Linear(24, 16)

    original = Original()
    learnt = {
        name: value
        for name, value in original.state_dict().items()
        if name.startswith("llama_proj")
    }
    checkpoint = {"model": learnt, "optimizer": {"step": 3}, "epoch": 3}
    torch.save(checkpoint, tmp_path / "checkpoint_3.pth")
    plan = musilingo_releases.adapter(
        str(tmp_path / "checkpoint_3.pth"), window_frames=325
    )
    folder = write(plan, tmp_path / "ours")
    loaded = weights.load_adapter(folder, mesh=None)
    np.testing.assert_array_equal(
        loaded.bridge.projection.kernel[...],
        original.llama_proj.weight.detach().numpy().T,
    )
    assert sources.find(folder, "adapter").config["window_frames"] == 325

    exported = read(
        write(musilingo_releases.export_adapter(str(folder)), tmp_path / "exported")
    )
    assert_equal(exported, learnt)
    other = Original()
    result = other.load_state_dict(exported, strict=False)
    assert not result.unexpected_keys
    assert set(result.missing_keys) == {"llama_model.weight", "llama_model.bias"}
    assert torch.equal(other.llama_proj.weight, original.llama_proj.weight)

    again = musilingo_releases.adapter(str(tmp_path / "exported"), window_frames=325)
    assert_equal(read(write(again, tmp_path / "again")), learnt)
    out = write(
        musilingo_releases.adapter(str(whole), window_frames=108), tmp_path / "out"
    )
    assert weights.digest(out, "adapter") == weights.digest(TINY, "adapter")


@pytest.mark.parametrize(
    "content, pattern",
    [
        ({"other": torch.zeros(2)}, "holds no adapter: .*but other"),
        ({"llama_proj.weight": torch.zeros(2)}, "holds no adapter"),
        ({"llama_proj.weight": torch.zeros(2, 3)}, "missing: llama_proj.bias"),
        (
            {"llama_proj.weight": torch.zeros(2, 3), "llama_proj.bias": torch.zeros(3)},
            r"llama_proj.bias \[3\] instead of \[2\]",
        ),
        (
            {
                "llama_proj.weight": torch.zeros(2, 3),
                "llama_proj.bias": torch.zeros(2),
                "lora.weight": torch.zeros(2),
            },
            "unused: lora.weight",
        ),
    ],
)
def test_what_is_no_adapter(tmp_path, content, pattern):
    torch.save({"model": content}, tmp_path / "checkpoint.pth")
    with pytest.raises(UserError, match=pattern):
        musilingo_releases.adapter(str(tmp_path / "checkpoint.pth"), window_frames=325)
    with pytest.raises(UserError, match=r"nothing.pth: there is no such file"):
        musilingo_releases.adapter(str(tmp_path / "nothing.pth"), window_frames=325)


def test_a_prompt_that_a_release_cannot_say(tmp_path):
    folder = shutil.copytree(model_folder.resolve(TINY), tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    config["stage2"]["prompt"]["template"] = "Q: {} A: "
    (folder / "config.json").write_text(json.dumps(config))
    for adapter in (folder, folder / "adapter"):
        (plan,) = musilingo_releases.export(TINY, TINY, str(adapter))
        assert plan.config["prompt_template"] == "Q: {} A: "
    config["stage2"]["prompt"]["end_sign"] = "END"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        UserError, match="trained with end_sign 'END'.*always has '###'"
    ):
        musilingo_releases.export(TINY, TINY, str(folder))


LEARNT = {"llama_proj.weight": torch.ones(4, 3), "llama_proj.bias": torch.ones(4)}


BUFFERS = {
    f"llama_model.model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(2)
    for layer in range(2)
}


@pytest.mark.parametrize(
    "content",
    [
        {"model": LEARNT | BUFFERS, "epoch": 3},
        {"state_dict": LEARNT},
        {"model": {f"module.{name}": t for name, t in (LEARNT | BUFFERS).items()}},
    ],
)
def test_what_trainers_save_beside_an_adapter(tmp_path, content):
    torch.save(content, tmp_path / "checkpoint.pth")
    plan = musilingo_releases.adapter(
        str(tmp_path / "checkpoint.pth"), window_frames=None
    )
    assert_equal(read(write(plan, tmp_path / "ours")), LEARNT)
    assert plan[0].config["window_frames"] == 325


def test_the_frames_of_an_adapter_stay_what_they_are(whole, tmp_path):
    def frames(source, given=None):
        (plan,) = musilingo_releases.adapter(str(source), window_frames=given)
        return plan.config["window_frames"]

    for source in (TINY, f"{TINY}/adapter", whole):
        assert frames(source) == 108
    assert frames(whole, given=7) == 7
    for number, wrong in enumerate(("x", -3, 0, 2.5, True, None)):
        folder = shutil.copytree(
            model_folder.resolve(TINY) / "adapter", tmp_path / f"{number}"
        )
        configure(folder, window_frames=wrong)
        for convert_it in (
            frames,
            musilingo_releases.export_adapter,
            lambda folder: musilingo_releases.export(TINY, TINY, folder),
        ):
            with pytest.raises(
                UserError, match="window_frames = .* is not a positive wh"
            ):
                convert_it(str(folder))
    copy = shutil.copytree(whole, tmp_path / "copy")
    configure(copy, window_frames="x")
    with pytest.raises(UserError, match="window_frames = 'x' is not a positive"):
        musilingo_releases.split(str(copy))


def test_a_split_keeps_how_questions_are_put(whole, tmp_path):
    release = shutil.copytree(whole, tmp_path / "release")
    configure(release, prompt_template="Q: {} A: ")
    parts = write(musilingo_releases.split(str(release)), tmp_path / "parts")
    for adapter in (parts, parts / "adapter"):
        (again,) = musilingo_releases.export(str(parts), str(parts), str(adapter))
        assert again.config["prompt_template"] == "Q: {} A: "
    for wrong in (5, "no slot", "{} and {}"):
        configure(release, prompt_template=wrong)
        for made in (
            musilingo_releases.split,
            lambda source: musilingo_releases.export(*[source] * 3),
        ):
            with pytest.raises(
                UserError, match="prompt_template = .* is not a text wi"
            ):
                made(str(release))


@pytest.mark.parametrize(
    "changed, pattern",
    [
        (lambda name: "layers.2.attention.q" in name, "missing: encoder.*q_proj.bias"),
        (lambda name: "llama_model.model.norm" in name, "missing: model.norm.weight"),
        (lambda name: "audio_encoder" in name, "missing: .*"),
    ],
)
def test_no_half_of_a_model_is_split_or_exported(whole, tmp_path, changed, pattern):
    broken = shutil.copytree(whole, tmp_path / "broken")
    for file in broken.glob("*.safetensors*"):
        file.unlink()
    change_to = {n: t for n, t in read(whole).items() if not changed(n)}
    save_file(change_to, broken / "model.safetensors")
    with pytest.raises(UserError, match=pattern):
        musilingo_releases.split(str(broken))
    with pytest.raises(UserError, match=pattern):
        musilingo_releases.export(*[str(broken)] * 3)


def test_an_adapter_with_more_is_not_exported_alone(tmp_path):
    folder = shutil.copytree(
        model_folder.resolve(TINY) / "adapter", tmp_path / "adapter"
    )
    change(folder, lambda content: content | {"extra": torch.zeros(2)})
    with pytest.raises(UserError, match="unused: extra"):
        musilingo_releases.export_adapter(str(folder))


def test_an_export_names_the_models_that_it_was_made_of(whole, tmp_path):
    def names(*made, **given):
        (plan,) = musilingo_releases.export(*made, **given)
        return plan.config["mert_model"], plan.config["llama_model"]

    places = [str(sources.find(TINY, kind).folder) for kind in model_config.KINDS[:2]]
    run = tmp_path / "run"
    shutil.copytree(model_folder.resolve(TINY) / "adapter", run / "adapter")
    run_config = json.loads((model_folder.resolve(TINY) / "config.json").read_text())
    run_config["model"] = {"pretrained": TINY, "adapter": "random", "dtype": "float32"}
    (run / "config.json").write_text(json.dumps(run_config))
    for source in (TINY, run, whole):
        assert names(*[str(source)] * 3) == tuple(places)
    release = shutil.copytree(whole, tmp_path / "release")
    configure(release, mert_model="m-a-p/MERT-v1-330M", llama_model="some/vicuna")
    run_config["model"]["pretrained"] = str(release)
    (run / "config.json").write_text(json.dumps(run_config))
    for source in (release, run):
        found = names(*[str(source)] * 3)
        assert found == ("m-a-p/MERT-v1-330M", "some/vicuna")
    given = {"mert_model": "a/b", "llama_model": "c/d"}
    assert names(TINY, TINY, TINY, **given) == ("a/b", "c/d")


def test_the_originals_setting_ckpt_reads_an_exported_adapter(tmp_path):
    """`torch.load(path)["model"]`, and then `load_state_dict(…, strict=False)`."""
    folder = write(
        musilingo_releases.export_adapter(TINY, checkpoint=True), tmp_path / "out"
    )
    assert {path.name for path in folder.iterdir()} == {"checkpoint.pth", "config.json"}
    checkpoint = torch.load(folder / "checkpoint.pth", map_location="cpu")
    ours = weights.load_adapter(TINY, mesh=None).bridge.projection
    original = torch.nn.Module()
    original.llama_proj = torch.nn.Linear(*ours.kernel.shape)
    missing, unexpected = original.load_state_dict(checkpoint["model"], strict=False)
    assert not missing and not unexpected
    kernel = original.llama_proj.weight.detach().numpy().T
    np.testing.assert_array_equal(kernel, ours.kernel[...])
    bias = original.llama_proj.bias.detach().numpy()
    np.testing.assert_array_equal(bias, ours.bias[...])
    # The folder, and the file in it, are an adapter to us as well.
    again = weights.load_adapter(folder, mesh=None).bridge.projection
    np.testing.assert_array_equal(again.kernel[...], ours.kernel[...])
    plan = musilingo_releases.adapter(
        str(folder / "checkpoint.pth"), window_frames=None
    )
    assert set(read(write(plan, tmp_path / "back"))) == set(checkpoint["model"])

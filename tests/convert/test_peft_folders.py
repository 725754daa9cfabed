"""LoRA goes to the PEFT library and comes back, and is merged into its base."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from helpers.model_folders import CONFIG, assert_equal, configure, language_model, read
from helpers.model_folders import write as write_plan
from helpers.quick_jit import quick_jit
from helpers.random_weights import random_module
from safetensors.torch import load_file, save_file

from musilingo_jax.convert import language_models, peft_folders
from musilingo_jax.models.bridges.gated_values import GatedValues, GatedValuesConfig
from musilingo_jax.models.bridges.linear import LinearBridge
from musilingo_jax.models.lora import MAPS, UNTUNED, MapSizes, Tuning, TuningConfig
from musilingo_jax.models.parts import Parts
from musilingo_jax.pretrained import weights
from musilingo_jax.runtime.errors import UserError

pytestmark = pytest.mark.medium

TUNING = TuningConfig(rank=3, alpha=6.0, targets=MAPS, biases=(), norms=False)
ALL = replace(TUNING, biases=("query", "out", "up"), norms=True)
TOKENS = np.random.default_rng(0).integers(0, CONFIG.vocab, (2, 7))
TOLERANCE = 2e-5
"""Of logits, in float32: a sum before the product instead of after it."""


def adapter(folder, tuning, bridge=None):
    """An adapter with random factors."""

    def fresh():
        return Tuning.fresh(MapSizes.of(CONFIG), tuning, rngs=nnx.Rngs(0))

    make = bridge or (lambda: LinearBridge(5, CONFIG.width, rngs=nnx.Rngs(0)))
    parts = Parts(random_module(make, seed=1), tuning=random_module(fresh, seed=2))
    weights.save_adapter(
        parts, folder, dtype="float32", window_frames=9, trained_with=None
    )
    return str(folder)


@pytest.fixture
def base(tmp_path):
    return str(language_model(tmp_path / "base", CONFIG, torch.float32))


def ours(base, tuning=UNTUNED, tokens=TOKENS):
    """Logits of our language model."""
    llama = weights.load_language_model(
        base, dtype="float32", quantization="", mesh=None
    )
    rows, time = tokens.shape
    positions = np.tile(np.arange(time), (rows, 1))
    return np.asarray(run(llama, tuning, tokens, positions))


@quick_jit
def run(llama, tuning, tokens, positions):
    return llama.logits(
        llama(
            llama.embed(tokens),
            positions=positions,
            segments=jax.numpy.ones_like(positions),
            remat="everything",
            tuning=tuning,
        )
    )


def by_the_documented_layout(base, folder, tokens=TOKENS):
    """Logits of PyTorch's model with what a PEFT folder adds, written anew."""
    model = transformers.LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    said = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    scale = said["lora_alpha"] / said["r"]
    modules = {f"base_model.model.{name}": m for name, m in model.named_modules()}
    used = set()
    for name, module in modules.items():
        keys = [f"{name}.lora_A.weight", f"{name}.lora_B.weight"]
        if name.rpartition(".")[2] in said["target_modules"]:
            a, b = (tensors[key] for key in keys)
            used |= set(keys)
            bias = None
            if said["lora_bias"]:
                used.add(f"{name}.lora_B.bias")
                bias = tensors[f"{name}.lora_B.bias"]

            def add(_, inputs, y, a=a, b=b, bias=bias):
                return y + scale * torch.nn.functional.linear(inputs[0] @ a.T, b, bias)

            module.register_forward_hook(add)
        elif any(name.endswith(n) for n in said["modules_to_save"] or ()):
            module.weight.data = tensors[f"{name}.weight"]
            used.add(f"{name}.weight")
    assert used == set(tensors)
    with torch.no_grad():
        return model(torch.tensor(tokens)).logits.numpy()


@pytest.mark.parametrize("tuning", [TUNING, ALL])
def test_an_exported_lora_computes_the_same_and_comes_back(base, tmp_path, tuning):
    mine = adapter(tmp_path / "mine", tuning)
    folder = write_plan(peft_folders.export(mine, base), tmp_path / "peft")
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    learnt = weights.load_adapter(mine, mesh=None)
    expected = ours(base, learnt.tuning)
    assert np.abs(expected - ours(base)).max() > 0.1
    found = by_the_documented_layout(base, folder)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)

    bare = adapter(tmp_path / "bare", replace(TUNING, rank=0, norms=True))
    described = json.loads((tmp_path / "bare/config.json").read_text())
    del described["tuning"]
    (tmp_path / "bare/config.json").write_text(json.dumps(described))
    kept = {n: t for n, t in read(tmp_path / "bare").items() if "tuning" not in n}
    save_file(kept, tmp_path / "bare/model.safetensors")
    back = write_plan(
        peft_folders.with_lora(bare, str(folder), None), tmp_path / "back"
    )
    again = json.loads((back / "config.json").read_text())
    before = json.loads((tmp_path / "mine/config.json").read_text())
    # PEFT's factors all have a bias or none; those that ours lack are zeros.
    biases = list(MAPS) if tuning.biases else []
    assert again == before | {"tuning": before["tuning"] | {"biases": biases}}
    zeros = {
        f"tuning.layers.{layer}.{name}.bias"
        for layer in range(CONFIG.depth)
        for name in biases
        if name not in tuning.biases
    }
    content = read(back)
    assert not any(content.pop(name).any() for name in zeros)
    assert_equal(content, read(tmp_path / "mine"))


@pytest.mark.slow
@pytest.mark.parametrize("tuning", [TUNING, ALL])
@pytest.mark.filterwarnings("ignore")  # PEFT's, of biases that are vectors.
def test_the_library_reads_it_and_we_read_the_library(base, tmp_path, tuning):
    import peft

    mine = adapter(tmp_path / "mine", tuning)
    folder = write_plan(peft_folders.export(mine, base), tmp_path / "peft")
    model = transformers.LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(model, str(folder)).eval()
    with torch.no_grad():
        found = model(torch.tensor(TOKENS)).logits.numpy()
    expected = ours(base, weights.load_adapter(mine, mesh=None).tuning)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    model.save_pretrained(tmp_path / "saved")
    assert_equal(read(tmp_path / "saved"), read(folder))
    bare = weights.load_adapter(mine, mesh=None)
    weights.save_adapter(
        replace(bare, tuning=None),
        tmp_path / "bare",
        dtype="float32",
        window_frames=9,
        trained_with=None,
    )
    plan = peft_folders.with_lora(str(tmp_path / "bare"), str(tmp_path / "saved"), None)
    back = write_plan(plan, tmp_path / "back")
    learnt = weights.load_adapter(back, mesh=None)
    np.testing.assert_allclose(ours(base, learnt.tuning), expected, atol=TOLERANCE)


@pytest.mark.parametrize("tuning", [TUNING, ALL])
def test_a_merged_model_gives_the_same_logits_and_text(base, tmp_path, tuning):
    mine = adapter(tmp_path / "mine", tuning)
    learnt = weights.load_adapter(mine, mesh=None)
    out = write_plan(language_models.merge_adapter(mine, base), tmp_path / "out")
    assert sorted(path.name for path in out.iterdir()) == ["adapter", "language_model"]
    merged = str(out / "language_model")
    np.testing.assert_allclose(ours(merged), ours(base, learnt.tuning), atol=TOLERANCE)
    texts = []
    for source, beside in ((base, learnt.tuning), (merged, UNTUNED)):
        tokens = np.pad(TOKENS, ((0, 0), (0, 6)))
        for end in range(7, 13):  # What follows is not seen.
            tokens[:, end] = ours(source, beside, tokens)[:, end - 1].argmax(-1)
        texts.append(tokens)
    np.testing.assert_array_equal(*texts)
    # The bridge alone remains, so that nothing is added twice.
    alone = weights.load_adapter(out / "adapter", mesh=None)
    assert alone.tuning is None
    for one, other in zip(
        *map(jax.tree.leaves, (alone.bridge, learnt.bridge)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_sum_is_rounded_once(tmp_path):
    half = str(language_model(tmp_path / "half", CONFIG, torch.bfloat16))
    mine = adapter(tmp_path / "mine", TUNING)
    out = write_plan(language_models.merge_adapter(mine, half), tmp_path / "out")
    name = "model.layers.1.mlp.up_proj.weight"
    found = read(out / "language_model")[name]
    a, b = (
        read(tmp_path / "mine")[f"tuning.layers.1.up.{half_}"].double()
        for half_ in ("a", "b")
    )
    whole = read(tmp_path / "half")[name].double() + 2 * (a @ b).T
    assert found.dtype == torch.bfloat16
    rounded = whole.float().bfloat16()
    assert (found == rounded).float().mean() > 0.98  # Ties of float32 sums apart.


GATED = GatedValuesConfig(
    encoder_states=2,
    encoder_width=5,
    language_model_width=8,
    language_model_depth=2,
    language_model_heads=2,
    query_layers=1,
    blocks=1,
    block_width=4,
)


def test_a_bridge_that_hears_through_the_value_maps_is_not_merged(base, tmp_path):
    def bridge():
        return GatedValues(GATED, rngs=nnx.Rngs(0))

    mine = adapter(tmp_path / "mine", TUNING, bridge)
    with pytest.raises(UserError, match="hears through the language model's value"):
        language_models.merge_adapter(mine, base)
    without = tuple(name for name in MAPS if name != "value")
    other = adapter(tmp_path / "other", replace(TUNING, targets=without), bridge)
    llama, alone = language_models.merge_adapter(other, base)
    assert llama.folder == "language_model" and alone.config["query_layers"] == 1


def test_a_lora_of_weights_in_int8_is_not_merged(base, tmp_path):
    (tmp_path / "run").mkdir()
    mine = adapter(tmp_path / "run/adapter", TUNING)
    config = {"model": {"quantization": "int8"}, "stages": ["stage2"]}
    (tmp_path / "run/config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="beside weights in int8, which no file holds"):
        language_models.merge_adapter(mine, base)


def test_what_cannot_be_merged_or_exported_is_told(base, tmp_path):
    mine = adapter(tmp_path / "mine", ALL)
    configure(tmp_path / "base", model_type="mistral")
    with pytest.raises(UserError, match="has no biases of out, query, up"):
        language_models.merge_adapter(mine, base)
    other = replace(CONFIG, mlp_width=16)
    wide = str(language_model(tmp_path / "wide", other, torch.float32))
    with pytest.raises(UserError, match="beside weights of other sizes"):
        language_models.merge_adapter(mine, wide)
    few = replace(TUNING, targets=("query",), biases=("up",))
    apart = adapter(tmp_path / "apart", few)
    with pytest.raises(UserError, match="biases of up, which have no LoRA"):
        peft_folders.export(apart, None)
    norms = replace(TUNING, rank=0, norms=True)
    with pytest.raises(UserError, match="has no LoRA, without which PEFT"):
        peft_folders.export(adapter(tmp_path / "norms", norms), None)
    with pytest.raises(UserError, match="something trained beside the weights itself"):
        peft_folders.with_lora(mine, mine, None)


def test_a_lora_that_an_adapter_cannot_hold_is_told(base, tmp_path):
    configure(tmp_path / "base", model_type="llama")
    folder = tmp_path / "peft"
    mine = adapter(tmp_path / "mine", replace(TUNING, targets=("query", "up")))
    write_plan(peft_folders.export(mine, base), folder)
    bare = Parts(random_module(lambda: LinearBridge(5, CONFIG.width, rngs=nnx.Rngs(0))))
    weights.save_adapter(
        bare, tmp_path / "bare", dtype="float32", window_frames=9, trained_with=None
    )

    def refused(tensors, message, **said):
        save_file(tensors, folder / "adapter_model.safetensors")
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | said))
        with pytest.raises(UserError, match=message):
            peft_folders.with_lora(str(tmp_path / "bare"), str(folder), None)

    whole = load_file(folder / "adapter_model.safetensors")
    fewer = {name: t for name, t in whole.items() if "layers.1.mlp" not in name}
    refused(fewer, "its target_modules name model.layers.1.mlp.up_proj")
    refused(fewer, "differ between layers or maps", target_modules="auto")
    head = {
        "base_model.model.lm_head.lora_A.weight": torch.ones(3, 8),
        "base_model.model.lm_head.lora_B.weight": torch.ones(10, 3),
    }
    refused(whole | head, r"changes lm_head\.weight, which are no maps of a layer")
    one = {"base_model.model.model.norm.weight": torch.ones(8)}
    refused(whole | one, r"replaces model\.norm\.weight, but an adapter holds all")

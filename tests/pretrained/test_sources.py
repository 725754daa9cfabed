"""What may be named as a model, which part of it is found, and what is refused."""

import json
import shutil
from collections import Counter
from typing import get_args

import jax
import numpy as np
import pytest
from helpers import processors
from helpers.released_models import save_release
from safetensors.numpy import load_file, save_file

from musilingo_jax.answering.model import Model
from musilingo_jax.answering.usage import Usage
from musilingo_jax.pretrained import model_folder, sources, weights
from musilingo_jax.pretrained.model_config import KINDS, ModelConfig
from musilingo_jax.pretrained.sources import PREFIXES
from musilingo_jax.runtime import processor
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json

pytestmark = pytest.mark.medium

TINY = "musilingo-tiny-1"
EMBEDDED = model_folder.resolve(TINY)


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """The embedded model in the layout of a MusiLingo release, in two shards."""
    return save_release(tmp_path_factory.mktemp("release") / "MusiLingo-tiny")


def same(ours, theirs):
    return all(map(np.array_equal, map(np.asarray, ours), map(np.asarray, theirs)))


def test_a_part_a_whole_and_a_release_hold_the_same(release, tmp_path):
    """The same arrays, tokens and fingerprints, wherever the part lies."""
    loaders = {
        "encoder": lambda s: weights.load_encoder(s, dtype="float32", mesh=None),
        "language_model": lambda s: weights.load_language_model(
            s, dtype="float32", quantization="", mesh=None
        ),
        "adapter": lambda s: weights.load_adapter(s, mesh=None),
    }
    for kind, load in loaders.items():
        alone = load(f"{TINY}/{kind}")
        for source in (TINY, release):
            assert same(jax.tree.leaves(load(source)), jax.tree.leaves(alone))
            digest = weights.digest(source, kind)
            assert digest == weights.digest(EMBEDDED / kind, kind)
    found = sources.find(release, "adapter").config
    assert found == {
        "encoder_width": 192,
        "language_model_width": 128,
        "window_frames": 108,
        "prompt_template": "###Human: {} ###Assistant: ",
    }
    tokens = weights.load_tokenizer(release).encode("Which key is it in?")
    assert tokens == weights.load_tokenizer(TINY).encode("Which key is it in?")


def test_another_number_has_another_digest(release, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(EMBEDDED / "encoder", copy)
    digest = weights.digest(copy, "encoder")
    tensors = load_file(copy / "model.safetensors")
    tensors["encoder.layer_norm.bias"][0] += 1
    save_file(tensors, copy / "model.safetensors")
    assert weights.digest(copy, "encoder") != digest
    shutil.copytree(EMBEDDED / "encoder", copy, dirs_exist_ok=True)
    assert weights.digest(copy, "encoder") == digest
    said = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(said | {"do_normalize": True}))
    assert weights.digest(copy, "encoder") != digest


def test_a_preprocessor_that_contradicts_the_config_is_refused(tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(EMBEDDED / "encoder", copy)
    extra = copy / "preprocessor_config.json"
    extra.write_text('{"do_normalize": false, "sampling_rate": 24000}')
    assert sources.find(copy, "encoder").config["sample_rate"] == 24000
    extra.write_text('{"do_normalize": true}')
    with pytest.raises(UserError, match="says do_normalize True, but config.json says"):
        sources.find(copy, "encoder")
    extra.unlink()
    extra.symlink_to("nowhere")
    with pytest.raises(UserError, match=r"preprocessor_config\.json: cannot be read"):
        sources.find(copy, "encoder")


def test_kinds(release, tmp_path):
    assert sources.kinds("musilingo-tiny") == list(KINDS)
    assert sources.kinds(release) == list(KINDS)
    for kind in KINDS:
        assert sources.kinds(f"musilingo-tiny/{kind}") == [kind]
    with pytest.raises(UserError, match="not a model folder, because it has no con"):
        sources.kinds(tmp_path)


def test_a_run_names_its_parts(tmp_path):
    config = {
        "model": {"pretrained": "musilingo-tiny", "adapter": "random", "dtype": "f"},
        "stages": [],
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert sources.find(tmp_path, "encoder").folder == EMBEDDED / "encoder"
    assert sources.kinds(tmp_path) == ["encoder", "language_model"]
    with pytest.raises(UserError, match="this run has no trained adapter"):
        sources.find(tmp_path, "adapter")
    shutil.copytree(EMBEDDED / "adapter", tmp_path / "adapter")
    assert sources.find(tmp_path, "adapter").folder == tmp_path / "adapter"
    assert sources.kinds(tmp_path) == list(KINDS)


SONG = EMBEDDED.parent / "musilingo-tiny-corpus/clips/00002.ogg"


@pytest.mark.parametrize(
    ("cpuinfo", "dtype"),
    [(processors.AVX2, "float32"), (processors.AVX512_BF16, "bfloat16")],
)
def test_a_release_has_the_type_of_the_machine(release, monkeypatch, cpuinfo, dtype):
    monkeypatch.setattr(processor, "cpuinfo", lambda: cpuinfo)
    assert Usage.of(str(release), None).model == ModelConfig(
        *[str(release)] * 3, dtype=dtype, quantization=""
    )


def test_chat_with_a_release(release, tmp_path):
    """The prompt is that of the second stage, whatever the file says of the first."""
    manner = Usage.of(str(release), None)
    assert manner.prompt.end_sign == "###"
    assert manner.prompt.max_answer_tokens == 160
    # This one's adapter hears means of 108 frames; a release says nothing, means 325.
    assert manner.features.window_frames == 108
    copy = tmp_path / "copy"
    shutil.copytree(release, copy)
    said = json.loads((copy / "config.json").read_text())
    del said["window_frames"]
    (copy / "config.json").write_text(json.dumps(said))
    assert Usage.of(str(copy), None).features.window_frames == 325
    demo = Usage.of(str(release), None, "demo")
    assert (demo.generate.temperature, demo.generate.top_p) == (1.0, 0.9)
    assert demo.prompt.template.startswith("Give the following music")

    chat = Model.load(str(release))
    heard = chat.hear(SONG, start=None, seconds=10)
    (answer,) = chat.ask(heard, ["Which instrument plays the melody?"])
    assert "trumpet" in answer


def test_chat_with_the_parts_of_a_release(tmp_path):
    for kind in KINDS:
        shutil.copytree(EMBEDDED / kind, tmp_path / kind)
    manner = Usage.of(str(tmp_path), None)
    assert manner.features.window_frames == 108
    assert manner.prompt.template.startswith("###Human")
    with pytest.raises(UserError, match="encoder: holds no whole model; name a run"):
        Usage.of(str(tmp_path / "encoder"), None)
    said = json.loads((tmp_path / "adapter/config.json").read_text())
    (tmp_path / "adapter/config.json").write_text(
        json.dumps(said | {"prompt_template": 5})
    )
    with pytest.raises(UserError, match=r"prompt_template = 5 .* is not text"):
        Usage.of(str(tmp_path), None)


def test_a_release_whose_parts_are_described_nowhere(release, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(release, copy)
    said = json.loads((release / "config.json").read_text())

    def write(**changes):
        (copy / "config.json").write_text(json.dumps(said | changes))

    write(mert_model="")
    with pytest.raises(UserError, match="does not name in mert_model"):
        sources.find(copy, "encoder")
    write(mert_model=str(tmp_path))
    with pytest.raises(UserError, match=r"has no config.json; put its config.json .*"):
        sources.find(copy, "encoder")
    write(mert_model="no where")
    with pytest.raises(UserError, match="is not available"):
        sources.find(copy, "encoder")
    shutil.copytree(
        EMBEDDED / "encoder", copy / "encoder", ignore=lambda *_: ["model.safetensors"]
    )
    assert sources.find(copy, "encoder").prefix == PREFIXES["encoder"]
    write(llama_model="", language_model={"model_type": "llama"})
    part = sources.find(copy, "language_model")
    assert part.config == {"model_type": "llama"}
    assert part.tokenizer is None


def test_a_folder_that_only_says_it_is_a_release(release, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "musilingo"}')
    shutil.copy(EMBEDDED / "encoder" / "model.safetensors", tmp_path)
    with pytest.raises(
        UserError, match=r"a release has no such tensors: .*encoder\.layer"
    ):
        sources.find(tmp_path, "adapter")
    alone = {"model.audio_encoder.x": np.zeros(2, np.float32)}
    save_file(alone, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"lacks model\.llama_proj\.weight, model"):
        sources.find(tmp_path, "adapter")
    flat = {
        f"model.llama_proj.{n}": np.zeros(2, np.float32) for n in ("weight", "bias")
    }
    save_file(flat, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"llama_proj\.weight \[2\] is not a matrix"):
        sources.find(tmp_path, "adapter")
    more = {f"{name}s": tensor for name, tensor in flat.items()}
    save_file(
        flat | more | {"model.llama_proj.weight": np.zeros((2, 2), np.float32)},
        tmp_path / "model.safetensors",
    )
    with pytest.raises(
        UserError, match=r"unused: llama_proj\.biass, llama_proj\.weights"
    ):
        weights.load_adapter(tmp_path, mesh=None)


@pytest.mark.parametrize("kind", [None, "mistral", ["llama"]])
def test_other_models_are_called_what_they_are(tmp_path, kind):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(
        UserError, match="does not describe an encoder .* a LLaMA or an ad"
    ):
        sources.kinds(tmp_path)


def test_an_unmerged_delta_is_refused(tmp_path):
    folder = tmp_path / "delta"
    shutil.copytree(EMBEDDED / "language_model", folder)
    tensors = load_file(folder / "model.safetensors")
    small = {name: tensor * 1e-3 for name, tensor in tensors.items()}
    save_file(small, folder / "model.safetensors")
    with pytest.raises(UserError, match="only differences to another model.*merge"):
        weights.load_language_model(folder, dtype="float32", quantization="", mesh=None)


def test_no_name_is_no_name(tmp_path):
    with pytest.raises(UserError, match="config.json: is a file; name the folder of"):
        model_folder.resolve(EMBEDDED / "config.json")
    with pytest.raises(UserError, match=": there is no such folder; give"):
        model_folder.resolve("")
    with pytest.raises(UserError, match="there is no such folder"):
        model_folder.resolve("long" * 500)
    with pytest.raises(UserError, match=r"a b: there is no such folder; .*on the hub"):
        model_folder.resolve("a b")


@pytest.fixture
def config_reads(monkeypatch):
    """Which files were read as JSON, and how often."""
    reads = Counter()

    def counted(path):
        reads[path] += 1
        return read_json(path)

    for module in (sources, model_folder):
        monkeypatch.setattr(module, "read_json", counted)
    return reads


def run_folder(folder, **model):
    """A folder with the `config.json` of a run, and nothing else."""
    folder.mkdir()
    text = json.dumps({"model": model, "stages": []})
    (folder / "config.json").write_text(text)
    return folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "layout",
    # The others have files of tests of their own.
    sorted({*get_args(model_folder.Layout)} - {"lora", "mu_llama"}),
)
def test_each_config_is_read_once(release, tmp_path, config_reads, layout, kind):
    folders = {
        "part": EMBEDDED / kind,
        "whole": tmp_path / "whole",
        "run": run_folder(tmp_path / "run", pretrained=str(tmp_path / "whole")),
        "release": release,
    }
    for part in KINDS:
        shutil.copytree(EMBEDDED / part, tmp_path / "whole" / part)
    shutil.copytree(EMBEDDED / "adapter", tmp_path / "run" / "adapter")
    source = folders[layout]
    assert model_folder.ModelFolder.open(source, weights=True).layout == layout
    config_reads.clear()
    assert sources.find(source, kind).config
    read = {path: n for path, n in config_reads.items() if path.name == "config.json"}
    assert set(read.values()) == {1}
    config_reads.clear()
    assert kind in sources.kinds(source)
    assert set(config_reads.values()) <= {1}


def test_a_part_beside_those_of_a_whole_model(tmp_path):
    """Such as an adapter that was trained for an encoder, in that one's folder."""
    shutil.copytree(EMBEDDED / "encoder", tmp_path / "model")
    shutil.copytree(EMBEDDED / "adapter", tmp_path / "model" / "adapter")
    for kind, folder in {"encoder": "model", "adapter": "model/adapter"}.items():
        assert sources.find(tmp_path / "model", kind).folder == tmp_path / folder
    (tmp_path / "model" / "config.json").unlink()
    with pytest.raises(UserError, match="has no folder encoder with a config.json"):
        sources.find(tmp_path / "model", "encoder")


def test_runs_that_name_each_other_are_refused(tmp_path):
    """And not followed for ever."""
    one = run_folder(tmp_path / "one", pretrained=str(tmp_path / "other"))
    run_folder(tmp_path / "other", pretrained=str(one))
    with pytest.raises(UserError, match="source of its encoder leads back to this run"):
        sources.find(one, "encoder")
    own = run_folder(tmp_path / "own", encoder=str(tmp_path / "own"))
    with pytest.raises(UserError, match="own/config.json: the source of its enc"):
        sources.find(own, "encoder")

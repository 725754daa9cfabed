"""What may be named as a model, which part of it is found, and what is refused."""

import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from helpers.hub_server import COMMIT, serve
from ml_collections import ConfigDict
from safetensors.numpy import load_file, save_file

from musilingo_jax.answering.conversation import Chat
from musilingo_jax.answering.usage import Usage
from musilingo_jax.pretrained import sources, weights
from musilingo_jax.pretrained.sources import KINDS, PREFIXES, ModelConfig
from musilingo_jax.runtime.errors import UserError

EMBEDDED = sources.resolve("musilingo-tiny")


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """The embedded model in the layout of a MusiLingo release, in two shards."""
    folder = tmp_path_factory.mktemp("release") / "MusiLingo-tiny"
    folder.mkdir()
    tensors, where = {}, {}
    for shard, kind in enumerate(KINDS):
        part = load_file(EMBEDDED / kind / "model.safetensors")
        file = f"model-{min(shard, 1) + 1:05}-of-00002.safetensors"
        for name, tensor in part.items():
            where[PREFIXES[kind] + name] = file
            tensors.setdefault(file, {})[PREFIXES[kind] + name] = tensor
    # Buffers that old versions of the library saved, and that nothing needs.
    for layer in range(4):
        name = f"model.llama_model.model.layers.{layer}.self_attn.rotary_emb.inv_freq"
        where[name] = file
        tensors[file][name] = np.ones(16, np.float32)
    for file, part in tensors.items():
        save_file(part, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {
        "model_type": "musilingo",
        "architectures": ["MusilingoModel"],
        "mert_model": str(EMBEDDED / "encoder"),
        "llama_model": str(EMBEDDED / "language_model"),
        "prompt_template": "###Human: {} ###Assistant: ",
        "end_sym": "\n",
        "max_txt_len": 32,
        "window_frames": 108,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


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
        alone = load(f"musilingo-tiny/{kind}")
        for source in ("musilingo-tiny", release):
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
    assert tokens == weights.load_tokenizer("musilingo-tiny").encode(
        "Which key is it in?"
    )


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


def test_kinds(release, tmp_path):
    assert sources.kinds("musilingo-tiny") == list(KINDS)
    assert sources.kinds(release) == list(KINDS)
    for kind in KINDS:
        assert sources.kinds(f"musilingo-tiny/{kind}") == [kind]
    with pytest.raises(UserError, match="not a model folder, for it has no config"):
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


def test_pretrained_fills_the_parts_that_are_empty():
    model = {"pretrained": "a/b", "encoder": "", "adapter": "random", "dtype": "x"}
    model |= {"language_model": "llama", "quantization": "int8"}
    config = ConfigDict({"model": model})
    assert ModelConfig.from_config(config) == ModelConfig(
        "a/b", "llama", "random", "x", "int8"
    )
    del config.model.pretrained
    with pytest.raises(UserError, match="config.model.encoder is empty"):
        ModelConfig.from_config(config)


SONG = EMBEDDED.parent / "musilingo-tiny-corpus/clips/00002.ogg"


def test_chat_with_a_release(release, tmp_path):
    """The prompt is that of the second stage, whatever the file says of the first."""
    manner = Usage.of(str(release), None)
    assert manner.prompt.end_sign == "###"
    assert manner.prompt.max_answer_tokens == 160
    assert manner.model == ModelConfig(
        *[str(release)] * 3, dtype="bfloat16", quantization=""
    )
    # This one's adapter hears means of 108 frames; a release says nothing, means 325.
    assert manner.features.window_frames == 108
    copy = tmp_path / "copy"
    shutil.copytree(release, copy)
    said = json.loads((copy / "config.json").read_text())
    del said["window_frames"]
    (copy / "config.json").write_text(json.dumps(said))
    assert Usage.of(str(copy), None).features.window_frames == 325

    chat = Chat.load(str(release), None)
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
    with pytest.raises(UserError, match=r"prompt_template = 5 .* is no text"):
        Usage.of(str(tmp_path), None)


def test_a_release_whose_parts_are_described_nowhere(release, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(release, copy)
    said = json.loads((release / "config.json").read_text())

    def write(**changes):
        (copy / "config.json").write_text(json.dumps(said | changes))

    write(mert_model="")
    with pytest.raises(UserError, match="does not say in mert_model"):
        sources.find(copy, "encoder")
    write(mert_model=str(tmp_path))
    with pytest.raises(UserError, match=r"has no config.json; put its config.json .*"):
        sources.find(copy, "encoder")
    write(mert_model="no where")
    with pytest.raises(UserError, match="cannot be had"):
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
    with pytest.raises(UserError, match=r"tensors are none of one: .*encoder\.layer"):
        sources.find(tmp_path, "adapter")
    alone = {"model.audio_encoder.x": np.zeros(2, np.float32)}
    save_file(alone, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"lacks model\.llama_proj\.weight, model"):
        sources.find(tmp_path, "adapter")
    flat = {
        f"model.llama_proj.{n}": np.zeros(2, np.float32) for n in ("weight", "bias")
    }
    save_file(flat, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"llama_proj\.weight \[2\] is no matrix"):
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
    with pytest.raises(UserError, match="describes no encoder .*, no LLaMA and no ada"):
        sources.kinds(tmp_path)


def test_an_unmerged_delta_is_refused(tmp_path):
    folder = tmp_path / "delta"
    shutil.copytree(EMBEDDED / "language_model", folder)
    tensors = load_file(folder / "model.safetensors")
    small = {name: tensor * 1e-3 for name, tensor in tensors.items()}
    save_file(small, folder / "model.safetensors")
    with pytest.raises(UserError, match="only differences to another model.*merge"):
        weights.load_language_model(folder, dtype="float32", quantization="", mesh=None)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Calls `hub.download` of a model `own/tiny`, or others, in a fresh process."""
    folder = tmp_path_factory.mktemp("hub")
    for model, file in (("tiny", "model.safetensors"), ("old", "pytorch_model.bin")):
        (folder / "models" / "own" / model).mkdir(parents=True)
        (folder / "models" / "own" / model / "config.json").write_text("{}")
        (folder / "models" / "own" / model / file).write_bytes(b"weights")
        (folder / "models" / "own" / model / "evil.py").write_text("raise 1")
    with serve(folder / "models") as (address, asked):

        def download(source, weights, **environment):
            del asked[:]
            call = f"hub.download({source!r}, weights={weights})"
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM.format(call=call)],
                capture_output=True,
                text=True,
                check=False,
                env={
                    **os.environ,
                    "HF_HOME": str(folder / "home"),
                    "HF_ENDPOINT": address,
                    **environment,
                },
            )
            assert "Traceback" not in done.stderr, done.stderr
            files = [path for _, path, *_ in asked if "resolve" in path]
            return done.stdout.strip(), {path.split("/")[-1] for path in files}

        yield download


PROGRAM = """
from musilingo_jax.pretrained import hub
from musilingo_jax.runtime.errors import UserError
try:
    print(*sorted(path.name for path in {call}.iterdir()))
except UserError as error:
    print(error)
"""


def test_a_model_is_downloaded_once_and_without_its_code(hub):
    assert hub("own/tiny", False) == ("config.json", {"config.json"})
    names, asked = hub("own/tiny", True)
    assert names == "config.json model.safetensors"
    assert asked == {"model.safetensors"}
    assert hub(f"own/tiny@{COMMIT}", True) == (names, set())
    offline = hub("own/tiny", True, HF_HUB_OFFLINE="1")
    assert offline == (names, set())


def test_pytorch_files_are_taken_where_there_are_no_others(hub):
    names, asked = hub("own/old", True)
    assert names == "config.json pytorch_model.bin"
    assert asked == {"config.json", "pytorch_model.bin"}


@pytest.mark.parametrize(
    ("source", "environment", "message"),
    [
        ("own/none", {}, "no such folder, and no such model on the hub"),
        ("own/gated", {}, "its owners ask for consent first"),
        ("own/tiny@next", {}, "has no revision 'next'"),
        ("own/new", {"HF_HUB_OFFLINE": "1"}, "not in the cache and cannot be"),
        ("own/new", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot be downloaded"),
    ],
)
def test_what_the_hub_does_not_give(hub, source, environment, message):
    said, asked = hub(source, True, **environment)
    assert message in said
    assert not asked


def test_no_name_is_no_name(tmp_path):
    with pytest.raises(UserError, match="config.json: is a file; name the folder of"):
        sources.resolve(EMBEDDED / "config.json")
    with pytest.raises(UserError, match=": there is no such folder; give"):
        sources.resolve("")
    with pytest.raises(UserError, match="there is no such folder"):
        sources.resolve("long" * 500)
    with pytest.raises(UserError, match=r"a b: there is no such folder; .*on the hub"):
        sources.resolve("a b")


@pytest.fixture
def inspect(tmp_path):
    """Calls `convert --inspect … --json` in a fresh process."""

    def inspect(source, **environment):
        done = subprocess.run(
            [sys.executable, "-m", "musilingo_jax.convert", "--inspect", source]
            + ["--json"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "HF_HOME": str(tmp_path / "home"), **environment},
        )
        assert done.returncode == 0, done.stderr
        parts = json.loads(done.stdout)["parts"]
        for part in parts.values():
            assert part["loads"], part["reason"]
            del part["folder"]
        return parts

    return inspect


def test_a_release_on_the_hub_is_inspected_where_it_is(release, tmp_path, inspect):
    """Only headers, and the norm that tells a delta, are fetched."""
    shutil.copytree(release, tmp_path / "own" / "whole")
    # The same weights in another file, as some models have them.
    shutil.copy(
        EMBEDDED / "encoder/model.safetensors", tmp_path / "own/whole/x.safetensors"
    )
    with serve(tmp_path) as (address, asked):
        there = inspect("own/whole", HF_ENDPOINT=address)
    shards = [entry for entry in asked if entry[1].endswith(".safetensors")]
    size = sum(path.stat().st_size for path in release.glob("*.safetensors"))
    assert len(shards) == 3
    assert all(len(entry) == 3 for entry in shards)
    assert sum(entry[2] for entry in shards) < size / 10
    assert there == inspect(str(release))


def test_parts_on_the_hub_are_found_in_their_folders(tmp_path, inspect):
    shutil.copytree(EMBEDDED, tmp_path / "own" / "parts")
    with serve(tmp_path) as (address, _):
        there = inspect("own/parts", HF_ENDPOINT=address)
        download = "print(hub.download('own/parts', weights=True))"
        subprocess.run(
            [
                sys.executable,
                "-c",
                f"from musilingo_jax.pretrained import hub; {download}",
            ],
            check=True,
            env={
                **os.environ,
                "HF_HOME": str(tmp_path / "home"),
                "HF_ENDPOINT": address,
            },
        )
    assert there == inspect("musilingo-tiny")
    # Once it is there, no connection is needed.
    assert inspect("own/parts", HF_HUB_OFFLINE="1") == there

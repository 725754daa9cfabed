"""Models on the hub: downloaded once and without code, or read without a download."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers.hub_client import Clients
from helpers.hub_server import BRANCH, COMMIT, TOKEN, serve
from helpers.lora_folders import factors, write_lora
from helpers.model_folders import CONFIG, language_model, read, save_tokenizer
from helpers.mu_llama_files import encoder_tensors, tensors, write
from helpers.programs import run
from helpers.released_models import save_release
from helpers.small_run import small_tokenizer
from safetensors.numpy import save_file

from musilingo_jax.pretrained import model_folder

pytestmark = pytest.mark.medium

EMBEDDED = model_folder.resolve("musilingo-tiny")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The folder that the hub serves; tests add models of other names to it."""
    folder = tmp_path_factory.mktemp("hub") / "models"
    for model, file in (("tiny", "model.safetensors"), ("old", "pytorch_model.bin")):
        (folder / "own" / model).mkdir(parents=True)
        (folder / "own" / model / "config.json").write_text("{}")
        (folder / "own" / model / file).write_bytes(b"weights")
        (folder / "own" / model / "evil.py").write_text("raise 1")
    return folder


@pytest.fixture(scope="module")
def served(models):
    """The variables that lead to the hub, and the list of requests that it got."""
    with serve(models) as (address, requests):
        yield {"HF_HOME": str(models.parent), "HF_ENDPOINT": address}, requests


@pytest.fixture(scope="module")
def inspect(served):
    """`convert --inspect … --json`: the parts or the message, and the requests."""
    environment, requests = served

    def inspect(source, **changes):
        requests.clear()
        done = run("convert", "--inspect", source, "--json", env=environment | changes)
        assert "Traceback" not in done.stderr, done.stderr
        if done.returncode:
            return done.stderr, list(requests)
        return json.loads(done.stdout)["parts"], list(requests)

    return inspect


@pytest.fixture(scope="module")
def call(served):
    """The value of an expression in a process of its own, and the requests."""
    environment, requests = served
    with Clients(**environment) as clients:

        def call(expression, **changes):
            requests.clear()
            return clients(expression, **changes), list(requests)

        yield call


@pytest.fixture(scope="module")
def download(call):
    """`hub.download`: the names in the folder or the error, and the files asked for."""

    def download(source, weights, **changes):
        folder = f"hub.download({source!r}, weights={weights})"
        answer, requests = call(
            f"sorted(path.name for path in {folder}.iterdir())", **changes
        )
        if isinstance(answer, dict):
            answer = answer["error"]
        return answer, {request.file for request in requests} - {""}

    return download


def test_a_model_is_downloaded_once_and_without_its_code(download):
    assert download("own/tiny", False) == (["config.json"], {"config.json"})
    names, asked = download("own/tiny", True)
    assert names == ["config.json", "model.safetensors"]
    assert asked == {"model.safetensors"}
    assert download(f"own/tiny@{COMMIT}", True) == (names, set())
    offline = download("own/tiny", True, HF_HUB_OFFLINE="1")
    assert offline == (names, set())


def test_pytorch_files_are_taken_where_there_are_no_others(download):
    names, asked = download("own/old", True)
    assert names == ["config.json", "pytorch_model.bin"]
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
def test_what_the_hub_does_not_give(download, inspect, source, environment, message):
    said, asked = download(source, True, **environment)
    assert message in said
    assert not asked
    # The same without a download.
    said, requests = inspect(source, **environment)
    assert message in said
    assert not any(request.file for request in requests)


def loaded(parts):
    """The parts of an inspection, all of which load, without their folders."""
    for part in parts.values():
        assert part["loads"], part["reason"]
        del part["folder"]
    return parts


def test_a_release_on_the_hub_is_inspected_where_it_is(inspect, models, tmp_path):
    """Only headers are read, and the norm that marks a delta."""
    release = save_release(tmp_path / "release")
    shutil.copytree(release, models / "own" / "whole")
    # The same weights in another file, as some models have them.
    shutil.copy(
        EMBEDDED / "encoder/model.safetensors", models / "own/whole/x.safetensors"
    )
    there, requests = inspect("own/whole")
    shards = [entry for entry in requests if entry.file.endswith(".safetensors")]
    size = sum(path.stat().st_size for path in release.glob("*.safetensors"))
    assert len(shards) == 3
    assert all(entry.ranged for entry in shards)
    assert sum(entry.sent for entry in shards) < size / 10
    assert loaded(there) == loaded(inspect(str(release))[0])


def test_a_header_longer_than_the_first_block_is_read(inspect, models):
    folder = models / "own" / "long"
    shutil.copytree(EMBEDDED / "adapter", folder)
    tensors = {f"tensor number {n:04}": np.zeros(3, np.int8) for n in range(2000)}
    save_file(tensors, folder / "model.safetensors")
    parts, requests = inspect("own/long")
    assert set(parts["adapter"]["tensors"]) == set(tensors)
    read = [entry for entry in requests if entry.file.endswith(".safetensors")]
    header = (folder / "model.safetensors").stat().st_size - 2000 * 3
    assert [entry.sent for entry in read] == [100_000, header - 100_000]


def test_parts_on_the_hub_are_found_in_their_folders(call, inspect, models):
    shutil.copytree(EMBEDDED, models / "own" / "parts")
    there = loaded(inspect("own/parts")[0])
    call("str(hub.download('own/parts', weights=True))")
    assert there == loaded(inspect("musilingo-tiny")[0])
    # Once it is downloaded, no connection is needed.
    answer, requests = inspect("own/parts", HF_HUB_OFFLINE="1")
    assert loaded(answer) == there
    assert not requests
    answer, _ = inspect("own/parts", HF_ENDPOINT="http://127.0.0.1:9")
    assert loaded(answer) == there


def test_a_lora_on_the_hub_and_its_base(call, inspect, models):
    """The LoRA is downloaded, of its base only headers and a norm are read."""
    base = models / "own" / "base"
    language_model(base, CONFIG, torch.float32)
    save_tokenizer(base, 9)
    write_lora(models / "own/lora", factors(), base_model_name_or_path="own/base")
    there, requests = inspect("own/lora")
    asked = {request.file for request in requests if not request.ranged} - {""}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= asked
    assert "model.safetensors" not in asked
    part = loaded(there)["language_model"]
    assert part["dtypes"] == {"F32": len(part["tensors"])}
    found = "sources.find('own/lora', 'language_model')"
    total, _ = call(f"float({found}.tensors()['model.norm.weight'][...].sum())")
    assert total == pytest.approx(float(read(base)["model.norm.weight"].sum()))
    again, requests = inspect("own/lora", HF_HUB_OFFLINE="1")
    assert loaded(again)["language_model"] == part
    assert not requests


def test_a_revision_is_read_and_not_the_newest(inspect, models):
    shutil.copytree(EMBEDDED / "adapter", models / "own" / "revised")
    answer, requests = inspect(f"own/revised@{BRANCH}")
    assert loaded(answer) == loaded(inspect("musilingo-tiny/adapter")[0])
    ranged = [entry.path for entry in requests if entry.ranged]
    assert ranged == [f"own/revised/resolve/{BRANCH}/model.safetensors"]
    assert not any("/main" in entry.path for entry in requests)


def test_a_private_model_is_read_with_the_token(inspect, models):
    shutil.copytree(EMBEDDED / "adapter", models / "own" / "private")
    refusal, _ = inspect("own/private")
    assert "(or it is private: log in with `hf auth login`)" in refusal
    answer, _ = inspect("own/private", HF_TOKEN=TOKEN)
    assert loaded(answer) == loaded(inspect("musilingo-tiny/adapter")[0])


def test_a_run_is_inspected_without_downloading_what_it_names(
    inspect, models, tmp_path
):
    shutil.copytree(EMBEDDED, models / "own" / "named")
    config = {"model": {"pretrained": "own/named"}, "stages": []}
    (tmp_path / "config.json").write_text(json.dumps(config))
    answer, requests = inspect(str(tmp_path))
    assert list(loaded(answer)) == ["encoder", "language_model"]
    weights = [entry for entry in requests if entry.file.endswith(".safetensors")]
    assert weights and all(entry.ranged for entry in weights)


def test_a_part_knows_its_name_on_the_hub(call, models):
    shutil.copytree(EMBEDDED / "adapter", models / "own" / "origin")
    shutil.copytree(EMBEDDED / "adapter", models / "own" / "inside" / "adapter")
    for weights in (False, True):
        found = f"sources.find('own/origin@{COMMIT}', 'adapter', weights={weights})"
        assert call(f"{found}.origin")[0] == "own/origin"
    # A part in a folder of a model has no name of its own.
    inside = "sources.find('own/inside', 'adapter', weights=False)"
    assert call(f"{inside}.origin")[0] is None


def test_pytorch_files_are_not_read_from_afar(call):
    answer, requests = call("dict(hub.look_into('own/old', ''))")
    assert "has no safetensors, and the tensors in PyTorch's files" in answer["error"]
    assert not any(entry.file == "pytorch_model.bin" for entry in requests)


def test_a_broken_file_on_the_hub_is_told(call, models):
    folder = models / "own" / "broken"
    shutil.copytree(EMBEDDED / "adapter", folder)
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    answer, _ = call("dict(hub.look_into('own/broken', ''))")
    assert "own/broken: model.safetensors is broken (it ends" in answer["error"]


def test_mu_llama_is_found_by_its_name(served, models):
    """One file of several is downloaded, once, and its size is told before that."""
    environment, requests = served
    theirs, _ = tensors(vocab=small_tokenizer().size)
    folder = write(models / "mu" / "MU-LLaMA", theirs | encoder_tensors())
    (folder / "7B.pth").write_bytes(b"of an older model")
    (folder / "LLaMA/7B").mkdir()
    (folder / "LLaMA/7B/consolidated.00.pth").write_bytes(b"is in the other one")
    size = (folder / "checkpoint.pth").stat().st_size
    requests.clear()
    done = run("convert", "--inspect", "mu/MU-LLaMA", "--json", env=environment)
    assert done.returncode == 0, done.stderr
    parts = json.loads(done.stdout)["parts"]
    assert all(part["loads"] for part in parts.values()), parts
    assert parts["adapter"]["trainer"]["args"]["max_words"] == 512
    note = f"{size / 1e9:.2f} GB in checkpoint.pth"
    assert done.stderr.count(note) == 1
    fetched = [one.file for one in requests if one.method == "GET" and one.file]
    assert fetched.count("checkpoint.pth") == 1
    assert "7B.pth" not in fetched and "consolidated.00.pth" not in fetched
    again = run(
        *("convert", "--inspect", "mu/MU-LLaMA", "--json"),
        env=environment | {"HF_HUB_OFFLINE": "1"},
    )
    assert again.returncode == 0 and note not in again.stderr
    assert json.loads(again.stdout)["parts"].keys() == parts.keys()

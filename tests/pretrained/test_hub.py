"""Models on the hub: downloaded once and without code, or read without a download."""

import json
import shutil

import numpy as np
import pytest
from helpers.hub_client import Clients
from helpers.hub_server import BRANCH, COMMIT, TOKEN, serve
from helpers.released_models import save_release
from safetensors.numpy import save_file

from musilingo_jax.convert import inspection
from musilingo_jax.pretrained import sources

EMBEDDED = sources.resolve("musilingo-tiny")


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
def hub(models):
    """Calls expressions in fresh processes, and what they ask of the hub."""
    home = models.parent / "home"
    with (
        serve(models) as (address, requests),
        Clients(HF_HOME=str(home), HF_ENDPOINT=address) as call,
    ):

        def answer(expression, **environment):
            requests.clear()
            return call(expression, **environment), list(requests)

        yield answer


@pytest.fixture(scope="module")
def download(hub):
    """`hub.download`: the names in the folder or the error, and the files asked for."""

    def download(source, weights, **environment):
        folder = f"hub.download({source!r}, weights={weights})"
        answer, requests = hub(
            f"sorted(path.name for path in {folder}.iterdir())", **environment
        )
        files = {request.file for request in requests} - {""}
        if isinstance(answer, dict):
            answer = answer["error"]
        return answer, files

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
def test_what_the_hub_does_not_give(hub, download, source, environment, message):
    said, asked = download(source, True, **environment)
    assert message in said
    assert not asked
    # The same without a download.
    answer, requests = hub(f"inspect({source!r})", **environment)
    assert message in answer["error"]
    assert not any(request.file for request in requests)


def loaded(parts):
    """The parts of an inspection, all of which load, without their folders."""
    for part in parts["parts"].values():
        assert part["loads"], part["reason"]
        del part["folder"]
    return parts["parts"]


def inspected_here(source):
    reports = inspection.inspect(str(source))
    return loaded(json.loads(json.dumps(inspection.as_json(str(source), reports))))


def test_a_release_on_the_hub_is_inspected_where_it_is(hub, models, tmp_path):
    """Only headers are read, and the norm that marks a delta."""
    release = save_release(tmp_path / "release")
    shutil.copytree(release, models / "own" / "whole")
    # The same weights in another file, as some models have them.
    shutil.copy(
        EMBEDDED / "encoder/model.safetensors", models / "own/whole/x.safetensors"
    )
    answer, requests = hub("inspect('own/whole')")
    shards = [entry for entry in requests if entry.file.endswith(".safetensors")]
    size = sum(path.stat().st_size for path in release.glob("*.safetensors"))
    assert len(shards) == 3
    assert all(entry.ranged for entry in shards)
    assert sum(entry.sent for entry in shards) < size / 10
    assert loaded(answer) == inspected_here(release)


def test_a_header_longer_than_the_first_block_is_read(hub, models):
    folder = models / "own" / "long"
    shutil.copytree(EMBEDDED / "adapter", folder)
    tensors = {f"tensor number {n:04}": np.zeros(3, np.int8) for n in range(2000)}
    save_file(tensors, folder / "model.safetensors")
    answer, requests = hub("inspect('own/long')")
    assert set(answer["parts"]["adapter"]["tensors"]) == set(tensors)
    read = [entry for entry in requests if entry.file.endswith(".safetensors")]
    header = (folder / "model.safetensors").stat().st_size - 2000 * 3
    assert [entry.sent for entry in read] == [100_000, header - 100_000]


def test_parts_on_the_hub_are_found_in_their_folders(hub, models):
    shutil.copytree(EMBEDDED, models / "own" / "parts")
    answer, _ = hub("inspect('own/parts')")
    there = loaded(answer)
    hub("str(hub.download('own/parts', weights=True))")
    assert there == inspected_here("musilingo-tiny")
    # Once it is downloaded, no connection is needed.
    answer, requests = hub("inspect('own/parts')", HF_HUB_OFFLINE="1")
    assert loaded(answer) == there
    assert not requests


def test_a_revision_is_read_and_not_the_newest(hub, models):
    shutil.copytree(EMBEDDED / "adapter", models / "own" / "revised")
    answer, requests = hub(f"inspect('own/revised@{BRANCH}')")
    assert loaded(answer) == inspected_here("musilingo-tiny/adapter")
    revised = [entry for entry in requests if "/own/revised/" in f"/{entry.path}"]
    assert any(entry.ranged for entry in revised)
    assert all(f"/{BRANCH}" in entry.path for entry in revised if entry.ranged)
    assert not any("/main" in entry.path for entry in revised)


def test_a_private_model_is_read_with_the_token(hub, models):
    shutil.copytree(EMBEDDED / "adapter", models / "own" / "private")
    refusal, _ = hub("inspect('own/private')")
    assert "it is private: log in with" in refusal["error"].replace("\n", " ")
    answer, _ = hub("inspect('own/private')", HF_TOKEN=TOKEN)
    assert loaded(answer) == inspected_here("musilingo-tiny/adapter")


def test_a_run_is_inspected_without_downloading_what_it_names(hub, models, tmp_path):
    shutil.copytree(EMBEDDED, models / "own" / "named")
    config = {"model": {"pretrained": "own/named"}, "stages": []}
    (tmp_path / "config.json").write_text(json.dumps(config))
    answer, requests = hub(f"inspect({str(tmp_path)!r})")
    assert list(loaded(answer)) == ["encoder", "language_model"]
    weights = [entry for entry in requests if entry.file.endswith(".safetensors")]
    assert weights and all(entry.ranged for entry in weights)


def test_a_part_knows_its_name_on_the_hub(hub, models):
    shutil.copytree(EMBEDDED / "adapter", models / "own" / "origin")
    for weights in (False, True):
        found = f"sources.find('own/origin@{COMMIT}', 'adapter', weights={weights})"
        assert hub(f"{found}.origin")[0] == "own/origin"
    whole = "sources.find('own/parts', 'adapter', weights=False)"
    assert hub(f"{whole}.origin")[0] is None


def test_pytorch_files_are_not_read_from_afar(hub):
    answer, requests = hub("dict(hub.look_into('own/old', ''))")
    assert "has no safetensors, and the tensors in PyTorch's files" in answer["error"]
    assert not any(entry.file == "pytorch_model.bin" for entry in requests)


def test_a_broken_file_on_the_hub_is_told(hub, models):
    folder = models / "own" / "broken"
    shutil.copytree(EMBEDDED / "adapter", folder)
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    answer, _ = hub("dict(hub.look_into('own/broken', ''))")
    assert "own/broken: model.safetensors is broken (it ends" in answer["error"]

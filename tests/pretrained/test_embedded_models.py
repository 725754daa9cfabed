"""Names of embedded models with a version and without one."""

import json

import pytest
from helpers.small_run import load_config
from helpers.two_versions import embed

from musilingo_jax.pretrained import embedded_models, hub, sources, weights
from musilingo_jax.runtime.errors import UserError

KEYS = ("pretrained", "encoder", "language_model", "adapter")


@pytest.fixture
def package(monkeypatch, tmp_path):
    """The folder of a package with two versions of the embedded model."""
    return embed(monkeypatch, tmp_path / "assets")


def config_of(run, **model):
    config = load_config("tiny").get_config()
    config.run = str(run)
    config.model.update(model)
    return config


def record(run, **model):
    """Makes a run that records this section `model`."""
    run.mkdir()
    model = dict.fromkeys(KEYS, "") | {"adapter": "random"} | model
    (run / "config.json").write_text(json.dumps({"model": model, "stages": []}))
    return run


def test_a_name_without_a_version_is_the_newest(package):
    assert embedded_models.exact("musilingo-tiny") == "musilingo-tiny-2"
    assert embedded_models.exact("musilingo-tiny/adapter") == "musilingo-tiny-2/adapter"
    found = sources.find("musilingo-tiny", "encoder").folder
    assert found == package / "musilingo-tiny-2/encoder"
    found = sources.find("musilingo-tiny-1", "encoder").folder
    assert found == package / "musilingo-tiny-1/encoder"
    digests = {
        weights.digest(name, "encoder")
        for name in ("musilingo-tiny", "musilingo-tiny-1", "musilingo-tiny-2")
    }
    assert len(digests) == 2


def test_versions_are_numbers(package):
    for version in (9, 10):
        (package / f"musilingo-tiny-{version}").mkdir()
        (package / f"musilingo-tiny-{version}/config.json").write_text("{}")
    assert embedded_models.exact("musilingo-tiny") == "musilingo-tiny-10"


@pytest.mark.parametrize(
    "source", ["", "runs/musilingo-tiny", "musilingo-tiny-1", "owner/musilingo-tiny"]
)
def test_other_sources_stay_as_they_are(package, source):
    assert embedded_models.exact(source) == source
    assert embedded_models.missing(source) is None


def test_a_folder_of_that_name_is_that_folder(package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "musilingo-tiny").mkdir()
    (tmp_path / "musilingo-tiny-7").mkdir()
    assert embedded_models.exact("musilingo-tiny") == "musilingo-tiny"
    assert embedded_models.missing("musilingo-tiny-7") is None


@pytest.mark.parametrize("source", ["musilingo-tiny-7", "musilingo-tiny-7/encoder"])
def test_an_unknown_version_is_refused_with_those_that_there_are(
    package, source, monkeypatch
):
    """And not asked of the hub, where the second could be a name."""
    monkeypatch.setattr(hub, "download", pytest.fail)
    message = (
        f"^{source} is not in this version of musilingo_jax, which has "
        "musilingo-tiny-1 and musilingo-tiny-2: install one that has it "
        r"\(docs/embedded-model.md lists them\), or name another model$"
    )
    for weigh in (True, False):
        with pytest.raises(UserError, match=message):
            sources.find(source, "encoder", weights=weigh)


def test_a_new_run_records_the_newest_version(package, tmp_path, capsys):
    config = config_of(tmp_path / "run", adapter="musilingo-tiny/adapter")
    embedded_models.settle(config)
    assert config.model.pretrained == "musilingo-tiny-2"
    assert config.model.adapter == "musilingo-tiny-2/adapter"
    config = config_of(tmp_path / "run", pretrained="musilingo-tiny-1")
    embedded_models.settle(config)
    assert config.model.pretrained == "musilingo-tiny-1"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("recorded", ["musilingo-tiny", "musilingo-tiny-1"])
def test_a_run_goes_on_with_the_version_that_it_was_begun_with(
    package, tmp_path, capsys, recorded
):
    """A name without a version is from before there was a second one."""
    run = record(tmp_path / "run", pretrained=recorded)
    config = config_of(run, adapter="musilingo-tiny")
    embedded_models.settle(config)
    assert config.model.pretrained == config.model.adapter == "musilingo-tiny-1"
    assert capsys.readouterr().err == (
        f"note: {run} was begun with musilingo-tiny-1 and goes on with it; for "
        "musilingo-tiny-2, choose another folder with --config.run=…\n"
    )
    found = sources.find(run, "encoder").folder
    assert found == package / "musilingo-tiny-1/encoder"


def test_a_run_of_the_newest_version_needs_no_note(package, tmp_path, capsys):
    run = record(tmp_path / "run", encoder="musilingo-tiny-2/encoder")
    config = config_of(run)
    embedded_models.settle(config)
    assert config.model.pretrained == "musilingo-tiny-2"
    assert capsys.readouterr().err == ""


def test_a_run_whose_version_is_gone_says_what_to_install(monkeypatch, tmp_path):
    embed(monkeypatch, tmp_path / "assets", versions=(2,))
    run = record(tmp_path / "run", pretrained="musilingo-tiny")
    message = (
        f"^{run}/config.json: the run was begun with musilingo-tiny-1, which is not in "
        "this version of musilingo_jax, which has musilingo-tiny-2: install one that "
        "has it .*, or choose another folder with --config.run=…$"
    )
    with pytest.raises(UserError, match=message):
        embedded_models.settle(config_of(run))
    # It does not matter to a run that names its parts.
    parts = dict.fromkeys(("encoder", "language_model"), "elsewhere")
    embedded_models.settle(config_of(run, adapter="random", **parts))


def test_a_damaged_run_is_one_sentence(package, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text("{")
    with pytest.raises(UserError, match=r"run/config.json.*restore the file, or cho"):
        embedded_models.settle(config_of(tmp_path / "run"))

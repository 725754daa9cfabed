"""A config is found by path, by name, and in an installed package."""

from pathlib import Path

import pytest
from helpers.small_run import ROOT

from musilingo_jax.runtime import configs
from musilingo_jax.runtime.errors import UsageError


def test_a_file_is_taken_as_it_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("")
    assert configs.find_config("mine.py") == "mine.py"
    assert configs.find_config("mine.py:some:argument") == "mine.py:some:argument"
    # Also before a config of the same name.
    Path("tiny").write_text("")
    assert configs.find_config("tiny") == "tiny"


@pytest.mark.parametrize(
    "named", ["tiny", "tiny.py", "configs/tiny.py", "configs/tiny"]
)
def test_a_name_finds_the_config_from_any_folder(tmp_path, monkeypatch, named):
    monkeypatch.chdir(tmp_path)
    assert configs.find_config(named) == str(ROOT / "configs/tiny.py")
    assert configs.find_config(f"{named}:x:y") == str(ROOT / "configs/tiny.py") + ":x:y"


def test_an_installed_package_has_its_own(tmp_path, monkeypatch):
    (tmp_path / "features").mkdir()
    (tmp_path / "features/mine.py").write_text("")
    monkeypatch.setattr(configs, "_FOLDERS", (tmp_path, tmp_path / "missing"))
    assert configs.find_config("features/mine") == str(tmp_path / "features/mine.py")
    assert configs.names() == ["features/mine"]


@pytest.mark.parametrize("named", ["nothing", "", "configs/nothing.py", ":x", "../x"])
def test_another_name_is_refused_with_those_there_are(tmp_path, monkeypatch, named):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UsageError, match="no config of that name; .*features/tiny.*, tiny"
    ):
        configs.find_config(named)

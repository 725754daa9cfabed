"""Adapters that convert writes say what they were trained with, if that is known."""

import json
import shutil

import pytest
from helpers.lora_folders import factors, write_lora
from helpers.model_folders import write
from helpers.released_models import save_release
from helpers.two_versions import embed

from musilingo_jax.convert import musilingo_releases
from musilingo_jax.pretrained import sources, trained_with, weights
from musilingo_jax.pretrained.sources import TRAINED_WITH
from musilingo_jax.pretrained.trained_with import TrainedWith
from musilingo_jax.runtime.errors import UserError

ONE, TWO = "musilingo-tiny-1", "musilingo-tiny-2"
FROZEN = ("encoder", "language_model")


def record(folder):
    return json.loads((folder / "config.json").read_text()).get(TRAINED_WITH)


def test_the_parts_of_a_release_are_recorded_as_those_of_its_adapter(tmp_path):
    release = str(save_release(tmp_path / "release"))
    parts = write(musilingo_releases.split(release), tmp_path / "parts")
    assert record(parts / "adapter") == {
        kind: {"name": release, "digest": weights.digest(ONE, kind)} for kind in FROZEN
    }
    trained_with.check(str(parts), str(parts), str(parts))
    trained_with.check(str(parts / "adapter"), ONE, ONE)


def test_a_record_goes_into_a_release_and_comes_out_of_it(tmp_path):
    whole = write(musilingo_releases.export(ONE, ONE, ONE), tmp_path / "whole")
    known = TrainedWith.of_sources(ONE, ONE).stored()
    assert record(whole) == known
    trained_with.check(str(whole), str(whole), str(whole))
    parts = write(musilingo_releases.split(str(whole)), tmp_path / "parts")
    assert record(parts / "adapter") == known
    trained_with.check(str(parts), str(parts), str(parts))
    for plan in (
        musilingo_releases.export_adapter(ONE),
        musilingo_releases.export_adapter(ONE, checkpoint=True),
        musilingo_releases.adapter(f"{ONE}/adapter", window_frames=None),
    ):
        alone = write(plan, tmp_path / "alone")
        assert record(alone) == known
        shutil.rmtree(alone)


def test_what_was_not_trained_together_is_not_made_one(monkeypatch, tmp_path):
    package = embed(monkeypatch, tmp_path / "assets")
    with pytest.raises(
        UserError, match=f"trained with the encoder {ONE} .*give it {ONE}"
    ):
        musilingo_releases.export(TWO, ONE, ONE)
    mixed = tmp_path / "mixed"
    shutil.copytree(package / ONE, mixed)
    (mixed / "config.json").unlink()
    shutil.rmtree(mixed / "language_model")
    shutil.copytree(package / TWO / "language_model", mixed / "language_model")
    with pytest.raises(UserError, match=f"trained with the language model {ONE} "):
        musilingo_releases.split(str(mixed))


def test_an_adapter_of_others_stays_without_a_record(tmp_path):
    release = str(save_release(tmp_path / "release"))
    again = musilingo_releases.export(release, release, release)
    assert record(write(again, tmp_path / "again")) is None
    plan = musilingo_releases.export_adapter(release)
    assert record(write(plan, tmp_path / "alone")) is None


def test_a_lora_that_is_merged_is_another_model(base, tmp_path):
    """Read with its base it has a digest of its own, and written as a sum another."""
    lora = write_lora(tmp_path / "lora", factors(), base_model_name_or_path=str(base))
    digests = {weights.digest(source, FROZEN[1]) for source in (base, lora)}
    assert len(digests) == 2
    adapter = sources.find(ONE, "adapter")
    with_lora = {"language_model": sources.find(lora, FROZEN[1]), "adapter": adapter}
    known = TrainedWith.of_sources(ONE, str(lora))
    assert musilingo_releases._record(with_lora, known) == {}
    alone = with_lora | {"language_model": sources.find(base, FROZEN[1])}
    assert musilingo_releases._record(alone, known) == {TRAINED_WITH: known.stored()}

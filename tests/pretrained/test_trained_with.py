"""An adapter is used with the encoder and the language model of its training only."""

import json
import shutil

import pytest
from helpers.released_models import save_release
from helpers.stored_weights import rewrite
from helpers.two_versions import embed

from musilingo_jax.pretrained import sources, trained_with, weights
from musilingo_jax.pretrained.trained_with import TrainedWith
from musilingo_jax.runtime.errors import UserError

ONE, TWO = "musilingo-tiny-1", "musilingo-tiny-2"
ENCODER, LANGUAGE = "7de72342", "18747911"
"""The beginnings of the digests of the first version."""


@pytest.fixture
def package(monkeypatch, tmp_path):
    """The folder of a package with two versions of the embedded model."""
    return embed(monkeypatch, tmp_path / "assets")


def short(source, kind):
    return weights.digest(source, kind)[:8]


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def old_run(folder, *, inputs=True):
    """A run from before adapters had a record, of the first version."""
    shutil.copytree(sources.find(ONE, "adapter").folder, folder / "adapter")
    config = json.loads((folder / "adapter/config.json").read_text())
    del config["trained_with"]
    (folder / "adapter/config.json").write_text(json.dumps(config))
    model = {"pretrained": "musilingo-tiny", "encoder": "", "language_model": ""}
    described = {"model": model | {"adapter": "random"}, "stages": []}
    (folder / "config.json").write_text(json.dumps(described))
    if inputs:
        found = {
            "features": {"encoder": weights.digest(ONE, "encoder"), "format": 3},
            "language_model": weights.digest(ONE, "language_model"),
            "adapter": "random",
        }
        (folder / "inputs.json").write_text(json.dumps(found))
    return str(folder)


def test_what_was_trained_together_is_accepted(package, capsys):
    for name in ("musilingo-tiny", ONE, TWO):
        trained_with.check(name, name, name)
        trained_with.check(f"{name}/adapter", f"{name}/encoder", name)
        trained_with.tell_if_unknown(f"{name}/adapter", f"{name}/encoder", name)
    assert capsys.readouterr().err == ""


def test_another_encoder_of_the_same_width_is_refused(package):
    other = short(TWO, "encoder")
    with pytest.raises(UserError) as raised:
        trained_with.check(ONE, TWO, ONE)
    assert str(raised.value) == (
        f"the adapter {ONE} was trained with the encoder {ONE} (digest {ENCODER}), but "
        f"is given the encoder {TWO} (digest {other}), with which it would answer "
        f"nonsense: give it {ONE}, or train an adapter anew"
    )


def test_another_language_model_of_the_same_width_is_refused(package, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(package / TWO / "language_model", copy)
    other = short(copy, "language_model")
    with pytest.raises(UserError) as raised:
        trained_with.check(ONE, ONE, str(copy))
    assert str(raised.value) == (
        f"the adapter {ONE} was trained with the language model {ONE} (digest "
        f"{LANGUAGE}), but is given the language model {copy} (digest {other}), with "
        f"which it would answer nonsense: give it {ONE}, or train an adapter anew"
    )


def test_both_are_named_in_one_sentence(package):
    message = (
        rf"the encoder {ONE} \(digest {ENCODER}\) and the language model {ONE} "
        rf"\(digest {LANGUAGE}\), but is given the encoder {TWO} \(digest .*\) and the "
        rf"language model {TWO} .* nonsense: give it {ONE}, or train an adapter anew$"
    )
    with pytest.raises(UserError, match=message):
        trained_with.check(ONE, "musilingo-tiny", "musilingo-tiny")


def test_a_version_that_is_gone_is_to_be_installed(monkeypatch, tmp_path):
    run = old_run(tmp_path / "run")
    embed(monkeypatch, tmp_path / "assets", versions=(2,))
    message = f"nonsense: install a version of musilingo_jax that has {ONE}, or train"
    with pytest.raises(UserError, match=message):
        trained_with.check(run, TWO, TWO)


def test_of_folders_the_one_of_the_training_is_to_be_given(package, tmp_path):
    adapter = tmp_path / "adapter"
    shutil.copytree(package / ONE / "adapter", adapter)
    parts = {"name": "/models/mine", "digest": "0" * 64}
    known = {"encoder": parts, "language_model": parts}
    edit(adapter / "config.json", trained_with=known)
    message = (
        r"the encoder /models/mine \(digest 00000000\) and .* nonsense: give it that "
        "encoder and give it that language model, or train an adapter anew$"
    )
    with pytest.raises(UserError, match=message):
        trained_with.check(str(adapter), ONE, ONE)


def test_the_run_knows_what_its_old_adapter_was_trained_with(package, tmp_path, capsys):
    run = old_run(tmp_path / "run")
    trained_with.check(run, ONE, ONE)
    trained_with.check(run, run, run)
    trained_with.tell_if_unknown(run, ONE, ONE)
    assert capsys.readouterr().err == ""
    message = rf"adapter {run} was trained with the encoder {ONE} \(digest {ENCODER}"
    with pytest.raises(UserError, match=message):
        trained_with.check(run, TWO, TWO)


def test_its_own_record_goes_before_that_of_the_run(package, tmp_path):
    run = old_run(tmp_path / "run")
    known = TrainedWith.of_sources(TWO, TWO).stored()
    edit(tmp_path / "run/adapter/config.json", trained_with=known)
    trained_with.check(run, TWO, TWO)
    with pytest.raises(UserError, match=f"trained with the encoder {TWO}"):
        trained_with.check(run, ONE, ONE)


def test_without_a_record_there_is_one_note(package, tmp_path, capsys):
    run = old_run(tmp_path / "run", inputs=False)
    trained_with.check(run, TWO, TWO)
    assert capsys.readouterr().err == ""
    trained_with.tell_if_unknown(run, TWO, TWO)
    assert capsys.readouterr().err == (
        f"note: the adapter {run} does not record what it was trained with, so only "
        f"the widths of the encoder {TWO} and of the language model {TWO} are checked\n"
    )


def test_a_release_comes_whole_and_needs_no_note(tmp_path, capsys):
    release = str(save_release(tmp_path / "release"))
    trained_with.check(release, release, release)
    trained_with.tell_if_unknown(release, release, release)
    assert capsys.readouterr().err == ""
    trained_with.tell_if_unknown(release, ONE, release)
    assert "does not record" in capsys.readouterr().err


@pytest.mark.parametrize(
    "damaged",
    [
        {},
        [],
        "musilingo-tiny-1",
        {"encoder": {"name": "a", "digest": "b"}},
        {kind: {"name": "a", "digest": 1} for kind in ("encoder", "language_model")},
        {kind: {"name": [], "digest": "b"} for kind in ("encoder", "language_model")},
    ],
)
def test_a_damaged_record_is_refused(package, tmp_path, damaged):
    adapter = tmp_path / "adapter"
    shutil.copytree(package / ONE / "adapter", adapter)
    edit(adapter / "config.json", trained_with=damaged)
    message = "adapter/config.json: trained_with does not hold the name and the digest"
    with pytest.raises(UserError, match=message):
        trained_with.check(str(adapter), ONE, ONE)


def test_the_record_changes_no_digest(package, tmp_path):
    """Runs and answers of before know the adapter by it."""
    adapter = tmp_path / "adapter"
    shutil.copytree(package / ONE / "adapter", adapter)
    before = weights.digest(adapter, "adapter")
    edit(adapter / "config.json", trained_with=None)
    assert weights.digest(adapter, "adapter") == before


def test_the_type_in_memory_is_not_part_of_it(package):
    """Int8 and bfloat16 are made of the same files."""
    known = TrainedWith.of_adapter(sources.find(ONE, "adapter"))
    assert known == TrainedWith.of_sources(ONE, ONE)
    assert known.language_model.digest.startswith(LANGUAGE)


def test_an_incomplete_model_is_not_called_another(package):
    """Its digest is another, too; but it is the file that is wrong."""
    rewrite(package / ONE / "encoder", lambda t: t.pop("encoder.layer_norm.bias"))
    with pytest.raises(UserError, match=r"missing: encoder\.layer_norm\.bias"):
        trained_with.check(ONE, ONE, ONE)

"""Training records its encoder and language model, and goes on with no others."""

import json
import shutil

import pytest
from helpers.small_run import VALIDATED, small_config, trained_folder
from helpers.stored_weights import rewrite

from musilingo_jax import train as training
from musilingo_jax.answering import corpus_answers
from musilingo_jax.answering.model import Model
from musilingo_jax.pretrained import weights
from musilingo_jax.runtime.errors import UserError

pytestmark = pytest.mark.medium

ONE = {"mesh__data": 1}
VALIDATING = {key.replace(".", "__"): value for key, value in VALIDATED.items()}
PARTS = {"encoder": "encoder.layer_norm.bias", "language_model": "model.norm.weight"}


@pytest.fixture(scope="module")
def folder():
    """With `whole`, a finished run, and for each part another of the same widths."""
    folder = trained_folder()
    for kind, name in PARTS.items():
        copy = folder / f"other_{kind}"
        if not copy.exists():
            shutil.copytree(folder / kind, copy)
            rewrite(copy, lambda tensors, name=name: tensors[name].__iadd__(1))
    return folder


def refusal(folder, kind, subject):
    """The sentence about a pair with another part of this kind."""
    word, old = kind.replace("_", " "), folder / kind
    new = folder / f"other_{kind}"
    digests = [weights.digest(path, kind)[:8] for path in (old, new)]
    return (
        rf"^{subject} was trained with the {word} {old} \(digest {digests[0]}\), but "
        rf"is given the {word} {new} \(digest {digests[1]}\), with which it would "
        f"answer nonsense: give it that {word}, or "
    )


def other(folder, kind):
    return {f"model__{kind}": str(folder / f"other_{kind}")}


@pytest.mark.parametrize("name", ["adapter", "adapter-best"])
def test_a_run_records_what_its_adapters_were_trained_with(folder, name):
    config = json.loads((folder / "whole" / name / "config.json").read_text())
    assert config["trained_with"] == {
        kind: {
            "name": str(folder / kind),
            "digest": weights.digest(folder / kind, kind),
        }
        for kind in PARTS
    }


@pytest.mark.parametrize("kind", PARTS)
def test_training_does_not_start_from_an_adapter_of_others(folder, kind, monkeypatch):
    adapter = str(folder / "whole")
    changes = ONE | other(folder, kind) | {"model__adapter": adapter}
    # Before anything is encoded or written.
    monkeypatch.setattr(training.feature_cache, "prepare", pytest.fail)
    message = refusal(folder, kind, f"the adapter {adapter}") + "train an adapter anew$"
    with pytest.raises(UserError, match=message):
        training.train(small_config(folder, "from-others", **changes))
    assert not (folder / "from-others").exists()


@pytest.mark.parametrize("kind", PARTS)
def test_a_run_is_not_resumed_with_others(folder, kind):
    changes = ONE | VALIDATING | other(folder, kind)
    message = refusal(folder, kind, f"the run {folder / 'whole'}")
    message += "choose another folder with --config.run=…$"
    with pytest.raises(UserError, match=message):
        training.train(small_config(folder, "whole", **changes))


@pytest.mark.parametrize("kind", PARTS)
def test_a_corpus_is_not_answered_with_others(folder, kind):
    """As `generate` and `evaluate` begin, before songs are encoded."""
    config = small_config(folder, "whole", **ONE, **other(folder, kind))
    adapter = corpus_answers.adapter_of(config, None)
    message = refusal(folder, kind, f"the adapter {adapter}")
    with pytest.raises(UserError, match=message):
        corpus_answers.model_of(config, adapter)


@pytest.mark.parametrize("kind", PARTS)
def test_a_conversation_is_not_begun_with_others(folder, kind, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(folder / "whole/adapter", run / "adapter")
    config = json.loads((folder / "whole/config.json").read_text())
    config["model"][kind] = str(folder / f"other_{kind}")
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=refusal(folder, kind, f"the adapter {run}")):
        Model.load(run)


def test_an_adapter_without_a_record_trains_after_a_note(folder, tmp_path, capsys):
    adapter = tmp_path / "adapter"
    shutil.copytree(folder / "whole/adapter", adapter)
    config = json.loads((adapter / "config.json").read_text())
    del config["trained_with"]
    (adapter / "config.json").write_text(json.dumps(config))
    short = {"stages": ("stage1",), "stage1__steps": 1, "stage1__warmup_steps": 0}
    changes = ONE | short | {"model__adapter": str(adapter)}
    training.train(small_config(folder, "unknown", **changes))
    told = f"note: the adapter {adapter} does not record what it was trained with"
    assert capsys.readouterr().err.count(told) == 1
    config = json.loads((folder / "unknown/adapter/config.json").read_text())
    assert config["trained_with"]["encoder"]["name"] == str(folder / "encoder")

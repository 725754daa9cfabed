"""Answers to a corpus: with which adapter, and into which file."""

import dataclasses
import json
import resource

import numpy as np
import pytest
from helpers import tiny_model as tiny

from musilingo_jax.answering import corpus_answers
from musilingo_jax.answering.answer_file import AnswerFile, AskedQuestion, fingerprint
from musilingo_jax.answering.answerer import load_answerer
from musilingo_jax.answering.config import GenerateConfig
from musilingo_jax.corpora.records import Record
from musilingo_jax.models.parts import Parts
from musilingo_jax.pretrained import weights
from musilingo_jax.pretrained.model_config import ModelConfig
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import setting
from musilingo_jax.runtime.sharding import make_mesh
from musilingo_jax.training.embedded import FEATURES


def test_adapter_of_prefers_the_given_then_the_run_then_the_config(tmp_path):
    config = tiny.config(tmp_path, corpus="")
    with pytest.raises(UserError, match="no trained adapter.*train"):
        corpus_answers.adapter_of(config, None)
    config.model.adapter = "somewhere"
    assert corpus_answers.adapter_of(config, None) == "somewhere"
    # A run that was interrupted has none, and what it began with does not replace it.
    (tmp_path / "run/stage2/checkpoints/40").mkdir(parents=True)
    with pytest.raises(UserError, match="no trained adapter"):
        corpus_answers.adapter_of(config, None)
    run = tmp_path / "run/adapter"
    weights.save_adapter(
        Parts(bridge=tiny.adapter(32)),
        run,
        dtype=np.float32,
        window_frames=10,
        trained_with=None,
    )
    assert corpus_answers.adapter_of(config, None) == str(run)
    assert corpus_answers.adapter_of(config, "mine") == "mine"


def test_an_adapter_for_another_encoder_is_refused(tmp_path):
    """Before anything is multiplied."""
    folder, frames = tmp_path / "other", 108
    model = ModelConfig("musilingo-tiny", "musilingo-tiny", str(folder), "float32", "")
    weights.save_adapter(
        Parts(bridge=tiny.adapter(32)),
        folder,
        dtype=np.float32,
        window_frames=frames,
        trained_with=None,
    )
    with pytest.raises(UserError, match="encoder musilingo-tiny makes 192"):
        load_answerer(
            model,
            dataclasses.replace(FEATURES, window_frames=frames),
            make_mesh(1, 1, 1),
        )


def record(number: int) -> Record:
    return Record(
        audio=None,
        clip=f"{number}.wav",
        question="How?",
        answer=f"So {number}.",
        split="test",
        attribute=None,
        value=None,
    )


def test_answer_file_continues_after_a_kill(tmp_path):
    path = tmp_path / "deep/answers.jsonl"
    asks = [AskedQuestion(record(i), heard=f"{i}.wav") for i in range(3)]
    file = AnswerFile(path, "model=1")
    file.add(asks[2], "zwei ♪")
    file.add(asks[0], "null")
    with path.open("a") as torn:
        torn.write('{"clip": "1.wav", "heard"')
    again = AnswerFile(path, "model=1")
    assert [again.answer(ask) for ask in asks] == ["null", None, "zwei ♪"]
    again.add(asks[1], "eins")
    again.finish(asks)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["answer"] for row in rows] == ["null", "eins", "zwei ♪"]
    assert rows[0]["reference"] == "So 0." and rows[0]["question"] == "How?"
    assert rows[0]["clip"] == "0.wav"


def test_answers_that_an_editor_has_saved_are_the_same(tmp_path):
    path = tmp_path / "answers.jsonl"
    asks = [AskedQuestion(record(i), heard=f"{i}.wav") for i in range(2)]
    file = AnswerFile(path, "model=1")
    for number, ask in enumerate(asks):
        file.add(ask, f"It is {number}.")
    whole = path.read_text()
    no_end = whole.rstrip("\n")
    for saved in (
        whole + "\n\n",
        whole.replace("\n", "\n\n"),
        no_end,
        whole.replace("\n", "\r\n") + "\r\n",
        "\ufeff" + no_end.replace("\n", "\r\n"),
    ):
        path.write_text(saved, newline="")
        again = AnswerFile(path, "model=1")
        assert [again.answer(ask) for ask in asks] == ["It is 0.", "It is 1."]
        again.finish(asks)
        assert path.read_text() == whole


def test_answer_file_never_mixes_two_models(tmp_path):
    path = tmp_path / "answers.jsonl"
    ask = AskedQuestion(record(0), heard="0.wav")
    one, other = ({"adapter": a, "generate": {"seed": 0}} for a in ("one", "other"))
    AnswerFile(path, fingerprint(one)).add(ask, "null")
    before = path.read_text()
    with pytest.raises(UserError, match=r"of another model .*differs in adapter\)"):
        AnswerFile(path, fingerprint(other))
    assert path.read_text() == before
    assert AnswerFile(path, fingerprint(one)).answer(ask) == "null"


def test_answer_file_refuses_other_files(tmp_path):
    path = tmp_path / "songs.jsonl"
    path.write_text('{"audio": "a.wav"}\n')
    with pytest.raises(UserError, match=r"songs.jsonl:1 is not an answer"):
        AnswerFile(path, "model=1")


def test_answer_file_needs_the_answers_of_all_processes(tmp_path):
    asks = [AskedQuestion(record(i), heard=f"{i}.wav") for i in range(3)]
    file = AnswerFile(tmp_path / "answers.jsonl", "model=1", process=0, processes=2)
    for ask in file.share(asks):
        file.add(ask, "null")
    with pytest.raises(UserError, match="1 of 3 answers are not here.*all processes"):
        file.finish(asks)


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A config whose models have digests that do not depend on their files."""
    tiny.save_model(tmp_path, tiny.llama())
    monkeypatch.setattr(weights, "digest", lambda source, part: f"digest of the {part}")
    # And an adapter that there is not, with no language model inside.
    monkeypatch.setattr(
        corpus_answers.tuned_model, "with_adapter", lambda model, adapter: model
    )
    config = tiny.config(tmp_path, corpus="")
    config.generate.stop = ("Human:",)
    return config


def test_fingerprints_stay_those_of_version_0_1(config):
    """Or files of answers that were begun with it could not be continued."""
    assert fingerprint(corpus_answers.identity(config, "adapter")) == (
        "adapter=6f540a7e end_tokens=038966de features=a175433f format=d4735e3a "
        "generate=bf202323 language_model=26d8bc0f numbers=97b5a118 stages=d9e8008f"
    )


@dataclasses.dataclass(frozen=True)
class LaterGenerateConfig(GenerateConfig):
    """That of a version which has one more setting."""

    typical_p: float = setting(above=0, at_most=1, before=1.0)


def test_answers_are_continued_by_a_version_with_more_settings(
    config, tmp_path, monkeypatch
):
    def open_file() -> AnswerFile:
        identity = corpus_answers.identity(config, "adapter")
        return AnswerFile(tmp_path / "answers.jsonl", fingerprint(identity))

    ask = AskedQuestion(record(0), heard="0.wav")
    open_file().add(ask, "null")
    monkeypatch.setattr(corpus_answers, "GenerateConfig", LaterGenerateConfig)
    assert open_file().answer(ask) == "null"
    config.generate = {**config.generate, "typical_p": 1.0}
    assert open_file().answer(ask) == "null"
    config.generate.typical_p = 0.5
    with pytest.raises(UserError, match=r"differs in generate\)"):
        open_file()


def test_nothing_is_written_before_there_is_an_answer(tmp_path):
    path = tmp_path / "deep/answers.jsonl"
    AnswerFile(path, "model=1")
    assert not path.parent.exists()


def test_a_full_disk_keeps_what_was_answered(tmp_path):
    """A file that grows beyond a limit fails as a full disk does."""
    path = tmp_path / "answers.jsonl"
    asks = [AskedQuestion(record(i), heard=f"{i}.wav") for i in range(9)]
    file = AnswerFile(path, "model=1")
    file.add(asks[0], "null")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))
    try:
        with pytest.raises(UserError, match=r"File too large.: 1 answers are kept"):
            file.add(asks[1], "eins " * 60)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    again = AnswerFile(path, "model=1")
    assert [again.answer(ask) for ask in asks[:2]] == ["null", None]
    again.add(asks[1], "eins")
    assert AnswerFile(path, "model=1").answer(asks[1]) == "eins"


def test_a_question_with_the_end_sign_is_refused_by_its_clip(tmp_path):
    config = tiny.config(tmp_path, corpus="")
    asked = [record(0), dataclasses.replace(record(1), question="How?### So.")]
    with pytest.raises(UserError, match=r"^1\.wav: .*contains '###'.*ask without"):
        corpus_answers.askable_records(config, asked, {"0.wav", "1.wav"})
    captions = [dataclasses.replace(record(0), question="")]
    assert corpus_answers.askable_records(config, captions, {"0.wav"}) == captions

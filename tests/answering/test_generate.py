"""A corpus answered: with which adapter, and into which file."""

import dataclasses
import json
import resource

import numpy as np
import pytest
from helpers import tiny_model as tiny

from musilingo_jax.answering import corpus_answers
from musilingo_jax.answering.answer import load_answerer
from musilingo_jax.answering.answer_file import AnswerFile, Ask, fingerprint
from musilingo_jax.corpora.records import Record
from musilingo_jax.pretrained import weights
from musilingo_jax.pretrained.sources import ModelConfig
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.sharding import make_mesh


def test_adapter_of_prefers_the_given_then_the_run_then_the_config(tmp_path):
    config = tiny.config(tmp_path, corpus="")
    with pytest.raises(UserError, match="no trained adapter.*train"):
        corpus_answers.adapter_of(config, None)
    config.model.adapter = "somewhere"
    assert corpus_answers.adapter_of(config, None) == "somewhere"
    # A run that was interrupted has none, and its start is no substitute.
    (tmp_path / "run/stage2/checkpoints/40").mkdir(parents=True)
    with pytest.raises(UserError, match="no trained adapter"):
        corpus_answers.adapter_of(config, None)
    run = tmp_path / "run/adapter"
    weights.save_adapter(tiny.adapter(32), run, dtype=np.float32, window_frames=10)
    assert corpus_answers.adapter_of(config, None) == str(run)
    assert corpus_answers.adapter_of(config, "mine") == "mine"


def test_an_adapter_for_another_encoder_is_refused(tmp_path):
    """Before anything is multiplied."""
    folder, frames = tmp_path / "other", 108
    model = ModelConfig("musilingo-tiny", "musilingo-tiny", str(folder), "float32", "")
    weights.save_adapter(
        tiny.adapter(32), folder, dtype=np.float32, window_frames=frames
    )
    with pytest.raises(UserError, match="encoder musilingo-tiny makes 192"):
        load_answerer(model, frames, make_mesh(1, 1, 1))


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


def test_answer_file_goes_on_after_a_kill(tmp_path):
    path = tmp_path / "deep/answers.jsonl"
    asks = [Ask(record(i), heard=f"{i}.wav") for i in range(3)]
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


def test_answer_file_never_mixes_two_models(tmp_path):
    path = tmp_path / "answers.jsonl"
    ask = Ask(record(0), heard="0.wav")
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


def test_nothing_is_written_before_there_is_an_answer(tmp_path):
    path = tmp_path / "deep/answers.jsonl"
    AnswerFile(path, "model=1")
    assert not path.parent.exists()


def test_a_full_disk_keeps_what_was_answered(tmp_path):
    """A limit on the size of files is met as a full disk is."""
    path = tmp_path / "answers.jsonl"
    asks = [Ask(record(i), heard=f"{i}.wav") for i in range(9)]
    file = AnswerFile(path, "model=1")
    file.add(asks[0], "null")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))
    try:
        with pytest.raises(UserError, match=r"File too large.: 1 answers .* are kept"):
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
    with pytest.raises(UserError, match=r"^1\.wav: .*holds '###'.*ask without"):
        corpus_answers.askable(config, asked, {"0.wav", "1.wav"})
    captions = [dataclasses.replace(record(0), question="")]
    assert corpus_answers.askable(config, captions, {"0.wav"}) == captions

"""A corpus answered: with which adapter, and into which file."""

import json

import numpy as np
import pytest
import tiny_answerer as tiny

from musilingo_jax import generate, weights
from musilingo_jax.answers import AnswerFile, Ask
from musilingo_jax.corpora.records import Record
from musilingo_jax.errors import UserError
from musilingo_jax.sharding import make_mesh
from musilingo_jax.sources import ModelConfig


def test_adapter_of_prefers_the_given_then_the_run_then_the_config(tmp_path):
    config = tiny.config(tmp_path, corpus="")
    with pytest.raises(UserError, match="no trained adapter.*train"):
        generate.adapter_of(config, None)
    config.model.adapter = "somewhere"
    assert generate.adapter_of(config, None) == "somewhere"
    # A run that was interrupted has none, and its start is no substitute.
    (tmp_path / "run/stage2/checkpoints/40").mkdir(parents=True)
    with pytest.raises(UserError, match="no trained adapter"):
        generate.adapter_of(config, None)
    run = tmp_path / "run/adapter"
    weights.save_adapter(tiny.adapter(32), run, dtype=np.float32, window_frames=10)
    assert generate.adapter_of(config, None) == str(run)
    assert generate.adapter_of(config, "mine") == "mine"


def test_an_adapter_for_another_encoder_is_refused(tmp_path):
    """Before anything is multiplied."""
    folder, frames = tmp_path / "other", 108
    model = ModelConfig("musilingo-tiny", "musilingo-tiny", str(folder), "float32", "")
    weights.save_adapter(
        tiny.adapter(32), folder, dtype=np.float32, window_frames=frames
    )
    with pytest.raises(UserError, match="encoder musilingo-tiny makes 192"):
        generate.load_speaker(model, frames, make_mesh(1, 1, 1))


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
    file = AnswerFile(path, "model", replace=False)
    file.add(asks[2], "zwei ♪")
    file.add(asks[0], "null")
    with path.open("a") as torn:
        torn.write('{"clip": "1.wav", "heard"')
    again = AnswerFile(path, "model", replace=False)
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
    AnswerFile(path, "model", replace=False).add(ask, "null")
    with pytest.raises(UserError, match="another adapter, configuration"):
        AnswerFile(path, "other", replace=False)
    assert AnswerFile(path, "other", replace=True).answer(ask) is None
    assert path.read_text() == ""


def test_answer_file_refuses_other_files(tmp_path):
    path = tmp_path / "songs.jsonl"
    path.write_text('{"audio": "a.wav"}\n')
    with pytest.raises(UserError, match=r"songs.jsonl:1 is not an answer"):
        AnswerFile(path, "model", replace=True)

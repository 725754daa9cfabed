"""The published way of asking MU-LLaMA: every second minute, the answers joined."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import tiny_model as tiny
from ml_collections import ConfigDict

from musilingo_jax.answering.answer_file import AskedQuestion
from musilingo_jax.corpora.records import Record, clip_id
from musilingo_jax.evaluation import controls, heard_before, protocols
from musilingo_jax.evaluation.evaluate_model import evaluate
from musilingo_jax.runtime.errors import UserError

pytestmark = pytest.mark.medium


def record(folder, seconds, **stretch):
    """A question about silence of so many seconds."""
    path = folder / f"{seconds}.wav"
    soundfile.write(path, np.zeros(round(100 * seconds)), 100)
    clip = clip_id(path, folder, **stretch)
    return Record(path, clip, "What?", "It.", "test", None, None, **stretch)


@pytest.mark.parametrize(
    "seconds, heard",
    [
        (5, [(None, None)]),
        (60, [(None, None)]),
        (66, [(0, 60)]),
        (75, [(0, 60)]),
        (125, [(0, 60)]),
        (131, [(0, 60), (120, 131)]),
        (245, [(0, 60), (120, 180)]),
        (300, [(0, 60), (120, 180), (240, 300)]),
    ],
)
def test_every_second_minute_is_heard(tmp_path, seconds, heard):
    one = record(tmp_path, seconds)
    (found,) = protocols.pieces([one, one], protocols.MU_LLAMA).values()
    assert [(piece.start, piece.end) for piece in found] == heard
    for piece in found:
        if piece.start is None:
            assert piece == one
        else:
            again = clip_id(one.audio, tmp_path, start=piece.start, end=piece.end)
            assert piece.clip == again
    assert protocols.pieces([one], protocols.WHOLE) == {one.clip: [one]}


def test_a_stretch_of_a_song_is_cut_within_itself(tmp_path):
    one = record(tmp_path, 300, start=30.0, end=180.0)
    (found,) = protocols.pieces([one], protocols.MU_LLAMA).values()
    assert [(piece.start, piece.end) for piece in found] == [(30, 90), (150, 180)]


def test_a_song_of_unknown_length_is_told(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF, but nothing else")
    one = Record(path, clip_id(path, tmp_path), "What?", "It.", "test", None, None)
    with pytest.raises(UserError, match=r"a\.wav: does not say how long it lasts"):
        protocols.pieces([one], protocols.MU_LLAMA)


def test_controls_hear_as_often(tmp_path):
    long, short = record(tmp_path, 200), record(tmp_path, 20)
    found = protocols.pieces([long, short], protocols.MU_LLAMA)
    nothing = AskedQuestion(short, "none")
    single = {
        "own": [AskedQuestion(long, long.clip), AskedQuestion(short, short.clip)],
        "other": [AskedQuestion(long, short.clip), AskedQuestion(short, long.clip)],
        "none": [nothing, nothing],
    }
    assert not controls.is_clip("none") and not controls.is_clip(f"zeros:{long.clip}")
    asks = protocols.joined(single, [long, short], found)
    counts = {system: [len(each) for each in all_] for system, all_ in asks.items()}
    assert counts == {"own": [2, 1], "other": [1, 2], "none": [2, 1]}
    assert [ask.heard for ask in asks["own"][0]] == [p.clip for p in found[long.clip]]
    assert set(asks["none"][0]) == {nothing}
    (note,) = protocols.note(found, protocols.MU_LLAMA)
    assert "2 clips are heard in 3 pieces, 1 of them in more than one" in note


def test_a_model_answers_piece_by_piece(tmp_path, monkeypatch):
    """With pieces of half a second in place of a minute."""
    monkeypatch.setattr(protocols, "_PIECE", 0.5)
    monkeypatch.setattr(protocols, "_SHORTEST", 0.1)
    tiny.save_model(tmp_path, tiny.llama())
    corpus = tiny.save_corpus(tmp_path / "songs", clips=4)
    config = tiny.config(tmp_path, corpus=str(corpus))
    adapter = str(tmp_path / "adapter")
    out, scored = evaluate(config, adapter, None, protocol=protocols.MU_LLAMA)
    assert out == tmp_path / "run/evaluation_mu_llama"
    lines = [json.loads(line) for line in (out / "answers.jsonl").open()]
    # Songs of 1.0 and 1.6 seconds: 0–0.5; and 0–0.5, 1.0–1.5.
    by_song = {}
    for line in lines:
        if line["heard"].startswith(line["clip"]) and line["question"] == "What is it?":
            by_song.setdefault(line["clip"], {})[line["heard"]] = line["answer"]
    assert sorted(map(len, by_song.values())) == [1, 2]
    for row in scored.rows:
        if row.question == "What is it?":
            assert row.answer == " ".join(by_song[row.clip].values())
    assert "every second minute is heard" in (out / "report.md").read_text()
    with pytest.raises(UserError, match="answers of another"):
        evaluate(config, adapter, out)


@pytest.mark.parametrize(
    "path, split, known",
    [
        ("corpora/musiccaps", "pretrain", True),
        ("corpora/music_instruct/long", "pretrain", True),
        ("corpora/musiccaps", "train", False),
        ("corpora/music_qa", "pretrain", False),
    ],
)
def test_a_score_on_what_was_trained_on_is_told(tmp_path, path, split, known):
    """Of a second stage that began with the adapter of a first one."""
    for name, adapter, corpus in (
        ("one", "random", {"path": "corpora/music_qa", "train_split": split}),
        ("two", str(tmp_path / "one"), {"path": "x", "train_split": "train"}),
    ):
        (tmp_path / name / "adapter").mkdir(parents=True)
        described = {"encoder_width": 4, "language_model_width": 4}
        (tmp_path / name / "adapter/config.json").write_text(json.dumps(described))
        config = {"model": {"adapter": adapter}, "stages": ["s"], "corpus": corpus}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    tested = ConfigDict({"corpus": {"path": path}})
    found = heard_before.notes(tested, str(tmp_path / "two"))
    assert bool(found) == known
    assert heard_before.notes(tested, str(tmp_path / "two/adapter")) == found
    if known:
        assert f"{tmp_path / 'one'} learnt from all of MusicCaps" in found[0]
    assert not heard_before.notes(tested, str(Path("no/such/adapter")))

"""Evaluation: scores against controls, what the report says, and starting again."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import tiny_answerer as tiny

from musilingo_jax import evaluate, generate, report
from musilingo_jax.corpora import mixture
from musilingo_jax.corpora.records import Record
from musilingo_jax.errors import UserError
from musilingo_jax.evaluate import Asked
from musilingo_jax.report import Estimate, Score
from musilingo_jax.sources import ModelConfig


def record(clip: int, value: str | None, split: str = "test") -> Record:
    return Record(
        audio=None,
        clip=f"{clip}.wav",
        question="How fast is it?",
        answer=f"It is {value}.",
        split=split,
        attribute="tempo" if value else None,
        value=value,
    )


def asked(count: int, answer, shuffled) -> list[Asked]:
    values = ["fast", "slow"] * count
    return [
        Asked(record(i, values[i]), answer(values[i]), shuffled(values[i]))
        for i in range(count)
    ]


TRAINING = [record(100 + i, v, "train") for i, v in enumerate(("slow", "slow", "fast"))]


def test_accuracy_with_its_controls():
    rows = asked(20, "It is {}.".format, lambda value: "It is slow.")
    (score,) = evaluate.accuracies(
        rows, [a.record for a in rows] + TRAINING, "train", seed=0
    )
    assert (score.name, score.rows, score.clips) == ("tempo", 20, 20)
    assert score.own.value == 1.0 and score.own.low > 0.8 and score.unanswered == 0
    assert score.shuffled.value == 0.5
    assert score.above_shuffled.value == 0.5 and score.above_shuffled.low > 0.2
    assert (score.constant_answer, score.constant.value) == ("slow", 0.5)
    assert score.beats_shuffled


def test_what_does_not_beat_shuffled_audio_is_marked():
    rows = asked(20, lambda value: "It is slow.", lambda value: "It is slow.")
    (score,) = evaluate.accuracies(
        rows, [a.record for a in rows] + TRAINING, "train", seed=0
    )
    assert score.above_shuffled == Estimate(0.0, 0.0, 0.0)
    assert not score.beats_shuffled
    text = report.markdown("title", [score], [], left_out=3, not_held_out=2)
    assert "| tempo ✗ |" in text
    assert "no sign that this comes from the music" in text
    assert "3 records of the split were left out" in text
    assert "**Not held out:** 2 of the clips" in text


def test_few_clips_prove_nothing():
    rows = asked(4, "It is {}.".format, lambda value: "It is loud.")
    (score,) = evaluate.accuracies(rows, [a.record for a in rows], "train", seed=0)
    assert score.above_shuffled.low == 1.0 and not score.beats_shuffled
    assert "4 clips are too few" in report.interpretation(score)
    assert score.constant is None and "always saying" not in report.interpretation(
        score
    )


def test_answers_that_name_no_or_several_values_are_wrong_and_counted():
    rows = asked(20, lambda value: f"{value}, not so slow", lambda value: "")
    (score,) = evaluate.accuracies(rows, [a.record for a in rows], "train", seed=0)
    assert score.unanswered == 10
    assert score.own.value == 0.5


def test_references_that_do_not_name_their_value_are_told():
    """`value` "fast" is fine, "Fast" is never found in "It is fast."."""
    rows = asked(20, "It is {}.".format, lambda value: "")
    rows = [
        dataclasses.replace(
            a, record=dataclasses.replace(a.record, value=a.record.value.title())
        )
        for a in rows
    ]
    (score,) = evaluate.accuracies(rows, [a.record for a in rows], "train", seed=0)
    assert score.own.value == 0.0 and score.unscorable == 20
    assert "20 references do not name" in report.interpretation(score)


def test_rouge_by_kind_with_the_same_controls():
    rows = asked(20, "It is {}.".format, lambda value: "drums")
    plain = dataclasses.replace(
        rows[0].record, question="", attribute=None, value=None, answer="A song."
    )
    rows.append(Asked(plain, "A song.", "A song."))
    captions, tempo = evaluate.rouges(
        rows, [a.record for a in rows] + TRAINING, "train", seed=0
    )
    assert (captions.name, tempo.name) == ("captions", "tempo")
    assert tempo.own.value == 1.0 and tempo.shuffled.value == 0.0
    assert tempo.constant_answer == "It is slow."
    assert tempo.constant.value == pytest.approx((1 + 2 / 3) / 2)
    assert captions.constant is None and not captions.beats_shuffled


def test_derangement_is_one_seeded_circle():
    clips = [f"{i}.wav" for i in range(9)] * 2
    heard = evaluate.derangement(clips, seed=0)
    assert all(clip != other for clip, other in heard.items())
    assert sorted(heard) == sorted(heard.values()) == sorted(set(clips))
    assert heard == evaluate.derangement(clips[::-1], seed=0)
    assert heard != evaluate.derangement(clips, seed=1)
    with pytest.raises(UserError, match="at least two"):
        evaluate.derangement(["a.wav", "a.wav"], seed=0)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A model, a corpus, and an evaluation of the one on the other."""
    folder = tmp_path_factory.mktemp("evaluate")
    tiny.save_model(folder, tiny.llama())
    corpus = tiny.save_corpus(folder / "songs", clips=8)
    config = tiny.config(folder, corpus=str(corpus))
    return config, folder, evaluate.evaluate(config, str(folder / "adapter"), None)


def test_evaluation_writes_report_plot_and_answers(evaluated):
    config, folder, out = evaluated
    assert out == folder / "run/evaluation"
    names = {path.name for path in out.iterdir()}
    assert names == {"answers.jsonl", "report.json", "report.md", "accuracy.png"}
    rows = [json.loads(line) for line in (out / "answers.jsonl").open(encoding="utf-8")]
    # Four test clips with three records each, heard rightly and then wrongly.
    assert len(rows) == 24
    assert all(row["clip"] == row["heard"] for row in rows[:12])
    assert all(row["clip"] != row["heard"] for row in rows[12:])
    content = json.loads((out / "report.json").read_text())
    assert [score["name"] for score in content["accuracy"]] == ["pitch"]
    assert {score["name"] for score in content["rouge_l"]} == {
        "captions",
        "other questions",
        "pitch",
    }
    assert content["config"]["generate"]["max_new_tokens"] == 6
    assert (out / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert "| pitch ✗ |" in (out / "report.md").read_text()


def test_finished_answers_are_taken_over(evaluated, monkeypatch):
    config, folder, out = evaluated
    before = (out / "report.json").read_text(), (out / "answers.jsonl").read_text()
    lines = before[1].splitlines(keepends=True)
    (out / "answers.jsonl").write_text("".join(lines[:-1]) + lines[-1][:20])
    asked = []
    answer_each = generate.answer_each

    def counted(speaker, prompt, requests, decoding, *, mesh):
        asked.extend(requests)
        return answer_each(speaker, prompt, requests, decoding, mesh=mesh)

    monkeypatch.setattr(generate, "answer_each", counted)
    evaluate.evaluate(config, str(folder / "adapter"), None)
    assert len(asked) == 1
    assert ((out / "report.json").read_text(), (out / "answers.jsonl").read_text()) == (
        before
    )


def test_answers_depend_on_adapter_and_decoding_but_not_on_batches(evaluated):
    config, folder, _ = evaluated
    adapter = str(folder / "adapter")
    identity = generate.identity(config, adapter)
    changed = config.copy_and_resolve_references()
    changed.generate.batch_size = 1
    assert generate.identity(changed, adapter) == identity
    changed.generate.seed = 5
    assert generate.identity(changed, adapter) != identity


def test_evaluation_without_a_trained_adapter_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"run/adapter: there is no trained adapter"):
        evaluate.evaluate(tiny.config(tmp_path, corpus=""), None, None)


def test_another_window_than_the_adapters_is_refused(evaluated):
    config, folder, _ = evaluated
    model = dataclasses.replace(
        ModelConfig.from_config(config), adapter=str(folder / "adapter")
    )
    with pytest.raises(UserError, match=r"over 10 frames.*window_frames is 5"):
        generate.load_speaker(model, 5, None)


def test_a_missing_split_is_refused(evaluated):
    config, _, _ = evaluated
    message = "no records in the split 'valid': choose one of 'test"
    with pytest.raises(UserError, match=message):
        mixture.split(config.corpus, "valid", answered=True)


def test_kinds_that_no_stage_learns_are_left_out(evaluated):
    config, _, _ = evaluated
    changed = config.copy_and_resolve_references()
    changed.stages = ("stage2",)
    test = mixture.split(config.corpus, "test", answered=True)
    ids = {r.clip for r in test}
    assert len(generate.askable(config, test, ids)) == 12
    assert len(generate.askable(changed, test, ids)) == 8
    with pytest.raises(UserError, match="none can be asked"):
        generate.askable(config, test, set())


def test_intervals_of_the_plot_never_point_inwards(tmp_path):
    sure = Estimate(1.0, np.nextafter(1.0, 2), 1.0)
    score = Score(
        name="tempo",
        metric="accuracy",
        rows=9,
        clips=9,
        own=sure,
        shuffled=sure,
        above_shuffled=Estimate(0.0, 0.0, 0.0),
        constant=None,
        above_constant=None,
        constant_answer=None,
        unanswered=0,
        unscorable=0,
    )
    report.draw(tmp_path / "plot.png", "title", [score])
    assert (tmp_path / "plot.png").stat().st_size > 0


@pytest.mark.parametrize("program", ["generate", "evaluate"])
def test_a_missing_config_is_one_sentence(program):
    done = subprocess.run(
        [sys.executable, "-m", f"musilingo_jax.{program}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "--config" in done.stderr
    assert "Traceback" not in done.stderr

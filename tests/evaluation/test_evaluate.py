"""Evaluation of a model: what it writes, and what happens when it is run again."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import programs
from helpers import tiny_model as tiny

from musilingo_jax.answering import corpus_answers
from musilingo_jax.answering.answer_file import AnswerFile, AskedQuestion
from musilingo_jax.answering.answerer import load_answerer
from musilingo_jax.audio.features import FeatureConfig
from musilingo_jax.corpora import mixture
from musilingo_jax.corpora.records import Record
from musilingo_jax.evaluation import report_files
from musilingo_jax.evaluation.evaluate_model import evaluate
from musilingo_jax.evaluation.evaluate_predictions import evaluate_predictions
from musilingo_jax.pretrained.model_config import ModelConfig
from musilingo_jax.runtime.errors import UserError

pytestmark = pytest.mark.medium


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A model, a corpus, and an evaluation of the one on the other."""
    folder = tmp_path_factory.mktemp("evaluate")
    tiny.save_model(folder, tiny.llama())
    corpus = tiny.save_corpus(folder / "songs", clips=8)
    config = tiny.config(folder, corpus=str(corpus))
    out, _ = evaluate(config, str(folder / "adapter"), None)
    return config, folder, out


def test_evaluation_writes_report_plot_and_answers(evaluated):
    config, folder, out = evaluated
    assert out == folder / "run/evaluation"
    assert {path.name for path in out.iterdir()} == {
        *("answers.jsonl", "examples.jsonl"),
        *("report.json", "report.md", "report.html"),
    }
    rows = [json.loads(line) for line in (out / "answers.jsonl").open(encoding="utf-8")]
    # Four test clips with three records each, asked with their own music and then with
    # that of others. Without music, each of the three questions is asked once for each
    # length, or only once.
    right = [row["clip"] == row["heard"] for row in rows[:24]]
    assert right == [True] * 12 + [False] * 12
    silent = [row["heard"] for row in rows[24:]]
    assert sum(heard.startswith("zeros:") for heard in silent) == len(silent) - 3
    assert silent.count("none") == 3
    content = json.loads((out / "report.json").read_text())
    (fact,) = [line for line in content["scores"] if line["section"] == "factual"]
    assert fact["name"] == "pitch" and not fact["beats_controls"]
    assert set(fact["gains"]) == {
        *("shuffled", "shuffled_audio", "silence", "no_audio", "constant")
    }
    kinds = {line["name"] for line in content["scores"] if line["section"] == "kind"}
    assert kinds == {"captions", "other questions", "pitch"}
    assert content["config"]["generate"]["max_new_tokens"] == 6
    assert "| pitch ✗ |" in (out / "report.md").read_text()
    examples = (out / "examples.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    first = json.loads(examples[0])
    assert len(examples) == 12 and "honest.rouge_l" in first["scores"]
    assert set(first["controls"]) == set(fact["gains"])


def test_finished_answers_are_taken_over(evaluated, monkeypatch):
    config, folder, out = evaluated
    before = (out / "report.json").read_text(), (out / "answers.jsonl").read_text()
    lines = before[1].splitlines(keepends=True)
    (out / "answers.jsonl").write_text("".join(lines[:-1]) + lines[-1][:20])
    asked = []
    answer_each = corpus_answers.answer_each

    def counted(answerer, prompt, requests, decoding):
        asked.extend(requests)
        return answer_each(answerer, prompt, requests, decoding)

    monkeypatch.setattr(corpus_answers, "answer_each", counted)
    evaluate(config, str(folder / "adapter"), None)
    assert len(asked) == 1  # The one whose line was cut.
    assert ((out / "report.json").read_text(), (out / "answers.jsonl").read_text()) == (
        before
    )


def test_answers_depend_on_adapter_and_decoding_but_not_on_batches(evaluated):
    config, folder, _ = evaluated
    adapter = str(folder / "adapter")
    identity = corpus_answers.identity(config, adapter)
    changed = config.copy_and_resolve_references()
    changed.generate.batch_size = 1
    assert corpus_answers.identity(changed, adapter) == identity
    changed.generate.seed = 5
    assert corpus_answers.identity(changed, adapter) != identity


def test_evaluation_without_a_trained_adapter_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"run/adapter: there is no trained adapter"):
        evaluate(tiny.config(tmp_path, corpus=""), None, None)


def test_another_window_than_the_adapters_is_refused(evaluated):
    config, folder, _ = evaluated
    model = dataclasses.replace(
        ModelConfig.from_config(config), adapter=str(folder / "adapter")
    )
    with pytest.raises(UserError, match=r"over 10 frames.*window_frames is 5"):
        features = FeatureConfig.from_config(config)
        load_answerer(model, dataclasses.replace(features, window_frames=5), None)


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
    assert len(corpus_answers.askable_records(config, test, ids)) == 12
    assert len(corpus_answers.askable_records(changed, test, ids)) == 8
    with pytest.raises(UserError, match="none can be asked"):
        corpus_answers.askable_records(config, test, set())


def ask(number: int) -> AskedQuestion:
    record = Record(None, f"{number}.wav", "?", "!", "test", None, None)
    return AskedQuestion(record, heard=record.clip)


def test_answers_of_other_processes_count_as_given(tmp_path):
    path = tmp_path / "answers.jsonl"
    AnswerFile(path, "m=1", process=2, processes=3).add(ask(2), "from 2 of 3")
    files = [AnswerFile(path, "m=1", process=i, processes=2) for i in range(2)]
    asks = [ask(number) for number in range(4)]
    assert [len(file.share(asks)) for file in files] == [2, 2]
    assert files[1].answer(asks[2]) == "from 2 of 3"
    files[0].add(asks[0], "from 0")
    with pytest.raises(UserError, match=r"2 of 4 answers are not here.*all processes"):
        files[0].finish(asks)
    for each in files[1].share(asks):
        files[1].add(each, "from 1")
    (tmp_path / "answers-0-of-2.jsonl").open("a").write('{"half')
    files[0].finish(asks)
    rows = [json.loads(row)["answer"] for row in path.open()]
    assert rows == ["from 0", "from 1", "from 2 of 3", "from 1"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_cut_answer_keeps_its_mark(tmp_path):
    path = tmp_path / "answers.jsonl"
    file = AnswerFile(path, "m=1")
    file.add(ask(0), "It is", is_cut=True)
    file.add(ask(1), "It is calm.")
    first, second = map(json.loads, path.open())
    assert first["cut"] is True and "cut" not in second
    again = AnswerFile(path, "m=1")
    assert (again.is_cut(ask(0)), again.is_cut(ask(1))) == (True, False)
    again.finish([ask(1), ask(0)])
    assert [json.loads(row).get("cut") for row in path.open()] == [None, True]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            b'{"clip": "\xff"}\n',
            r"answers.jsonl:1 is not an answer of this program .*utf-8",
        ),
        (
            b"[" * 100_000 + b"\n",
            r"answers.jsonl:1 is not an answer .*nested too deeply",
        ),
        (b'{"clip": 5}\n', r"answers.jsonl:1 is not an answer of this program: name"),
        (b"5\n", r"answers.jsonl:1 is not an answer of this program"),
    ],
)
def test_a_damaged_file_of_answers_is_refused_and_kept(tmp_path, content, reason):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=reason):
        AnswerFile(path, "m=1")
    assert path.read_bytes() == content


def test_a_letter_that_was_cut_by_a_kill_is_no_damage(tmp_path):
    path = tmp_path / "answers.jsonl"
    AnswerFile(path, "m=1").add(ask(0), "café")
    content = path.read_bytes()
    path.write_bytes(content + content[: content.index(b"\xc3") + 1])
    assert AnswerFile(path, "m=1").answer(ask(0)) == "café"


def test_a_named_pipe_among_the_answers_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "answers-1-of-2.jsonl")
    with pytest.raises(UserError, match="answers-1-of-2.jsonl: cannot be read"):
        AnswerFile(tmp_path / "answers.jsonl", "m=1")


def test_further_references_and_songs_of_the_training_split(tmp_path):
    """Two records of one question are each other's reference."""
    tiny.save_model(tmp_path, tiny.llama())
    corpus = tiny.save_corpus(tmp_path / "songs", clips=4)
    songs = [json.loads(row) for row in corpus.open()]
    for row in [row for row in songs if row["split"] == "test"]:
        songs.append(row | {"answer": "Another answer.", "value": row.get("value")})
        songs.append(row | {"split": "train", "start": 0.1, "end": 0.9})
    lines = [{k: v for k, v in row.items() if v is not None} for row in songs]
    corpus.write_text("".join(json.dumps(x) + "\n" for x in lines))
    config = tiny.config(tmp_path, corpus=str(corpus))
    out, scored = evaluate(config, str(tmp_path / "adapter"), None)
    assert all("Another answer." in (row.reference, *row.others) for row in scored.rows)
    content = json.loads((out / "report.json").read_text())
    assert content["not_held_out"] == len({row.clip for row in scored.rows})
    assert "answers are cut" in (out / "report.md").read_text()


def test_answers_of_another_configuration_are_refused_and_kept(evaluated, tmp_path):
    config, folder, out = evaluated
    adapter, before = str(folder / "adapter"), (out / "answers.jsonl").read_text()
    changed = config.copy_and_resolve_references()
    changed.generate.max_new_tokens = 5
    with pytest.raises(UserError, match=r"answers.jsonl holds .* differs in generate"):
        evaluate(changed, adapter, None)
    assert (out / "answers.jsonl").read_text() == before
    # So are those of another number of processes that did not finish.
    part = tmp_path / "answers-1-of-4.jsonl"
    part.write_text(before)
    with pytest.raises(UserError, match=r"answers-1-of-4.jsonl holds .* in generate"):
        evaluate(changed, adapter, tmp_path)
    assert part.read_text() == before and list(tmp_path.iterdir()) == [part]


def test_anyones_answers_are_not_reported_beside_those_of_a_model(evaluated, tmp_path):
    _, _, out = evaluated
    row = {"clip": "a", "question": "How?", "reference": "So.", "answer": "Thus."}
    path = tmp_path / "others.jsonl"
    path.write_text(json.dumps(row) + "\n")
    before = (out / "report.json").read_text()
    with pytest.raises(UserError, match=r"answers.jsonl holds the answers of another"):
        evaluate_predictions(path, out, bertscore=None, layer=None)
    assert (out / "report.json").read_text() == before


def test_a_model_of_bertscore_that_cannot_be_used_is_refused_first(tmp_path):
    row = {"clip": "a", "question": "How?", "reference": "So.", "answer": "Thus."}
    path, out = tmp_path / "others.jsonl", tmp_path / "out"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match="--bertscore=no/such: "):
        evaluate_predictions(path, out, bertscore="no/such", layer=None)
    assert not out.exists()


def test_a_model_that_cannot_answer_so_is_refused_first(evaluated):
    config, folder, _ = evaluated
    changed = config.copy_and_resolve_references()
    changed.generate.max_new_tokens = 3_000_000
    with pytest.raises(UserError, match="generate.max_new_tokens is 3000000, .* 2048"):
        evaluate(changed, str(folder / "adapter"), None)


def test_a_report_without_room_keeps_the_answers(evaluated, monkeypatch):
    config, folder, out = evaluated

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report_files, "write_text", full)
    with pytest.raises(UserError, match="report cannot be written .No space.*are kept"):
        evaluate(config, str(folder / "adapter"), None)
    assert (out / "answers.jsonl").exists()


def in_two_processes(config, program: str, *arguments: str) -> None:
    """Runs `python -m musilingo_jax.<program>` as two processes of one CPU each."""
    path = Path(config.run).parent / f"{program}_config.py"
    path.write_text(
        "import json\nfrom ml_collections import ConfigDict\n"
        "def get_config(arg=''):\n"
        f"    return ConfigDict(json.loads({config.to_json()!r}))\n"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", f"musilingo_jax.{program}", f"--config={path}"),
        *(f"--coordinator=127.0.0.1:{port}", "--processes=2", *arguments),
    ]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    both = [
        subprocess.Popen(
            [*command, f"--process={process}"],
            env=environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for process in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors


@pytest.mark.slow
def test_two_processes_answer_as_one_does(evaluated, tmp_path):
    """Each answers its share; report and answers are those of a single process."""
    config, folder, out = evaluated
    flags = f"--adapter={folder / 'adapter'}", f"--out={tmp_path / 'out'}"
    in_two_processes(config, "evaluate", *flags)
    for name in ("answers.jsonl", "examples.jsonl", "report.md"):
        assert (tmp_path / "out" / name).read_text() == (out / name).read_text(), name
    assert len(list((tmp_path / "out").glob("answers*"))) == 1


def test_two_processes_generate_one_file_and_resume_what_three_began(
    evaluated, tmp_path
):
    config, folder, out = evaluated
    rows = [json.loads(row) for row in (out / "answers.jsonl").open(encoding="utf-8")]
    expected = rows[:12]  # With the clip's own music.
    expected[4]["answer"] = "by the third of three"
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in expected]
    (tmp_path / "two-2-of-3.jsonl").write_text(lines[4] + lines[7][:30])
    flags = f"--adapter={folder / 'adapter'}", f"--out={tmp_path / 'two.jsonl'}"
    in_two_processes(config, "generate", *flags)
    assert (tmp_path / "two.jsonl").read_text(encoding="utf-8") == "".join(lines)
    assert [path.name for path in tmp_path.iterdir()] == ["two.jsonl"]


@pytest.mark.parametrize("program", ["generate", "evaluate"])
def test_a_missing_config_is_one_sentence(program):
    done = programs.run(program)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "--config" in done.stderr
    assert "Traceback" not in done.stderr

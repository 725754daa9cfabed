"""Scoring a file of answers: its format, the scores, and what is refused."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import programs
from hypothesis import given, settings
from hypothesis import strategies as st

from musilingo_jax.evaluation import foreign_keys, predictions, report_data
from musilingo_jax.evaluation.evaluate_predictions import evaluate_predictions
from musilingo_jax.runtime.errors import UsageError, UserError

pytestmark = pytest.mark.medium

LEGACY = {"bleu", "bleu4", "meteor", "rouge_l", "bertscore"}
HONEST = {"bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "meteor", "bertscore"}
HONEST |= {"distinct1", "distinct2", "length"}
FACTUAL = {"key", "key_exact", "tempo_acc1", "tempo_acc2", "instruments", "genre"}
FACTUAL |= {"multiple_choice"}
FACTUAL |= {f"{name}_published" for name in FACTUAL - {"key_exact"}}


def line(clip, answer, **more):
    return {
        "clip": clip,
        "question": "Describe the music.",
        "reference": f"A calm piano piece number {clip}.",
        "answer": answer,
    } | more


def write(path: Path, lines) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
    return path


def score(path, out=None):
    return evaluate_predictions(path, out, bertscore=None, layer=None)


def names(section):
    """Its scores, each a number or null with a reason."""
    scores = {name for name in section if not name.endswith("_reason")}
    for name in scores:
        number = section[name]
        assert number is None or 0 <= number <= (100 if name != "length" else 1e6)
        assert (number is None) == bool(section.get(f"{name}_reason")), name
    return scores


def test_the_program_writes_the_scores_without_a_config(tmp_path):
    rows = [line(str(i), f"A calm piano piece number {i}.") for i in range(8)]
    path = write(tmp_path / "answers.jsonl", rows)
    done = programs.run(
        "evaluate",
        f"--predictions={path}",
        f"--json={tmp_path / 'out/scores.json'}",
        f"--out={tmp_path / 'report'}",
    )
    assert done.returncode == 0, done.stderr
    assert "## Wording of all answers: legacy" in done.stdout
    content = json.loads((tmp_path / "out/scores.json").read_text())
    sections = ["legacy", "honest", "factual", "controls"]
    assert list(content) == [*sections, "n", "inferred", "repeated"]
    assert (content["n"], content["inferred"], content["repeated"]) == (8, {}, 0)
    assert set(content["controls"]) == {"shuffled", "constant"}
    for scores in (content, *content["controls"].values()):
        assert names(scores["legacy"]) == LEGACY
        assert names(scores["honest"]) == HONEST
        assert names(scores["factual"]) == FACTUAL
    assert content["legacy"]["bleu"] == content["legacy"]["rouge_l"] == 100
    assert content["honest"]["bleu4"] == pytest.approx(100)
    # All words but the number are the same for all clips.
    shuffled = content["controls"]["shuffled"]["honest"]["rouge_l"]
    assert shuffled == pytest.approx(100 * 5 / 6)
    written = {path.name for path in (tmp_path / "report").iterdir()}
    assert written == {"report.md", "report.json", "report.html", "examples.jsonl"}


def test_facts_by_attribute_and_by_question(tmp_path):
    rows = []
    for i in range(8):
        rows += [
            line(f"{i}", "in G major", attribute="key", value="C major"),
            line(f"{i}", "about 60", attribute="tempo", value=120),
            line(f"{i}", "Pianos, no drums.", attribute="instruments", value="piano"),
            line(f"{i}", "ROCK", attribute="genre", value="Rock"),
            line(f"{i}", "(B)" if i else "?", options=["x", "y"], value="y"),
            line(f"{i}", "calm", attribute="mood", value="calm"),
            # Without an attribute: inferred from the reference.
            line(f"{i}", "C major", question="Which key?", reference="It is C major."),
            line(f"{i}", "120", question="The tempo?", reference="It is 120 BPM."),
        ]
    _, scored = score(write(tmp_path / "answers.jsonl", rows))
    factual = report_data.summary(scored)["factual"]
    assert factual == {
        "key": pytest.approx(75),  # A fifth for half of the rows, right for the others.
        "key_exact": 50,
        "key_published": pytest.approx(75),
        "tempo_acc1": 50,
        "tempo_acc2": 100,
        "tempo_acc1_published": 50,
        "tempo_acc2_published": 100,
        "instruments": 100,
        "instruments_published": 0,  # The whole sentence is ignored.
        "genre": 100,
        "genre_published": 100,
        "multiple_choice": 87.5,
        "multiple_choice_unanswered": 12.5,
        "multiple_choice_published": 87.5,
        "mood": 100,
    }


def test_an_answer_for_every_clip_does_not_beat_its_shuffle(tmp_path):
    rows = [
        line(str(i), value, attribute="tempo", value=value)
        for i, value in enumerate(["slow", "fast"] * 10)
    ]
    text, scored = score(write(tmp_path / "right.jsonl", rows))
    (tempo,) = [x for x in scored.lines if x.section == "factual"]
    assert tempo.own.value == 1 and tempo.own.low > 0.8 and tempo.beats_controls
    assert tempo.gains["shuffled"].low > 0.2 and "this comes from the music" in text
    constant = [row | {"answer": "slow"} for row in rows]
    text, scored = score(write(tmp_path / "constant.jsonl", constant))
    (tempo,) = [x for x in scored.lines if x.section == "factual"]
    assert tempo.own.value == tempo.controls["shuffled"].value == 0.5
    assert tempo.gains["shuffled"].value == 0 and not tempo.beats_controls
    assert "| tempo ✗ |" in text and "no sign that this comes from the music" in text


def test_nasty_answers_are_scored_in_time(tmp_path):
    nasty = ["", " ", "🎹" * 3, "word " * 5000, "a\u2028b\nc", "\0", "静かな曲"]
    nasty.append("|*$_`<b>")
    rows = [line(f"c{i}", answer) for i, answer in enumerate(nasty)]
    rows += [line("c1", "x", reference=""), line("c2", "x", reference="🎹" * 5000)]
    rows += [line("c3", "other " * 5000, reference="word " * 5000, question="$a$ <b>")]
    rows += [line("c4", "9" * 5000, attribute="tempo", value="120")]
    rows += [line("c5", "a " * 5000, attribute="key", value="C major")]
    start = time.process_time()
    text, scored = score(write(tmp_path / "nasty.jsonl", rows), tmp_path / "report")
    assert time.process_time() - start < 20
    content = report_data.summary(scored)
    json.dumps(content, allow_nan=False)
    assert names(content["honest"]) == HONEST
    page = (tmp_path / "report/report.html").read_text(encoding="utf-8")
    assert "<b>" in page and "|*$_`&lt;b&gt;" in page
    examples = (tmp_path / "report/examples.jsonl").read_text(encoding="utf-8")
    # Not splitlines: the answers contain other line separators.
    assert len(examples.split("\n")[:-1]) == len(rows)


def test_lines_of_one_clip_alone_have_no_controls(tmp_path):
    text, scored = score(write(tmp_path / "one.jsonl", [line("a", "A song.")]))
    content = report_data.summary(scored)
    assert content["controls"]["shuffled"]["legacy"]["bleu"] is None
    assert "other clips" in content["controls"]["shuffled"]["legacy"]["bleu_reason"]
    assert names(content["controls"]["constant"]["honest"]) == HONEST
    assert "no control to compare with" in text


@pytest.mark.parametrize(
    ("question", "reference", "attribute", "value"),
    [
        ("What is the key?", "It is F# minor.", "key", "Gb minor"),
        ("In which musical key is it?", "Eb major", "key", "Eb major"),
        ("What's the key of this song?", "In C major.", "key", "C major"),
        ("Which key signature does it have?", "A minor", "key", "A minor"),
        ("What is the key element of this piece?", "It is in A major.", None, None),
        ("What is the key element?", "A major element is the drums.", None, None),
        ("What is the key?", "A major element is the drums.", None, None),
        ("What are the key features?", "It has a minor-key feel", None, None),
        ("What is the key?", "It has a minor-key feel", None, None),
        ("What is the key?", "C major, later G major.", None, None),
        ("Why does the key change?", "C major is boring.", None, None),
        ("What is the tempo?", "It is in 4/4 time at 120 BPM.", "tempo", "120"),
        ("How many BPM?", "97.5", "tempo", "97.5"),
        ("Is the tempo fast or slow?", "It has 2 sections, both slow.", None, None),
        ("How is the tempo?", "A typical 80s ballad, slow.", None, None),
        ("How many parts have a slow tempo?", "3", None, None),
        ("What is the tempo?", "It goes from 90 to 120 BPM.", None, None),
        ("How long is it?", "At 120 BPM, a minute.", None, None),
    ],
)
def test_truths_are_inferred_only_where_they_are_stated(
    tmp_path, question, reference, attribute, value
):
    asked = line("a", "x", question=question, reference=reference)
    (row,) = predictions.read(write(tmp_path / "a.jsonl", [asked]))
    assert (row.attribute, row.value) == (attribute, value)
    assert row.inferred == (attribute is not None)


def test_inferred_truths_and_repeated_questions_are_counted(tmp_path, capsys):
    key = {"question": "Which key?", "reference": "It is C major."}
    tempo = {"question": "The tempo?", "reference": "It is 120 BPM."}
    rows = [line(str(i), "120, C major", **key) for i in range(7)]
    rows += [line(str(i), "120", **tempo) for i in range(3)]
    rows += [line("0", "again", **tempo), line("0", "and again", **tempo)]
    rows.append(line("9", "x", attribute="key", value="C major", question="Which key?"))
    path = write(tmp_path / "a.jsonl", rows)
    text, scored = score(path, tmp_path / "report")
    content = json.loads((tmp_path / "report/report.json").read_text())
    for numbers in (report_data.summary(scored), content):
        assert numbers["inferred"] == {"key": 7, "tempo": 5}
        assert numbers["repeated"] == 2
    inferred = "attribute and value of 12 answers are inferred"
    printed = capsys.readouterr().err
    for notes in (text, printed):
        assert f"{inferred} from question and reference (key 7, tempo 5)" in notes
        assert "2 answers have the clip and the question of an earlier one" in notes
    assert f"{path}: {inferred}" in printed
    # A clip has many questions, and a question many clips.
    write(path, [line("0", "x"), line("1", "x"), line("0", "x", question="Why?")])
    assert score(path)[1].rows and "**Note:**" not in score(path)[0]
    assert "earlier one" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("12345678", "12345678"),
        ("120.0", "120"),
        ("97.123456789", "97.123456789"),
        ("1e300", "1e+300"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
    ],
)
def test_numbers_are_values_as_they_are_written(tmp_path, number, text):
    path = tmp_path / "a.jsonl"
    content = json.dumps(line("a", "x", attribute="bars", value=0))
    path.write_text(content.replace('"value": 0', f'"value": {number}'))
    assert predictions.read(path)[0].value == text


def test_attributes_that_look_like_formulas_or_other_kinds_are_reported(tmp_path):
    names = ("a$x^{$", "multiple choice", "captions", "other questions", "“?”")
    rows = [
        line(str(i), "calm", attribute=name, value=("calm", "wild")[i % 2])
        for i in range(4)
        for name in names
    ]
    rows += [line(str(i), "B", options=["x", "y"], value="B") for i in range(4)]
    rows += [line(str(i), "?", question=question) for i in range(4) for question in "?"]
    rows += [line(str(i), "A song.", question="") for i in range(4)]
    _, scored = score(write(tmp_path / "a.jsonl", rows), tmp_path / "report")
    kinds = [x.name for x in scored.lines if x.section == "kind"]
    assert len(kinds) == len(set(kinds)) == len(names) + 3
    assert all(x.rows == 4 for x in scored.lines if x.section == "kind")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r":1: is not JSON"),
        ('\n{"clip": ' + "9" * 5000 + "}", r":2: is not JSON"),
        ("[" * 100_000, r"nested too deeply"),
        (json.dumps(line("a", "a \ud800 b")), r":1: 'a \\ud800 b' contains half of"),
        (json.dumps(line("a", "x", options=["\udfff"], value="A")), r":1: .*half of"),
        (json.dumps(line("a", "x", attribute="a", value=np.inf)), r"a finite number"),
        (json.dumps(line("a", "x", attribute="", value="b")), r"belong together"),
        (json.dumps(line("a", "x", options=["p", " "])), r":1: option B is empty"),
        (
            json.dumps(line("a", "x", options=["b", "C"])),
            r"option A is 'b', the letter",
        ),
        (json.dumps(line("a", "x", options=["p"] * 27)), r"has 27 options"),
        ("\n[1]", r":2: is not a JSON object but a number"),
        ('{"clip": "a"}', r":1 lacks question, reference, answer"),
        (json.dumps(line("a", None)), r":1: answer must be text, not None"),
        (json.dumps(line("", "x")), r":1: clip is empty"),
        (json.dumps(line("a", "x", attribute="key")), r":1: .*belong together"),
        (json.dumps(line("a", "x", options=["p", "q"])), r":1: none of the options is"),
        (json.dumps(line("a", "x", options="pq")), r":1: options must be a list"),
        (json.dumps(line("a", "x", attribute=1, value=[])), r"must be text"),
        ("", r"has no lines"),
        ("\n \n", r"has no lines"),
    ],
)
def test_bad_lines_are_refused_with_their_number(tmp_path, text, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        predictions.read(path)


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        predictions.read(tmp_path / "none.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"clip": "\xe9"}')
    with pytest.raises(UserError, match="cannot be read as UTF-8 text"):
        predictions.read(tmp_path / "latin.jsonl")


def test_numbered_clips_and_a_byte_order_mark_are_read(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text("\ufeff" + json.dumps(line(7, "x")) + "\r\n", encoding="utf-8")
    (row,) = predictions.read(path)
    assert (row.clip, row.attribute, row.options) == ("7", None, ())


KEY = "Estimate the musical key of the given audio. C major, G minor, …"
FOREIGN = [
    (
        [
            {"question": KEY, "response": "D major.", "correct_answer": "D major"}
            | {"audioid": "/data/1.wav", "other": ""}
        ],
        "read audioid as clip, correct_answer as reference, response as answer.",
        ("/data/1.wav", "D major", "D major."),
    ),
    (
        [
            {"id": "q7", "audio_id": "./x/1.wav", "question": KEY, "task": "music"}
            | {"choices": ["C major", "D major"], "answer": "D major"}
            | {"model_output": "(B)"}
        ],
        "read audio_id as clip, answer as reference, model_output as answer, choices",
        ("./x/1.wav", "D major", "(B)"),
    ),
    (
        [
            {"id": 5, "prompt": KEY, "answers": ["x", "y", "z"], "audio_path": "a.mp3"}
            | {"answer_orders": [2, 0, 1], "model_output": "(B)"}
        ],
        "read audio_path as clip, prompt as question, model_output as answer.",
        ("a.mp3", "y", "(B)"),
    ),
    (
        [{"path": "a.wav", "question": KEY, "answer_gt": "x", "response": "A"}
         | {"choice_a": "x", "choice_b": "y", "choice_c": "", "choice_d": None}],
        "read path as clip, answer_gt as reference, response as answer.",
        ("a.wav", "x", "A"),
    ),
    (
        [{"audio_id": "a", "prompt": "?", "ref": "x", "pred": "y"}],
        "read audio_id as clip, prompt as question, ref as reference, pred as answer.",
        ("a", "x", "y"),
    ),
]  # fmt: skip


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@pytest.mark.parametrize(("rows", "told", "texts"), FOREIGN)
def test_outputs_of_other_projects_are_read(tmp_path, capsys, name, rows, told, texts):
    path = tmp_path / name
    for text in (json.dumps(rows, indent=4), "\n".join(map(json.dumps, rows))):
        path.write_text(text)
        (row,) = predictions.read(path)
        assert (row.clip, row.reference, row.answer) == texts
        assert f"{path}: {told}" in capsys.readouterr().err
    text, _ = score(path)
    assert "**Note:** read " in text


def test_options_of_other_projects(tmp_path):
    path = tmp_path / "a.json"
    for rows, _, _ in FOREIGN[1:4]:
        path.write_text(json.dumps(rows))
        _, scored = score(path)
        factual = report_data.summary(scored)["factual"]
        assert factual["multiple_choice"] == 100
    asked = line("a", "B", options={"A": "x", "B": "y"}, value="y")
    (row,) = predictions.read(write(tmp_path / "a.jsonl", [asked]))
    assert row.options == ("x", "y")


def test_tables_of_answers(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "audio_id,question,correct_answer,model_output,choices\n"
        "a.wav,Which?,y,\"B, the second\",\"['x', 'y']\"\n"
        "b.wav,Which?,y,,\n"
    )
    first, second = predictions.read(path)
    assert first.options == ("x", "y") and first.answer == "B, the second"
    assert second.options == () and second.answer == ""


def test_keys_can_be_named(tmp_path, capsys):
    row = {"song": "a.mp3", "q": "?", "truth": "x", "said": "y", "answer": "z"}
    path = write(tmp_path / "a.jsonl", [row])
    reason = r":1 lacks question, reference; it has the keys song, q, truth, said, ans"
    with pytest.raises(UserError, match=reason + r".*--predictions_keys=question=KEY"):
        predictions.read(path)
    keys = foreign_keys.parse(["question=q", "reference=truth", "answer=said"])
    (read,) = predictions.read(path, keys)
    assert (read.clip, read.question, read.reference, read.answer) == (
        *("a.mp3", "?", "x", "y"),
    )
    assert "read song as clip, q as question, truth as ref" in capsys.readouterr().err
    (read,) = predictions.read(path, keys | {"question": ""})
    assert read.question == ""
    with pytest.raises(UserError, match="no key 'no', which --predictions_keys names"):
        predictions.read(path, {"answer": "no"})
    for wrong in (["answer"], ["anwser=x"], ["answer="]):
        with pytest.raises(UsageError, match="--predictions_keys"):
            foreign_keys.parse(wrong)


def test_a_row_that_lacks_a_key_of_the_first_is_refused(tmp_path):
    rows = [line("a", "x"), {"clip": "b", "question": "?", "answer": "x"}]
    with pytest.raises(UserError, match=r":2 lacks reference; it has the keys clip"):
        predictions.read(write(tmp_path / "a.jsonl", rows))


def test_the_program_reads_other_keys(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"song": "a", "q": "?", "gt": "x", "out": "x"}])
    flag = "--predictions_keys=question=q,answer=out"
    done = programs.run("evaluate", f"--predictions={path}", flag)
    assert done.returncode == 0, done.stderr
    done = programs.run("evaluate", "--config=tiny", flag)
    assert done.returncode == 2 and "--predictions_keys are those of" in done.stderr


@pytest.mark.parametrize(
    ("question", "reference", "value"),
    [
        (KEY, "D major", "D major"),
        ("Predict the key of this song", "Am", "A minor"),
        ("Detect the key signature, please.", "F#:min", "Gb minor"),
        ("Please tell me which musical key it is in.", "Eb", "Eb major"),
        ("Musical key estimation", "8A", "A minor"),
        ("What is the tonality?", "fis-Moll", "Gb minor"),
        ("Is it in a major or minor key?", "It is in A minor.", None),
        ("Is the key A minor?", "Yes, A minor.", None),
        ("Is it in a minor key?", "A minor", None),
        ("What are the key instruments in the A minor song?", "A minor piano", None),
        ("What is the key to its success?", "The A minor melody.", None),
    ],
)
def test_a_key_question_in_other_words(tmp_path, question, reference, value):
    asked = line("a", "x", question=question, reference=reference)
    (row,) = predictions.read(write(tmp_path / "a.jsonl", [asked]))
    assert row.value == value


def test_several_references_count_all(tmp_path):
    question = {"question": "What is the key?"}
    rows = [
        line(
            str(i),
            "It is in A minor.",
            reference=["Am", "It is in A minor."],
            **question,
        )
        for i in range(8)
    ]
    _, scored = score(write(tmp_path / "a.jsonl", rows))
    content = report_data.summary(scored)
    assert content["inferred"] == {"key": 8}
    assert content["honest"]["rouge_l"] == 100
    assert content["honest"]["bleu4"] == pytest.approx(100)
    # As published: the first alone.
    assert content["legacy"]["rouge_l"] < 50
    rows = [line("a", "x", reference=["Am", "G major"], **question)]
    (row,) = predictions.read(write(tmp_path / "a.jsonl", rows))
    assert row.attribute is None and row.others == ("G major",)
    for wrong, reason in (([], "an empty list"), ([None], "reference must be text")):
        path = write(tmp_path / "a.jsonl", [line("a", "x", reference=wrong)])
        with pytest.raises(UserError, match=reason):
            predictions.read(path)


def test_what_cannot_be_right_is_told(tmp_path, capsys):
    same = {"question": "How fast?", "attribute": "t"}
    rows = [
        line("a", "x", value="fast", **same),
        line("a", "x", value="slow", **same),
        line("b", "x", question="What is it?", reference="what is it"),
        line("c", "x", attribute="key", value="F#m", question="Key?"),
        line("c", "x", attribute="key", value="Gb minor", question="Key?"),
    ]
    path = write(tmp_path / "a.jsonl", rows)
    predictions.read(path)
    told = capsys.readouterr().err
    assert "1 lines give another value than an earlier line" in told
    assert f"{path}:1 and {path}:2" in told
    assert f"1 references repeat their question, the first {path}:3" in told
    path.write_text('{"clip": "a", "clip": "b"}\n')
    with pytest.raises(UserError, match=r":1: .* the key 'clip' twice"):
        predictions.read(path)


def test_clips_are_told_apart_by_their_whole_name(tmp_path):
    names = [f"{i}.mp3" for i in range(20)]
    names += [f"{name}\0" for name in names]
    rows = [line(name, "slow", attribute="t", value="slow") for name in names]
    rows[3]["clip"] = "x" * 3_000_000
    text, scored = score(write(tmp_path / "a.jsonl", rows))
    assert "40 answers about 40 clips" in text
    (found,) = [x for x in scored.lines if x.section == "factual"]
    assert found.clips == 40 and found.own.value == 1
    # The same name in two Unicode forms is one clip.
    rows = [line("Caf\u00e9", "x"), line("Cafe\u0301", "x", question="?")]
    assert (
        len({row.clip for row in predictions.read(write(tmp_path / "a.jsonl", rows))})
        == 1
    )


def test_escape_sequences_of_others_are_not_printed(tmp_path):
    evil = "\x1b]0;pwned\x07"
    rows = [line(str(i), "calm", attribute=evil, value="calm") for i in range(3)]
    path = write(tmp_path / "a.jsonl", rows)
    done = programs.run("evaluate", f"--predictions={path}", f"--out={tmp_path / 'r'}")
    assert done.returncode == 0, done.stderr
    assert "pwned" in done.stdout
    for text in (done.stdout, done.stderr, (tmp_path / "r/report.md").read_text()):
        assert "\x1b" not in text and "\x07" not in text


def test_cut_answers_are_counted(tmp_path):
    rows = [line("a", "It is", cut=True), line("b", "It is calm.")]
    text, _ = score(write(tmp_path / "a.jsonl", rows), tmp_path / "r")
    assert "1 answers are cut" in text
    first, second = map(json.loads, (tmp_path / "r/examples.jsonl").open())
    assert first["cut"] is True and "cut" not in second


@given(
    st.lists(
        st.fixed_dictionaries(
            {name: st.text(max_size=20) for name in ("question", "reference", "answer")}
            | {"clip": st.text(min_size=1, max_size=3)},
            optional={
                "attribute": st.sampled_from(
                    ["key", "tempo", "genre", "instruments", "m"]
                ),
                "value": st.text(max_size=8),
                "options": st.lists(st.text(max_size=5), max_size=4),
                "cut": st.booleans(),
            },
        ),
        max_size=5,
    )
)
@settings(deadline=None, max_examples=60)
def test_no_rows_break_the_scores(tmp_path_factory, rows):
    path = write(tmp_path_factory.getbasetemp() / "any.jsonl", rows)
    try:
        _, scored = score(path)
    except UserError as error:
        assert str(path) in str(error)
    else:
        json.dumps(report_data.summary(scored), allow_nan=False)

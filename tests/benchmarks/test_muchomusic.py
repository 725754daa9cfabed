"""MuChoMusic: its table, its rule, its scorer's file; and what all benchmarks share."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import soundfile
from helpers import benchmark_runs
from helpers.benchmark_runs import percent, report, run
from helpers.fake_ears import NOISE, NOTHING, SILENCE, FakeEars

from musilingo_jax import benchmark
from musilingo_jax.benchmarks import asking, muchomusic
from musilingo_jax.benchmarks.item import Item, Reading
from musilingo_jax.corpora.clips import Wanted
from musilingo_jax.runtime.errors import UsageError, UserError

COLUMNS = [
    *("question_id", "question", "correct_answer", "distractor_1_answer"),
    *("distractor_2_answer", "distractor_3_answer", "dataset", "dataset_identifier"),
    *("num_annotations", "genre", "music_knowledge", "music_reasoning"),
    "odd_question",
]
# Which song a question is about, its answers (the right one first), its groups.
QUESTIONS = (
    ("1", "Which one leads?", "Piano", ["melody"], []),
    ("1", "Which one rests?", "Flute", ["melody", "texture"], ["mood"]),
    ("2", "Which one leads?", "Drums", [], ["mood"]),
    ("abc_x", "Which one leads?", "Organ", [], []),
)
OTHERS = ("Bells", "Choir", "Alphorn")
# What the published rule chooses; written by hand, letter by letter.
OPTIONS = ("Piano", "Electric guitar", "Drums", "Guitar")
CHOSEN = [
    ("A", 0),
    ("B", 1),
    ("(C)", 2),
    ("D.", 3),
    ("A)", 0),
    ("BB", 1),
    ("b", None),
    ("E", None),
    ("", None),
    ("The correct answer is: B", 1),
    ("The correct answer is B", 1),
    ("the correct answer is: B", 1),
    ("The correct answer is:", None),
    ("The correct answer is: A The correct answer is: C", 2),
    ("The correct answer is: (B) drums", 1),
    ("The correct answer is: (B) Drums", 2),  # B and D: two letters, so the text.
    ("A or B", None),
    ("A or B: drums", 2),
    ("C\nA", None),
    ("ABCD", None),
    ("Not A", 0),
    ("Both A and B, so A", None),
    ("Option C", 2),
    ("Choice: A", None),  # C and A
    ("Answer: B", None),  # A and B
    ("Answer: the piano", 0),
    ("piano", 0),
    ("Piano", 0),
    ("pianos", 0),
    ("no piano", 0),
    ("PIANO", 0),
    ("drums", 2),
    ("Drums", 3),  # D
    ("DRUMS", 3),
    ("I hear Drums.", 3),
    ("Electric Drums", 3),
    ("guitar", 3),
    ("Guitar", 3),
    ("GUITAR", 0),  # A
    ("bass guitar", 3),
    ("electric guitar", 1),
    ("Electric guitar", 1),
    ("electric guitar and drums", 1),
    ("drums and piano", 0),
    ("It is A calm song", 0),
    ("By drums", 1),
    ("Certainly drums", 2),
    ("Definitely the piano", 3),
    ("120 BPM", 1),
    ("A minor", 0),
    ("C# minor", 2),
    ("(b) electric guitar", 1),
    ("Ä", None),
]


@pytest.mark.parametrize(("answer", "option"), CHOSEN)
@pytest.mark.parametrize("right", range(4))
def test_the_published_rule(answer, option, right):
    order = [1, 2, 3]
    order.insert(right, 0)
    item = Item(
        "0", Wanted(("x",)), "?", "", options=OPTIONS, about={"answer_orders": order}
    )
    found = muchomusic.BENCHMARK.published([item, item], [answer, None])
    assert found["published"].tolist()[0] == (option == right)
    assert found["published_answered"].tolist()[0] == (option is not None)
    assert str(found["published"][1]) == "nan"


def write_table(folder, questions=QUESTIONS, **changes):
    """`changes` are cells of the first row."""
    with (folder / "muchomusic.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for number, (song, question, right, *groups) in enumerate(questions):
            distractors = dict(zip(COLUMNS[3:6], OTHERS, strict=True))
            writer.writerow(
                {
                    "question_id": number,
                    "question": question,
                    "correct_answer": right,
                    **distractors,
                    "dataset": "sdd" if song.isdecimal() else "musiccaps",
                    "dataset_identifier": f"{song}.json",
                    "num_annotations": 3,
                    "genre": "Pop",
                    "music_knowledge": repr(groups[0]) if groups[0] else "",
                    "music_reasoning": repr(groups[1]) if groups[1] else "",
                    "odd_question": 0,
                }
                | (changes if number == 0 else {})
            )
    return folder / "muchomusic.csv"


@pytest.fixture
def files(tmp_path):
    audio = tmp_path / "audio"
    benchmark_runs.sing(audio, "00/1.2min.wav", "00/2.2min.wav", "abc.wav")
    return write_table(tmp_path), audio, tmp_path / "out"


RIGHT = {("1", "leads"): "piano", ("1", "rests"): "flute", ("2", "leads"): "Drums"}


def say(heard, question):
    """Knows songs 1 and 2; of the third it says a letter that is no letter."""
    asked = question.rpartition("Question: Which one ")[2].split("?")[0]
    if (str(heard), asked) in RIGHT:
        return RIGHT[str(heard), asked]
    return "Organ…" if heard == 3 else "bells"


LIKES = {1: ("Piano", "Flute"), 2: ("Drums",), 3: ("Bells",), NOISE: ("Bells",)}


@pytest.fixture
def ears(monkeypatch):
    return benchmark_runs.pretend(monkeypatch, FakeEars(say, LIKES))


def test_the_table_becomes_questions(tmp_path):
    path = write_table(tmp_path)
    (tmp_path / "musiccaps-public.csv").write_text("ytid,start_s,end_s\nabc,30,40\n")
    items = muchomusic.BENCHMARK.read(path, Reading(seed=0, shuffles=2))
    assert [item.id for item in items] == [f"{n}/{s}" for n in range(4) for s in (0, 1)]
    first, again = items[:2]
    assert sorted(first.options) == sorted(("Piano", *OTHERS)) == sorted(again.options)
    assert len({item.options for item in items if item.about["shuffle"]}) > 1
    about = first.about
    originals = ("Piano", *OTHERS)
    assert [originals[place] for place in about["answer_orders"]] == about["answers"]
    assert (about["id"], items[-1].about["id"]) == (1, "abc")
    letters = "".join(f"({a}) {b} " for a, b in zip("ABCD", first.options, strict=True))
    assert first.question.endswith(
        "The correct answer is: A\n Question: Which one leads?\n Options: "
        f"{letters}\n The correct answer is: "
    )
    assert first.sound.names == ("1.2min", "1")
    assert items[-1].sound.names[1] == "[abc]-[30-40]"
    assert [item.groups for item in items[::2]] == [
        ("knowledge",),
        ("knowledge", "reasoning"),
        ("reasoning",),
        (),
    ]
    # The order of one question does not depend on the others.
    fewer = muchomusic.BENCHMARK.read(
        write_table(tmp_path, QUESTIONS[:1]), Reading(seed=0, shuffles=1)
    )
    assert fewer == items[:1]
    other = muchomusic.BENCHMARK.read(path, Reading(seed=5, shuffles=2))
    assert other[0].options != first.options or other[1].options != again.options


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"correct_answer": " "}, r"muchomusic.csv:2: an option is empty"),
        ({"dataset": "fma"}, r"csv:2: 'fma' and '1' name no track"),
        ({"dataset_identifier": "x.json"}, r"'sdd' and 'x' name no track"),
        ({"music_reasoning": "mood"}, r"music_reasoning: 'mood' is not a list of"),
        ({"music_knowledge": "[1]"}, r"music_knowledge: '\[1\]' is not a list"),
    ],
)
def test_a_damaged_table_is_refused_in_a_sentence(tmp_path, changes, message):
    path = write_table(tmp_path, **changes)
    with pytest.raises(UserError, match=message):
        muchomusic.BENCHMARK.read(path, Reading(0, 1))


def test_other_files_are_refused(files, tmp_path):
    _, audio, out = files
    with pytest.raises(
        UserError, match=r"--data=.*none: there is no such file: name mu"
    ):
        run("muchomusic", tmp_path / "none", audio, out)
    with pytest.raises(UserError, match=r"there is no muchomusic.csv in it"):
        run("muchomusic", audio, audio, out)
    (tmp_path / "muchomusic.csv").write_text("question,genre\n")
    with pytest.raises(
        UserError, match=r"csv:1: there is no column correct_answer, di"
    ):
        run("muchomusic", tmp_path, audio, out)
    write_table(tmp_path, ())
    with pytest.raises(
        UserError, match=r"has no questions: name muchomusic.csv or its"
    ):
        run("muchomusic", tmp_path, audio, out)
    with pytest.raises(UserError, match="there is no such folder with audio files"):
        run("muchomusic", write_table(tmp_path), tmp_path / "none", out)


def test_scores_by_three_rules_and_controls(files, ears, capsys):
    data, audio, out = files
    run("muchomusic", data, audio, out)
    # “Drums” and “Organ” begin with no letter, or with D, which is what it chooses.
    options = {
        item.id: item.options for item in muchomusic.BENCHMARK.read(data, Reading(0, 1))
    }
    by_letter = options["2/0"][3] == "Drums"
    assert percent(out, "accuracy, published rule") == 75 + 25 * by_letter
    assert percent(out, "answered (IFR), published rule") == 100
    assert percent(out, "accuracy, answers as read") == 100
    assert percent(out, "accuracy, by likelihood") == 75
    assert percent(out, "accuracy, answers as read", group="knowledge") == 100
    assert percent(out, "accuracy, by likelihood", group="knowledge") == 100
    for system in asking.CONTROLS[1:]:
        assert percent(out, "accuracy, answers as read", system) == 0
        assert percent(out, "answered, as read", system) == 100
    assert percent(out, "accuracy, by likelihood", NOISE) == 0
    assert {heard for heard, _ in ears.asked} == {1, 2, 3, NOISE, SILENCE, NOTHING}
    assert sorted(ears.heard) == [1, 2, 3]  # Each song once, as another one, too.
    page = (out / "report.md").read_text()
    assert "4 of 4 questions." in page
    assert "| MusiLingo | accuracy, published rule | 21.1 | Weck" in page
    assert "| **this model** | accuracy, published rule |" in page
    # With so few songs nothing is significant, and that it answers is no evidence.
    assert "| accuracy, answers as read ✗ |" in page
    assert "| answered, as read |" in page
    assert "1 answers were cut" in page
    told = capsys.readouterr().out
    assert "100.0 %  accuracy, answers as read\n" in told


def test_what_is_odd_about_a_song_is_told(files, ears):
    data, audio, out = files
    soundfile.write(audio / "00/1.2min.wav", np.zeros(8000), 8000)
    run("muchomusic", data, audio, out, "--controls=off")
    assert report(out)["notices"] == ["00/1.2min.wav is silent"]
    assert "- 00/1.2min.wav is silent" in (out / "report.md").read_text()


def test_likelihood_is_read_without_options_and_once_for_all_orders(files, ears):
    data, audio, out = files
    run("muchomusic", data, audio, out, "--shuffles=3", "--controls=off")
    asked = [question for heard, question in ears.asked if heard == 1]
    assert len(asked) == 6
    scored = [(q, set(options)) for heard, q, options in ears.scored if heard == 1]
    assert sorted(scored) == [
        ("Which one leads?", {"Piano", *OTHERS}),
        ("Which one rests?", {"Flute", *OTHERS}),
    ]
    assert report(out)["asked"] == 12
    assert {path.name for path in out.glob("muchomusic*")} == {
        "muchomusic.json",
        "muchomusic-2.json",
        "muchomusic-3.json",
    }


def test_the_file_of_the_published_scorer(files, ears):
    data, audio, out = files
    run("muchomusic", data, audio, out, "--controls=off")
    rows = json.loads((out / "muchomusic.json").read_text())
    assert list(rows[0]) == [
        *("id", "prompt", "answers", "answer_orders", "dataset", "genre"),
        *("reasoning", "knowledge", "audio_path", "model_output"),
    ]
    assert [row["id"] for row in rows] == [1, 1, 2, "abc"]
    assert [row["model_output"] for row in rows] == ["piano", "flute", "Drums", "Organ"]
    assert rows[1]["knowledge"] == ["melody", "texture"]
    assert [row["audio_path"] for row in rows[2:]] == ["00/2.2min.wav", "abc.wav"]


def test_missing_sounds_are_counted_and_listed(files, ears, capsys):
    data, audio, out = files
    (audio / "abc.wav").unlink()
    (audio / "00/2.2min.wav").write_bytes(b"")
    lacking = r"2 of 4 questions have no sound \(empty file 1, missing audio 1\): add"
    with pytest.raises(UserError, match=lacking) as refusal:
        run("muchomusic", data, audio, out)
    assert "2.2min.wav has 0 bytes" in str(refusal.value) and not ears.asked
    with pytest.raises(UserError, match="has only one readable clip"):
        run("muchomusic", data, audio, out, "--allow-missing")
    run("muchomusic", data, audio, out, "--allow-missing", "--controls=noise")
    assert "no abc in any format" in capsys.readouterr().err
    found = report(out)
    assert (found["asked"], found["questions"]) == (2, 4)
    assert set(found["lacking"]) == {"2/0", "3/0"}
    assert "2 of 4 questions." in (out / "report.md").read_text()
    with pytest.raises(UserError, match=r"4 of 4 .*name the folder of its sound files"):
        run("muchomusic", data, out, out, "--allow-missing")


def test_sounds_that_cannot_be_read_are_listed(files, ears, capsys):
    data, audio, out = files
    (audio / "00/2.2min.wav").write_bytes(b"no sound")
    with pytest.raises(UserError, match="1 of 3 cannot be heard; all others"):
        run("muchomusic", data, audio, out)
    found = report(out)
    assert found["asked"] == 3 and "2.2min.wav" in found["failed"][0]
    run("muchomusic", data, audio, out, "--allow-missing")
    assert "1 of 3 cannot be heard:" in capsys.readouterr().out
    for name in ("00/1.2min.wav", "abc.wav"):
        (audio / name).write_bytes(b"no sound")
    with pytest.raises(UserError, match="2 of 2 cannot be heard"):
        run("muchomusic", data, audio, out / "other", "--allow-missing")


def test_a_killed_run_continues(files, ears):
    data, audio, out = files
    run("muchomusic", data, audio, out)
    before = (out / "report.json").read_bytes(), (out / "answers.jsonl").read_bytes()
    count = len(ears.asked)
    run("muchomusic", data, audio, out)
    assert len(ears.asked) == count
    (out / "00000001.jsonl").unlink()
    run("muchomusic", data, audio, out)
    assert 0 < len(ears.asked) - count < count
    after = (out / "report.json").read_bytes(), (out / "answers.jsonl").read_bytes()
    assert after == before
    for task in (1, 0):
        run("muchomusic", data, audio, out / "2", f"--task={task}", "--tasks=2")
    assert (out / "2/report.json").read_bytes() == before[0]


def test_a_limit_and_another_seed_ask_what_is_new(files, ears, capsys):
    data, audio, out = files
    run("muchomusic", data, audio, out, "--limit=3", "--controls=off")
    assert "--limit: 3 of 4 questions" in capsys.readouterr().err
    count = len(ears.asked)
    assert count == 3 == report(out)["questions"]
    run("muchomusic", data, audio, out, "--controls=off")
    assert len(ears.asked) == 4
    run("muchomusic", data, audio, out, "--controls=off", "--seed=1")
    assert len(ears.asked) > 4


def test_options_that_have_no_likelihood_are_counted(files, monkeypatch):
    class Strict(FakeEars):
        def scores(self, requests):
            if any("rests" in question for _, question, _ in requests):
                raise UserError("the option is longer than any answer in training")
            return super().scores(requests)

    benchmark_runs.pretend(monkeypatch, Strict(say, LIKES))
    data, audio, out = files
    run("muchomusic", data, audio, out)
    assert percent(out, "accuracy, by likelihood") == 66.7
    found = report(out)
    assert found["unscored"] == {"the option is longer than any answer in training": 1}
    sizes = {
        line["label"]: line["questions"]
        for line in found["scores"]
        if not line["group"]
    }
    assert sizes["accuracy, by likelihood"] == 3
    assert sizes["accuracy, published rule"] == 4
    assert "training: 1 ×" in (out / "report.md").read_text()


def test_what_excludes_itself_is_refused(files):
    data, audio, out = files
    with pytest.raises(UsageError, match="--run and --model both name what answers"):
        run("muchomusic", data, audio, out, "--run=a", "--model=b")
    with pytest.raises(
        UsageError, match="--bertscore is for captions: muchomusic asks"
    ):
        run("muchomusic", data, audio, out, "--bertscore=x")
    with pytest.raises(UsageError, match="there is no quiet; choose among shuffled_a"):
        run("muchomusic", data, audio, out, "--controls=noise,quiet")


def test_another_benchmark_needs_another_folder(files, ears, monkeypatch):
    data, audio, out = files
    run("muchomusic", data, audio, out)
    other = dataclasses.replace(muchomusic.BENCHMARK, name="other")
    monkeypatch.setitem(benchmark.BENCHMARKS, "muchomusic", other)
    with pytest.raises(UserError, match="answers were made with benchmark muchomusic"):
        run("muchomusic", data, audio, out)

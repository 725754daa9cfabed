"""Each benchmark on a small copy of its published files: counts, scores, refusals."""

import json
import re

import pytest
import yaml
from helpers import benchmark_runs
from helpers.benchmark_runs import percent, report, run
from helpers.fake_ears import NOISE, FakeEars

from musilingo_jax import benchmark
from musilingo_jax.answering.model import CAPTION
from musilingo_jax.benchmarks import (
    captions,
    cmi_bench,
    giantsteps,
    gtzan,
    medleydb,
    mmau,
    musicnet,
    rulistening,
)
from musilingo_jax.benchmarks.item import Reading
from musilingo_jax.runtime.errors import UserError

ONCE = Reading(seed=0, shuffles=1)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def audio(tmp_path):
    return tmp_path / "audio"


def answering(monkeypatch, say, likes=None):
    return benchmark_runs.pretend(monkeypatch, FakeEars(say, likes))


def refused(one, path, message):
    with pytest.raises(UserError, match=message):
        one.read(path, ONCE)


# RUListening


def rul(folder, **changes):
    row = {
        "question": "What leads?",
        "caption": "A piano.",
        "correct_answer": "Piano",
        "distractors": ["Harp", "Horn", "Gong", "Bell"],
        "PI": 0.9,
    }
    rows = {"1740": {**row, **changes}, "18": {**row, "correct_answer": "Oboe"}}
    (folder / rulistening.FILE).write_text(json.dumps(rows))
    return folder


def test_rulistening_leaves_each_distractor_out(tmp_path, audio, out, monkeypatch):
    items = rulistening.BENCHMARK.read(rul(tmp_path), ONCE)
    assert len(items) == 8
    left = [{"Harp", "Horn", "Gong", "Bell"} - set(item.options) for item in items[:4]]
    assert left == [{"Harp"}, {"Horn"}, {"Gong"}, {"Bell"}]
    assert items[0].question.endswith("such as [[A]], [[B]], [[C]], [[D]].")
    benchmark_runs.sing(audio, "1740.wav", "18.wav")

    def say(heard, question):
        letters = question.partition("Options: ")[2]
        right = {1: "Piano", 2: "Oboe"}.get(heard, "Bell")
        place = letters.find(f") {right}")
        return f"So: [[{letters[place - 1]}]]" if place >= 0 else "None."

    ears = answering(monkeypatch, say, {1: ("Piano",), 2: ("Bell",)})
    run("rulistening", tmp_path, audio, out)
    assert percent(out, "accuracy of the vote, published rule") == 100
    assert percent(out, "accuracy, published rule") == 100
    assert percent(out, "accuracy, published rule", NOISE) == 0
    # Where “Bell” is left out, all options cost the same, and the first is chosen.
    assert percent(out, "accuracy, by likelihood") in (50, 62.5)
    assert sorted(ears.heard) == [1, 2]
    (first, second) = json.loads((out / "rulistening.json").read_text())
    assert first["question_id"] == "1740" and len(first["passes"]) == 4
    assert first["vote_counts"] == {"Piano": 4} and first["is_correct"]
    letter = second["passes"][0]["extracted_answer_letter"]
    assert second["passes"][0]["letter_mapping"][letter] == "Oboe"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distractors": "Harp"}, "1740: 'distractors' must be a list of texts"),
        ({"distractors": ["Harp", ""]}, "1740: an option is empty"),
        ({"question": 5}, "1740: 'question' must be text, not 5"),
    ],
)
def test_a_damaged_rulistening(tmp_path, changes, message):
    refused(rulistening.BENCHMARK, rul(tmp_path, **changes), message)


# MMAU


def mmau_rows(*changes):
    row = {
        "id": "u1",
        "audio_id": "./test-mini-audios/u1.wav",
        "question": "Who sings?",
        "choices": ["Male singing", "Female singing"],
        "answer": "Female singing",
        "dataset": "musicbench",
        "task": "music",
        "split": "test-mini",
        "category": "Reasoning",
        "sub-category": "Instrumentation",
        "difficulty": "easy",
    }
    return [{**row, **change} for change in ({}, *changes)]


def test_mmau_asks_about_music_alone(tmp_path, audio, out, monkeypatch):
    others = (
        {"id": "u2", "audio_id": "./test-mini-audios/u2.wav", "difficulty": "hard"},
        {"id": "u3", "task": "speech", "audio_id": "./test-mini-audios/u3.wav"},
        {"id": "u4", "choices": ["1 s", "2 s", "1 s"], "answer": "1 s"},
    )
    path = tmp_path / "mmau-test-mini.json"
    path.write_text(json.dumps(mmau_rows(*others)))
    benchmark_runs.sing(audio, "u1.wav", "u2.wav")

    def say(heard, question):
        if "1 s" in question:
            return "1 s"
        return "A female singing." if heard == 1 else "Female singing"

    answering(monkeypatch, say, {1: ("Female", "1 s"), 2: ("Male",)})
    run("mmau", path, audio, out)
    assert report(out)["asked"] == 3
    assert percent(out, "accuracy, published rule") == 100
    assert percent(out, "accuracy, by likelihood") == 66.7
    assert percent(out, "accuracy, by likelihood", group="difficulty: hard") == 0
    assert percent(out, "accuracy, published rule", group="Instrumentation") == 100
    rows = json.loads((out / "mmau.json").read_text())
    assert [row["model_output"] for row in rows] == [
        "A female singing.",
        "Female singing",
        "1 s",
    ]
    assert rows[0]["model_prediction"] == rows[0]["model_output"]
    assert {**mmau_rows()[0]}.items() <= rows[0].items()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"answer": ""},
            r"json\[1\]: has no answer: of the full test all are withheld",
        ),
        ({"answer": "x"}, r"json\[1\]: the answer 'x' is not among the options"),
        ({"choices": ["Female singing"]}, r"has 1 options: a choice needs 2 to 26"),
        ({"choices": "AB"}, r"'choices' must be a list of texts"),
        ({"difficulty": 3}, r"'difficulty' must be text, not 3"),
    ],
)
def test_a_damaged_mmau(tmp_path, change, message):
    path = tmp_path / "mmau-test-mini.json"
    path.write_text(json.dumps(mmau_rows(change)))
    refused(mmau.BENCHMARK, path, message)


# CMI-Bench


def cmi_row(task, output, audio, **changes):
    return {
        "instruction": f"Do {task}.",
        "input": "<|SOA|><AUDIO><|EOA|>",
        "output": output,
        "uuid": "",
        "split": ["test"],
        "task_type": {"major": ["multi-class"], "minor": [task]},
        "domain": "music",
        "audio_path": [f"data/{task}/{audio}"],
        "audio_start": 0.0,
        "audio_end": 30.0,
        "source": task,
        "other": {"tag": "null"},
        **changes,
    }


def cmi(folder, **tasks):
    for task, rows in tasks.items():
        path = folder / f"data/{task}/CMI_{task}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_cmi_bench_scores_each_task_by_its_rule(
    tmp_path, audio, out, monkeypatch, capsys
):
    beats = "0.5s,1.0s,1.5s,2.0s,2.5s,3.0s,3.5s,4.0s,4.5s,5.0s,5.5s,6.0s"
    cmi(
        tmp_path,
        GTZAN=[
            cmi_row("GTZAN", "rock", "a.wav"),
            cmi_row("GTZAN", "hiphop", "b.wav"),
            cmi_row("GTZAN", "blues", "c.wav", split=["train"]),
        ],
        Nsynth_pitch=[cmi_row("Nsynth_pitch", 60, "a.wav", audio_end=-1)],
        GS_key=[cmi_row("GS_key", "C minor", "a.wav")],
        gtzan_beat=[cmi_row("gtzan_beat", beats, "a.wav")],
        SDD=[cmi_row("SDD", "A calm piece.", "b.wav")],
        DSing=[cmi_row("DSing", "la la", "a.wav")],
    )
    benchmark_runs.sing(audio, "GTZAN/a.wav", "GTZAN/b.wav")
    said = {
        "Do GTZAN.": "Rock or something like it.",
        "Do Nsynth_pitch.": "60",
        "Do GS_key.": "C major",
        "Do gtzan_beat.": beats,
        "Do SDD.": "A calm song.",
    }
    answering(monkeypatch, lambda heard, question: said[question])
    run("cmi-bench", tmp_path, audio, out, "--controls=noise")
    assert "1 tasks are not asked: DSing" in capsys.readouterr().err
    assert percent(out, "accuracy, published rule", group="GTZAN") == 50
    assert percent(out, "accuracy, published rule", group="Nsynth_pitch") == 100
    assert percent(out, "genre, as read") == 50
    assert percent(out, "MIREX score, published rule") == 20
    assert percent(out, "beats, F-measure") == 100
    assert percent(out, "ROUGE-L recall, published rule") == 66.7
    rows = json.loads((out / "musilingo_jax_GTZAN.jsonl").read_text())
    assert rows[0] == {
        "question": "Do GTZAN.",
        "correct_answer": "rock",
        "audioid": "data/GTZAN/a.wav",
        "other": "",
        "response": "Rock or something like it.",
    }
    numbers = json.loads((out / "musilingo_jax_Nsynth_pitch.jsonl").read_text())
    assert numbers[0]["correct_answer"] == 60


def test_a_damaged_cmi_bench(tmp_path):
    one = cmi_bench.BENCHMARK
    refused(one, tmp_path, r"there is no CMI_….jsonl of the tasks GTZAN, VocalSet_tech")
    rows = [cmi_row("GTZAN", "rock", "a.wav"), cmi_row("GTZAN", None, "b.wav")]
    refused(one, cmi(tmp_path, GTZAN=rows), r"GTZAN.jsonl:2: 'output' must be a text")
    rows = [cmi_row("GTZAN", "rock", "a.wav", split="test")]
    refused(one, cmi(tmp_path, GTZAN=rows), r"split and audio_path must be lists")
    rows = [cmi_row("GTZAN", "rock", "a.wav", instruction=None, audio_end="x")]
    refused(one, cmi(tmp_path, GTZAN=rows), r"'audio_end' must be a number, not 'x'")
    rows = [cmi_row("GS_key", "H", "a.wav")]
    (tmp_path / "data/GTZAN/CMI_GTZAN.jsonl").unlink()
    refused(one, cmi(tmp_path, GS_key=rows), r"GS_key.jsonl:1: 'H' is not a key")


# Captions

SONGS = (
    "caption_id,track_id,caption,is_valid_subset,familiarity,artist_id,album_id,path,"
    "duration\n"
    "1,10,A calm piano piece.,True,0,1,1,00/10.mp3,120\n"
    '2,10,"Slow, calm piano.",False,0,1,1,00/10.mp3,120\n'
    "3,11,Loud drums.,True,0,1,1,11/11.mp3,120\n"
)


def test_song_describer_asks_once_for_several_captions(
    tmp_path, audio, out, monkeypatch
):
    (tmp_path / captions.SONGS).write_text(SONGS)
    items = captions.SONG_DESCRIBER.read(tmp_path, ONCE)
    assert [(item.id, item.others) for item in items] == [
        ("1", ("Slow, calm piano.",)),
        ("2", ("A calm piano piece.",)),
        ("3", ()),
    ]
    benchmark_runs.sing(audio, "00/10.2min.wav", "11/11.2min.wav")
    ears = answering(
        monkeypatch, lambda heard, _: "Slow, calm piano." if heard == 1 else "Drums."
    )
    run("song-describer", tmp_path, audio, out)
    asked = [question for heard, question in ears.asked if heard == 1]
    # Both captions ask the same of song 1, and so does that of the other song.
    assert asked == [CAPTION]
    # 2 of 4 words, all of 3, 1 of 2: the first caption alone, and recall.
    assert percent(out, "ROUGE-L recall, published rule") == 66.7
    assert percent(out, "ROUGE-L F1") == pytest.approx(
        100 * (1 + 1 + 2 / 3) / 3, abs=0.1
    )
    assert percent(out, "ROUGE-L F1", group="valid subset") == 83.3
    found = report(out)
    assert "legacy.bertscore" in found["absent"]
    assert "| MusiLingo-long | BLEU of characters" in (out / "report.md").read_text()


def test_musiccaps_asks_about_the_evaluation_set(tmp_path, audio, out, monkeypatch):
    (tmp_path / captions.CLIPS).write_text(
        "ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption,author_id,"
        "is_balanced_subset,is_audioset_eval\n"
        "aaa,30,40,/m/1,[],A calm piece.,1,True,True\n"
        "bbb,30,40,/m/1,[],A loud piece.,1,False,True\n"
        "ccc,30,40,/m/1,[],Another.,1,False,False\n"
    )
    benchmark_runs.sing(audio, "[aaa]-[30-40].wav", "bbb.wav")
    answering(monkeypatch, lambda heard, _: "A calm piece.")
    run("musiccaps", tmp_path, audio, out)
    assert report(out)["questions"] == 2
    assert percent(out, "ROUGE-L F1", group="balanced subset") == 100
    assert percent(out, "ROUGE-L recall, published rule") == pytest.approx(83.3)
    (tmp_path / captions.CLIPS).write_text(
        "ytid,start_s,end_s,caption,is_audioset_eval\naaa,30,40, ,True\n"
    )
    refused(captions.MUSICCAPS, tmp_path, r"public.csv:2: the caption is empty")


# Key and tempo


def steps(folder, where, suffix, **values):
    place = folder / where
    place.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (place / f"{name.removeprefix('_')}.LOFI{suffix}").write_text(value)
    return folder


def test_giantsteps_key(tmp_path, audio, out, monkeypatch):
    steps(
        tmp_path, "annotations/key", ".key", _1="C minor\n", _2="A# major", _3="G minor"
    )
    benchmark_runs.sing(audio, "1.LOFI.wav", "2.LOFI.wav", "3.LOFI.wav")
    said = {1: "It is in C Minor.", 2: "A sharp major", 3: "G major."}
    ears = answering(
        monkeypatch,
        lambda heard, _: said.get(heard, "A minor key."),
        {1: ("C minor",), 2: ("Bb major",), 3: ("G major",)},
    )
    run("giantsteps-key", tmp_path, audio, out)
    assert percent(out, "MIREX score, published rule") == 40  # 0, 1 and 0.2
    assert percent(out, "MIREX score, answers as read") == 73.3
    assert percent(out, "right key, as read") == 66.7
    assert percent(out, "right key, by likelihood") == 66.7
    assert len(ears.scored[0][2]) == 24
    assert percent(out, "answered, as read", NOISE) == 0
    assert (
        "| LLark | MIREX score, published rule | 69.6 |"
        in (out / "report.md").read_text()
    )
    # The sound is 0.6 s long, and so is heard as a whole; a longer one would be cut.
    assert giantsteps.KEY.read(tmp_path, ONCE)[0].sound.start == 30


def test_giantsteps_tempo(tmp_path, audio, out, monkeypatch, capsys):
    steps(tmp_path, "annotations/tempo", ".bpm", _1="100")
    steps(tmp_path, "annotations_v2/tempo", ".bpm", _1="120", _2="90.5", _3="0.0\n")
    benchmark_runs.sing(audio, "1.LOFI.wav", "2.LOFI.wav")
    answering(monkeypatch, lambda heard, _: "In 4/4, about 240 BPM, or 181 BPM.")
    run("giantsteps-tempo", tmp_path, audio, out, "--controls=noise")
    assert "note: 1 tracks have no tempo" in capsys.readouterr().err
    assert report(out)["questions"] == 2
    assert percent(out, "Acc2, published rule") == 0  # 4 is the first number.
    assert percent(out, "Acc1, answers as read") == 0
    assert percent(out, "Acc2, answers as read") == 50
    assert percent(out, "Acc1, published rule", "constant") == 0  # That of the other.


@pytest.mark.parametrize(
    ("one", "where", "suffix", "text", "message"),
    [
        (
            giantsteps.KEY,
            "annotations/key",
            ".key",
            "X",
            "1.LOFI.key: 'X' is not a key",
        ),
        (
            giantsteps.TEMPO,
            "annotations/tempo",
            ".bpm",
            "fast",
            "'fast' is not a number",
        ),
        (
            giantsteps.TEMPO,
            "annotations/tempo",
            ".bpm",
            "-3",
            "-3 is not a number of b",
        ),
        (
            giantsteps.TEMPO,
            "annotations/other",
            ".bpm",
            "9",
            "there is no annotations_v2",
        ),
    ],
)
def test_a_damaged_giantsteps(tmp_path, one, where, suffix, text, message):
    refused(one, steps(tmp_path, where, suffix, _1=text), message)


# Genre and instruments


def test_gtzan(tmp_path, audio, out, monkeypatch):
    items = gtzan.BENCHMARK.read(tmp_path, ONCE)
    assert len(items) == 1000 and items[0].id == "blues.00000"
    assert len({item.value for item in items[:10]}) == 10
    names = tmp_path / "names.txt"
    names.write_text("blues/blues.00029.wav\nhiphop.00003.au\n\njazz/jazz.00001\n")
    benchmark_runs.sing(
        audio, "blues/blues.00029.wav", "hiphop.00003.wav", "jazz/jazz.00001.wav"
    )
    said = {1: "Rock, or the blues.", 2: "Hip-hop!", 3: "Jazz."}
    answering(
        monkeypatch,
        lambda heard, _: said.get(heard, "Polka."),
        {1: ("blues",), 2: ("hip hop",), 3: ("jazz",)},
    )
    run("gtzan", names, audio, out)
    assert percent(out, "accuracy, published rule") == 66.7  # “Hip-hop” is nothing.
    assert percent(out, "accuracy, answers as read") == 66.7  # Two genres are none.
    assert percent(out, "accuracy, by likelihood") == 100
    assert percent(out, "accuracy, answers as read", group="hiphop") == 100
    names.write_text("polka.00001.wav\n")
    refused(gtzan.BENCHMARK, names, r"names.txt:1: 'polka.00001.wav' names no clip")


def medley(folder, name, instruments, rows):
    stems = {f"S{n:02}": {"instrument": each} for n, each in enumerate(instruments, 1)}
    (folder / f"{name}_METADATA.yaml").write_text(yaml.safe_dump({"stems": stems}))
    head = ",".join(("time", *stems))
    text = "".join(",".join(map(str, row)) + "\n" for row in rows)
    (folder / f"{name}_ACTIVATION_CONF.lab").write_text(f"{head}\n{text}")


def test_medleydb(tmp_path, audio, out, monkeypatch, capsys):
    medley(
        tmp_path,
        "Long",
        ["clean electric guitar", "drum set", "oud", "tuba"],
        [(10, 0, 0, 0, 0.9), (40, 0.9, 0.2, 0.9, 0.5), (70, 0, 0.9, 0, 0.9)],
    )
    medley(tmp_path, "Short", ["piano"], [(0.0, 0.1), (20.0, 0.8), (45.0, 0.1)])
    medley(tmp_path, "Strange", ["oud"], [(0.0, 0.9), (90.0, 0.9)])
    items = medleydb.BENCHMARK.read(tmp_path, ONCE)
    assert "note: 1 mixes have none of the 18 instruments" in capsys.readouterr().err
    assert [(each.id, each.value) for each in items] == [
        ("Long", "guitar"),
        ("Short", "piano"),
    ]
    assert [(each.sound.start, each.sound.end) for each in items] == [
        (30, 60),
        (None, 30),
    ]
    benchmark_runs.sing(audio, "Long_MIX.wav", "Short_MIX.wav")
    answering(monkeypatch, lambda heard, _: "Guitars and no drums. A piano.")
    run("medleydb-instruments", tmp_path, audio, out)
    # “ no ” hides the guitars; the piano stands for three instruments.
    assert percent(out, "F1, published rule") == 25
    assert percent(out, "F1 of words, answers as read") == 66.7
    # Of the 20 instruments that the constant answer names, one is right.
    assert percent(out, "F1, published rule", "constant") == 9.5


@pytest.mark.parametrize(
    ("metadata", "activations", "message"),
    [
        ("[", "time,S01\n1,1\n", "A_METADATA.yaml: is not MedleyDB's metadata"),
        ("stems: 3", "time,S01\n1,1\n", "A_METADATA.yaml: is not MedleyDB's metadata"),
        (None, "when,S01\n1,1\n", "CONF.lab: must begin with a column “time”"),
        (None, "time,S01\n", "CONF.lab: must begin with a column “time”, and have"),
        (None, "", "CONF.lab: must begin with a column “time”"),
        (None, "time,S02\n1,1\n", "says no instrument of stem S02"),
        (None, "time,S01\n1,x\n", "has a cell that is not a number"),
        (None, "time,S01\n1\n", "CONF.lab:2: has not 2 finite numbers"),
        (None, "time,S01\n1,nan\n", "CONF.lab:2: has not 2 finite numbers"),
        (None, None, "there is no A_ACTIVATION_CONF.lab"),
    ],
)
def test_a_damaged_medleydb(tmp_path, metadata, activations, message):
    medley(tmp_path, "A", ["piano"], [(1, 1)])
    if metadata is not None:
        (tmp_path / "A_METADATA.yaml").write_text(metadata)
    lab = tmp_path / "A_ACTIVATION_CONF.lab"
    if activations is None:
        lab.unlink()
    else:
        lab.write_text(activations)
    refused(medleydb.BENCHMARK, tmp_path, message)


def test_musicnet(tmp_path, audio, out, monkeypatch):
    folder = tmp_path / musicnet.FOLDER
    folder.mkdir()
    head = "start_time,end_time,instrument,note,start_beat,end_beat,note_value\n"
    rate = musicnet.RATE
    notes = [(0, 5, 1), (31, 70, 41), (31, 33, 43), (65, 95, 41)]
    (folder / "1759.csv").write_text(
        head + "".join(f"{a * rate},{b * rate},{i},60,0,1,Half\n" for a, b, i in notes)
    )
    items = musicnet.BENCHMARK.read(tmp_path, ONCE)
    assert [(item.id, item.value) for item in items] == [
        ("1759@0", "piano"),
        ("1759@30", "cello, violin"),
        ("1759@60", "violin"),
    ]
    (folder / "2.csv").write_text(head + f"0,{31 * rate},71,60,0,1,Half\n")
    benchmark_runs.sing(audio, "1759.wav", "2.wav")
    answering(monkeypatch, lambda heard, _: "A violin and a piano.")
    run("musicnet-instruments", tmp_path, audio, out)
    # All parts of a short file are the whole of it: right 3, wrong 5, missed at last 1.
    assert percent(out, "F1, published rule") == 50
    f1 = (2 / 3 + 2 / 4 + 2 / 3 + 0) / 4
    assert percent(out, "F1, answers as read") == pytest.approx(100 * f1, abs=0.1)
    (folder / "2.csv").write_text(head + "0,9,5,60,0,1,Half\n")
    refused(
        musicnet.BENCHMARK, tmp_path, r"2.csv:2: needs start_time and end_time, and"
    )
    refused(musicnet.BENCHMARK, audio, r"there is no test_labels with files \*.csv")


def test_every_benchmark_says_what_it_reads(tmp_path):
    assert len(benchmark.BENCHMARKS) == 11
    for name, one in benchmark.BENCHMARKS.items():
        assert one.name == name and one.data and one.scores
        assert re.search(rf"[ \n]{name}[,.]", benchmark.__doc__)
        labels = [score.label for score in one.scores]
        assert len(set(labels)) == len(labels)
        if name != "gtzan":  # Its questions do not depend on what is there.
            with pytest.raises(UserError, match=str(tmp_path)):
                one.read(tmp_path, ONCE)

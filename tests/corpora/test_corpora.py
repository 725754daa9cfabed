"""Published annotations in small, with audio of every kind of wrongness beside them."""

import csv
import json
import os
import random
import subprocess
import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
from helpers import programs

from musilingo_jax.corpora import build, corpus, songs
from musilingo_jax.corpora.lp_musiccaps_msd import LpMusicCapsMsd
from musilingo_jax.corpora.music_instruct import MusicInstruct
from musilingo_jax.corpora.music_qa import MusicQA
from musilingo_jax.corpora.musiccaps import MusicCaps
from musilingo_jax.corpora.own_songs import OwnSongs
from musilingo_jax.runtime.errors import UsageError, UserError

RATE = 4000
COLUMNS = (
    "ytid",
    "start_s",
    "end_s",
    "audioset_positive_labels",
    "aspect_list",
    "caption",
    "author_id",
    "is_balanced_subset",
    "is_audioset_eval",
)


def sound(path, seconds):
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = np.sin(np.arange(int(seconds * RATE)) / 9).astype(np.float32)
    if path.suffix == ".npy":
        np.save(path, wave)
    else:
        soundfile.write(path, wave, RATE)
    return path


def musiccaps_table(folder, *rows):
    """(ytid, start, end, caption, is_audioset_eval) → musiccaps-public.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "musiccaps-public.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for ytid, start, end, caption, test in rows:
            writer.writerow(
                [ytid, start, end, "/m/1", "['a', 'b']", caption, 4, False, test]
            )
    return folder


def as_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def make(kind, folder, out=None, **options):
    audio = folder if folder.is_dir() else folder.parent
    return kind(source=folder, audio=audio, data_dir=out or audio / "built", **options)


def clip_names(records):
    return [record.clip.split(":")[0] for record in records]


@pytest.mark.parametrize("end", ["\n", "\r"])
def test_captions_are_the_same_with_any_line_ends(tmp_path, end):
    musiccaps_table(tmp_path, ("a", 0, 1, "One.\r\nTwo.", True))
    sound(tmp_path / "a.wav", 1)
    before = make(MusicCaps, tmp_path).survey.records
    assert before[0][0].answer == "One.\nTwo."
    path = tmp_path / "musiccaps-public.csv"
    path.write_bytes(path.read_bytes().replace(b"\r\n", end.encode()))
    assert make(MusicCaps, tmp_path).survey.records == before


def test_musiccaps_takes_the_clip_or_the_stretch_of_the_video(tmp_path):
    musiccaps_table(
        tmp_path,
        ("-cut_-", 30, 40, 'A "quoted", calm\nsong.', True),
        ("whole", 30, 40, "A fast song.", False),
        ("named", 0, 10, "A song.", False),
        ("half", 30, 40, "A song.", False),
        ("gone", 30, 40, "A song.", False),
        ("empty", 30, 40, "A song.", False),
        ("text", 30, 40, "A song.", False),
        ("array", 30, 40, "A song.", False),
        ("-cut_-", 30, 40, " ", False),
    )
    sound(tmp_path / "audio/deep/-cut_-.FLAC", 10.1)
    sound(tmp_path / "audio/-cut_-.npy", 3)
    sound(tmp_path / "audio/whole.wav", 41)
    sound(tmp_path / "audio/[named]-[0-10].ogg", 10)
    sound(tmp_path / "audio/half.wav", 35)
    (tmp_path / "audio/empty.wav").touch()
    (tmp_path / "audio/text.mp3").write_text("<html>Not found</html>")
    sound(tmp_path / "audio/array.npy", 10)
    made = make(MusicCaps, tmp_path)
    survey = made.survey
    assert clip_names(r for r, _ in survey.records) == [
        "audio/deep/-cut_-.FLAC",
        "audio/whole.wav",
        "audio/[named]-[0-10].ogg",
    ]
    (cut, cut_seconds), (whole, whole_seconds), _ = survey.records
    assert (cut.start, cut.end, cut_seconds) == (None, None, 10.1)
    assert (whole.start, whole.end, whole_seconds) == (30, 40, 10)
    assert whole.clip.endswith("@30000-40000ms")
    assert (cut.question, cut.answer) == ("", 'A "quoted", calm\nsong.')
    assert (cut.split, whole.split) == ("test", "train")
    reasons = {row["audio"]: row["reason"] for row in survey.left_out}
    assert reasons == {
        "half": "wrong length",
        "gone": "missing audio",
        "empty": "empty file",
        "text": "unknown length",
        "array": "no sampling rate",
        "-cut_-": "empty answer",
    }
    assert survey.without_audio == 5
    # Lines are counted as an editor does, the quoted line end included.
    assert survey.left_out[1]["where"] == "musiccaps-public.csv:7"
    train, test = survey.splits["train"], survey.splits["test"]
    assert (train.published_rows, train.published_clips) == (8, 8)
    assert (train.rows, train.clips, train.untold) == (2, 2, 0)
    assert train.hours == pytest.approx(20 / 3600, abs=1e-4)
    assert (test.published_rows, test.rows) == (1, 1)


def test_the_authors_spelling_of_musiccaps_knows_the_rate_of_arrays(tmp_path):
    rows = [
        {"ytid": "a", "caption": "A.", "is_audioset_eval": True, "sampling_rate": RATE},
        {"ytid": "b", "caption": "B.", "is_audioset_eval": 0, "sampling_rate": RATE},
    ]
    as_json(tmp_path / "MusicCaps_ann/all.json", {"ann": rows})
    sound(tmp_path / "MusicCaps_audio/a.npy", 10)
    sound(tmp_path / "MusicCaps_audio/b.npy", 60)
    survey = make(MusicCaps, tmp_path).survey
    ((record, seconds),) = survey.records
    assert (record.rate, seconds, record.split) == (RATE, 10, "test")
    assert record.clip.endswith(f"#{RATE}Hz")
    (row,) = survey.left_out
    assert (row["reason"], row["audio"]) == ("not cut", "b")


def test_sound_is_found_behind_links_and_not_waited_for(tmp_path, capfd):
    names = "linked", "double", "gone", "pipe", "text"
    musiccaps_table(tmp_path, *((name, 30, 40, "A song.", True) for name in names))
    sound(tmp_path / "disk/linked.wav", 10)
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio/link").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/circle").symlink_to(tmp_path / "audio")
    (tmp_path / "audio/double.wav").symlink_to("nowhere")  # Preferred, were it there.
    sound(tmp_path / "audio/double.ogg", 10)
    (tmp_path / "audio/gone.wav").symlink_to("nowhere")
    os.mkfifo(tmp_path / "audio/pipe.wav")
    (tmp_path / "audio/text.mp3").write_text("This is no music.\n" * 30)
    audio = tmp_path / "audio"
    survey = MusicCaps(source=tmp_path, audio=audio, data_dir=tmp_path).survey
    assert clip_names(r for r, _ in survey.records) == ["link/linked.wav", "double.ogg"]
    assert {row["audio"]: row["reason"] for row in survey.left_out} == {
        "gone": "missing audio",
        "pipe": "unreadable file",
        "text": "unknown length",
    }
    assert f"there is no {audio / 'gone.wav'}" in survey.table()
    # Nor do libraries have their say.
    assert "Note" not in capfd.readouterr().err


def test_names_that_are_not_utf_8_are_refused(tmp_path):
    musiccaps_table(tmp_path, ("a", 30, 40, "A song.", True))
    folder = tmp_path / os.fsdecode(b"audio\xff")
    folder.mkdir()
    sound(tmp_path / "a.wav", 10).rename(folder / "a.wav")
    with pytest.raises(UserError, match=r"/audio\\udcff/a\.wav: its name is not UTF-8"):
        _ = make(MusicCaps, tmp_path).survey
    for changed in ("source", "audio", "data_dir"):
        given = dict.fromkeys(("source", "audio", "data_dir"), tmp_path)
        with pytest.raises(UserError, match=r"/audio\\udcff: its name is not UTF-8"):
            MusicCaps(**(given | {changed: folder}))
    with pytest.raises(UserError, match=r"/audio\\udcff.*: its name is not UTF-8"):
        corpus.load(folder)


def test_own_songs_shorter_than_their_part_are_left_out(tmp_path):
    sound(tmp_path / "a.wav", 3)
    line = {"audio": "a.wav", "answer": "A song.", "start": 2}
    path = tmp_path / "songs.jsonl"
    path.write_text(
        "".join(json.dumps({**line, "end": end}) + "\n" for end in (3.4, 9))
    )
    survey = make(OwnSongs, path).survey
    ((record, seconds),) = survey.records
    assert (record.end, seconds) == (3.4, 1)
    (row,) = survey.left_out
    assert (row["where"], row["reason"]) == (f"{path}:2", "wrong length")
    assert row["detail"].endswith("lasts 3.0 s, but the clip ends at 9 s")


def test_ffprobe_reads_the_length_of_what_only_ffmpeg_decodes(tmp_path, monkeypatch):
    musiccaps_table(tmp_path, ("a", 30, 40, "A song.", True))
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A ")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (row,) = make(MusicCaps, tmp_path).survey.left_out
    assert row["reason"] == "unknown length" and "ffmpeg" in row["detail"]
    (tmp_path / "bin").mkdir()
    probe = tmp_path / "bin/ffprobe"
    probe.write_text("#!/bin/sh\necho 212.5\n")
    probe.chmod(0o755)
    ((record, seconds),) = make(MusicCaps, tmp_path).survey.records
    assert (record.start, record.end, seconds) == (30, 40, 10)


def instruct_row(ytid, question, answer, test, **more):
    return {
        "ytid": ytid,
        "question": question,
        "answer": answer,
        "is_audioset_eval": test,
        "sampling_rate": RATE,
        **more,
    }


def test_music_instruct_is_about_the_clips_of_musiccaps(tmp_path):
    musiccaps_table(tmp_path, ("a", 5, 15, "A song.", True), ("b", 0, 10, "B.", False))
    folder = tmp_path / "MusicInstruct"
    rows = [
        instruct_row("a", "Fast?", "It is.", True),
        instruct_row("b", "Calm?", "It is.", False),
        instruct_row("b", None, "It is.", False),
    ]
    as_json(folder / "music_instruct_short.json", {"QA": rows})
    as_json(folder / "music_instruct.json", {"QA": rows[:1]})
    sound(tmp_path / "a.wav", 30)
    sound(tmp_path / "b.npy", 10)
    survey = make(MusicInstruct, tmp_path, config="short").survey
    one, two = (record for record, _ in survey.records)
    assert (one.question, one.split, one.start, one.end) == ("Fast?", "test", 5, 15)
    assert (two.question, two.split, two.rate) == ("Calm?", "train", RATE)
    assert survey.reasons() == {"empty question": 1}
    # Both corpora's features are encoded once: the clips are the same.
    captions = make(MusicCaps, tmp_path).survey
    assert captions.records[0][0].clip == one.clip
    assert len(make(MusicInstruct, tmp_path).survey.records) == 1
    with pytest.raises(UserError, match=r"there is no music_instruct_long\.json"):
        _ = make(MusicInstruct, tmp_path, config="long").survey


def turns(*texts):
    speakers = ("human", "gpt")
    return [{"from": speakers[i % 2], "value": t} for i, t in enumerate(texts)]


def test_musicqa_splits_are_its_files(tmp_path):
    as_json(
        tmp_path / "EvalMusicQA.json",
        [
            {"audio_name": "1.wav", "conversation": turns("Q1", "A1")},
            {"audio_name": "1.wav", "conversation": turns("Q2", "A2", "Q3", "A3")},
            {"audio_name": "2.wav", "conversation": turns("Q1", "")},
            {"audio_name": "3.wav", "conversation": turns("Q1", "A1")},
        ],
    )
    as_json(
        tmp_path / "FinetuneMusicQA.json",
        [{"audio_name": "sub/2.mp3", "conversation": turns("Q", "A")}],
    )
    sound(tmp_path / "audios/1.wav", 1)
    sound(tmp_path / "audios/2.flac", 1)
    survey = make(MusicQA, tmp_path).survey
    texts = [(r.split, r.question, r.answer) for r, _ in survey.records]
    assert texts == [
        ("train", "Q", "A"),
        ("test", "Q1", "A1"),
        ("test", "Q2", "A2"),
        ("test", "Q3", "A3"),
    ]
    assert survey.reasons() == {"empty answer": 1, "missing audio": 1}
    test = survey.splits["test"]
    assert (test.published_rows, test.published_clips, test.clips) == (5, 3, 1)


def msd_table(folder, split, count):
    tracks = [f"TR{split.upper()}{i}" for i in range(count)]
    columns = {
        "track_id": tracks,
        "path": [f"{i}/{i}/{split}{i}.clip.mp3" for i in range(count)],
        "tag": [["rock", "loud"]] * count,
        **{
            f"caption_{kind}": [f"{kind} of {track}" for track in tracks]
            for kind in ("writing", "summary", "paraphrase", "attribute_prediction")
        },
    }
    (folder / "data").mkdir(parents=True, exist_ok=True)
    path = folder / f"data/{split}-00000-of-00001-0a1b.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def test_lp_musiccaps_msd_has_four_captions(tmp_path):
    for split, count in (("train", 3), ("valid", 1), ("test", 1)):
        msd_table(tmp_path, split, count)
    sound(tmp_path / "audio/0/0/train0.clip.wav", 1)
    sound(tmp_path / "flat/train1.clip.ogg", 1)
    sound(tmp_path / "by track/TRVALID0.flac", 1)
    survey = make(LpMusicCapsMsd, tmp_path).survey
    assert [(r.split, r.answer) for r, _ in survey.records] == [
        ("train", "writing of TRTRAIN0"),
        ("train", "writing of TRTRAIN1"),
        ("valid", "writing of TRVALID0"),
    ]
    assert [row["audio"] for row in survey.left_out] == [
        "2/2/train2.clip.mp3",
        "0/0/test0.clip.mp3",
    ]
    other = make(LpMusicCapsMsd, tmp_path, config="attribute_prediction").survey
    assert other.records[0][0].answer == "attribute_prediction of TRTRAIN0"


def row_of(kind, folder, *, of):
    """A folder with one row that is not as published."""
    if of == "csv":
        musiccaps_table(folder, kind)
        return MusicCaps
    if of == "table":
        (folder / "musiccaps-public.csv").write_text(kind)
        return MusicCaps
    if of == "qa":
        as_json(folder / "EvalMusicQA.json", kind)
        return MusicQA
    if of == "instruct":
        as_json(folder / "music_instruct.json", kind)
        return MusicInstruct
    (folder / "train-0.parquet").write_bytes(kind)
    return LpMusicCapsMsd


@pytest.mark.parametrize(
    "of, row, reason",
    [
        ("csv", ("a", 30, 40, "A.", "maybe"), r"csv:2: 'is_audioset_eval' must be"),
        ("csv", ("a", "x", 40, "A.", True), r"csv:2: 'start_s' must be a number"),
        ("csv", ("a", "nan", 40, "A.", True), r"csv:2: 'start_s' must be 0 or more"),
        ("csv", ("a", 40, 30, "A.", True), r"csv:2: 'end_s' must be later"),
        ("csv", ("", 30, 40, "A.", True), r"csv:2: 'ytid' is empty"),
        ("table", "ytid,caption\na,b\n", r"csv:1: there is no column start_s, end_s"),
        ("table", ",".join(COLUMNS) + "\na,b\n", r"csv:2: the number of cells is not"),
        ("table", ",".join(COLUMNS) + '\n"a,b\n', r"csv: cannot be read as CSV"),
        ("qa", {"a": 1}, "must hold a JSON array"),
        ("qa", ["a"], r"EvalMusicQA\.json\[0\]: is not a JSON object"),
        ("qa", [{"conversation": []}], r"\[0\]: there is no 'audio_name'"),
        ("qa", [{"audio_name": ""}], r"\[0\]: 'audio_name' is empty"),
        ("qa", [{"audio_name": "a.wav"}], r"\[0\]: 'conversation' must be a list"),
        (
            "qa",
            [{"audio_name": "a.wav", "conversation": turns("Q", "A", "Q")}],
            r"\[0\]: 'conversation' must be a list of questions and answers",
        ),
        (
            "qa",
            [{"audio_name": "a.wav", "conversation": turns("Q", "A")[::-1]}],
            r"\[0\]: turn 1 of the conversation must be from 'human'",
        ),
        (
            "qa",
            [{"audio_name": "a.wav", "conversation": turns("Q", "\ud800")}],
            r"\[0\]: 'value' contains half a character",
        ),
        ("instruct", [], "must be a JSON object with the key 'QA'"),
        (
            "instruct",
            {"QA": [instruct_row("a", 3, "A", True)]},
            r"music_instruct\.json\[0\]: 'question' must be text, not 3",
        ),
        ("parquet", b"PAR1 not", "cannot be read as Parquet"),
    ],
)
def test_rows_that_are_not_as_published_are_named_by_place(tmp_path, of, row, reason):
    kind = row_of(row, tmp_path, of=of)
    with pytest.raises(UserError, match=reason):
        _ = make(kind, tmp_path).survey


def test_missing_files_and_folders_are_named(tmp_path):
    for kind in (MusicCaps, MusicQA, MusicInstruct, LpMusicCapsMsd):
        with pytest.raises(UserError, match="there is no .* in it or in a folder belo"):
            _ = make(kind, tmp_path).survey
    with pytest.raises(UserError, match="no such folder with audio"):
        _ = MusicCaps(source=tmp_path, audio=tmp_path / "no", data_dir=tmp_path).survey
    pyarrow.parquet.write_table(
        pyarrow.table({"track_id": ["a"]}), tmp_path / "test.parquet"
    )
    with pytest.raises(UserError, match="no column path, caption_writing"):
        _ = make(LpMusicCapsMsd, tmp_path).survey


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "there is no space left"),
        (
            RuntimeError("Failed to finalize: No space left on device; write failed"),
            "there is no space left .*free some and run the same command again",
        ),
        (PermissionError(13, "Permission denied"), "make it writable"),
    ],
)
def test_a_disk_that_cannot_be_written_is_a_sentence(
    tmp_path, monkeypatch, error, reason
):
    as_json(tmp_path / "songs.jsonl", {"audio": "a.wav", "answer": "A song."})
    sound(tmp_path / "a.wav", 1)
    made = make(OwnSongs, tmp_path, tmp_path / "out")

    def fail(**_):
        raise error

    monkeypatch.setattr(made, "download_and_prepare", fail)
    with pytest.raises(UserError, match=rf"out/own_songs/1.0.0: .*{reason}"):
        made.build()


def test_rows_without_texts_are_no_question_of_the_audio_folder(tmp_path):
    musiccaps_table(tmp_path, ("a", 0, 10, " ", True))
    sound(tmp_path / "a.wav", 10)
    with pytest.raises(UserError, match="lists: its rows have no text to learn"):
        build.build(make(MusicCaps, tmp_path), allow_missing=True)


def test_a_built_corpus_gives_back_its_records_in_order(tmp_path):
    lines = [
        {
            "audio": f"{n % 3}.wav",
            "question": "How fast?" if n % 2 else "",
            "answer": f"Ein schönes Lied, {n}.",
            "split": ("train", "test")[n % 4 == 0],
            **({"attribute": "tempo", "value": "fast"} if n % 2 else {}),
            **({"start": 0.25, "end": 1.125} if n % 3 == 1 else {}),
        }
        for n in range(20)
    ]
    lines.append({"audio": "4.npy", "answer": "Noise.", "rate": RATE, "start": 0.5})
    for n in range(3):
        sound(tmp_path / f"{n}.wav", 2)
    sound(tmp_path / "4.npy", 2)
    path = tmp_path / "songs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "built"
    (out / "own_songs/incomplete.ABCDEF_1.0.0").mkdir(parents=True)
    folder = build.build(make(OwnSongs, path, out), allow_missing=False)
    assert sorted(p.name for p in folder.parent.iterdir()) == [
        "1.0.0",
        "findings.jsonl",
        "left_out.jsonl",
        "lock",
        "report.json",
    ]
    expected = sorted(songs.load(path), key=lambda r: r.split)
    for place in (folder, folder.parent, out, str(out)):
        assert corpus.load(place) == expected
    report = json.loads((folder.parent / "report.json").read_text())
    train = report["splits"]["train"]
    assert (train["rows"], train["clips"], report["left_out"]) == (16, 4, {})
    # Two stretches of 2 s, one of 0.875 s, and the array from 0.5 s on.
    assert train["hours"] == pytest.approx((2 + 2 + 0.875 + 1.5) / 3600, abs=1e-4)
    with pytest.raises(
        UserError, match="built/own_songs/1.0.0: exists already; delete"
    ):
        build.build(make(OwnSongs, path, out), allow_missing=False)

    # Records do not need the sound, but all of the dataset.
    (tmp_path / "0.wav").unlink()
    assert corpus.load(folder) == expected
    next(folder.glob("*train*")).write_bytes(b"garbage")
    with pytest.raises(UserError, match="it is damaged .*; build it again"):
        corpus.load(folder)


def test_several_corpora_in_a_folder_must_be_named(tmp_path):
    path = tmp_path / "songs.jsonl"
    sound(tmp_path / "a.wav", 1)
    path.write_text('{"audio": "a.wav", "answer": "A."}\n')
    for name in ("one", "two"):
        make(OwnSongs, path, tmp_path / "out" / name).build()
        (tmp_path / "out" / name / "own_songs").rename(tmp_path / "out" / name / "my")
        (tmp_path / "out" / name / "my/1.0.0").rename(tmp_path / "out" / name / "1")
    with pytest.raises(UserError, match="several corpora; name one of .*/one/1, .*two"):
        corpus.load(tmp_path / "out")
    assert len(corpus.load(tmp_path / "out" / "two")) == 1
    path.write_text('{"audio": "a.wav", "answer": "A.", "split": "my split"}\n')
    with pytest.raises(UserError, match="the split 'my split' cannot be built"):
        make(OwnSongs, path, tmp_path / "out" / "three").build()


WATCHED = """
import runpy, sys

sys.argv = ["build", *sys.argv[1:]]
try:
    runpy.run_module("musilingo_jax.corpora.build", run_name="__main__", alter_sys=True)
finally:
    imported = {"tensorflow", "torch", "pandas"} & sys.modules.keys()
    print("imported", sorted(imported))
"""


def without_tensorflow(*arguments):
    """Runs the program in a process of its own, and checks what that has imported."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *map(str, arguments)],
        capture_output=True,
        text=True,
    )
    assert done.stdout.endswith("imported []\n")
    return done


def test_the_command_inspects_refuses_and_builds_without_tensorflow(tmp_path):
    source, out = tmp_path / "annotations", tmp_path / "out"
    musiccaps_table(
        source,
        ("a", 30, 40, "A song.", True),
        ("b", 30, 40, "A song.", False),
        ("c", 30, 40, "A song.", False),
    )
    done = programs.run("corpora.build", "musiccaps", f"--source={source}", "--inspect")
    assert done.returncode == 0
    assert done.stdout.splitlines()[2].split() == ["test", "1", "1", "0", "0", "–"]
    assert done.stdout.splitlines()[3].split() == ["train", "2", "2", "0", "0", "–"]
    assert "3 missing audio, the first musiccaps-public.csv:2" in done.stdout

    sound(tmp_path / "audio/a.wav", 10)
    sound(tmp_path / "audio/b.wav", 10)
    given = ["musiccaps", f"--source={source}", f"--out={out}"]
    given.append(f"--audio={tmp_path / 'audio'}")
    done = programs.run("corpora.build", *given)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        "error: 1 of 3 rows lack their audio, so nothing was built; they are listed in"
    )
    assert not (out / "musiccaps/1.0.0").exists()
    (row,) = map(json.loads, (out / "musiccaps/left_out.jsonl").open())
    assert row == {
        "where": "musiccaps-public.csv:4",
        "audio": "c",
        "split": "train",
        "reason": "missing audio",
        "detail": f"no c in any format in {tmp_path / 'audio'}",
    }
    done = without_tensorflow(*given, "--allow_missing")
    assert done.returncode == 0
    assert f"--config.corpus.path={out / 'musiccaps'}" in done.stdout
    assert [r.split for r in corpus.load(out / "musiccaps")] == ["test", "train"]


def test_the_layout_says_what_is_wanted_and_where_it_is():
    done = programs.run("corpora.build", "musiccaps", "--layout")
    assert done.returncode == 0
    assert "musiccaps-public.csv      with ytid" in done.stdout
    assert "Kaggle\n(googleai/musiccaps)" in done.stdout


@pytest.mark.parametrize(
    "name, reason",
    [
        ("music_caps", "known are fma, giantsteps, .*, song_describer$"),
        ("music_instruct/medium", "choose one of all, short, long"),
        ("music_qa/all", "has no configuration 'all': name it without"),
    ],
)
def test_unknown_corpora_are_a_usage_error(name, reason):
    with pytest.raises(UsageError, match=reason):
        build.find(name)


def test_nothing_usable_is_not_built_even_if_missing_audio_is_allowed(tmp_path):
    musiccaps_table(tmp_path, ("a", 30, 40, "A song.", True))
    with pytest.raises(UserError, match="none of its 1 rows can be used"):
        build.build(make(MusicCaps, tmp_path), allow_missing=True)


def test_a_pipe_in_place_of_a_parquet_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "test-0.parquet")
    with pytest.raises(UserError, match="cannot be read as Parquet: .*not a regular"):
        LpMusicCapsMsd(source=tmp_path, audio=None, data_dir=tmp_path).survey  # noqa: B018


@pytest.mark.parametrize("kind", ["dangling", "pipe", "folder"])
def test_what_has_the_name_of_an_annotation_file_is_not_left_out(tmp_path, kind):
    sound(tmp_path / "a.wav", 1)
    turns = [{"from": "human", "value": "Fast?"}, {"from": "gpt", "value": "No."}]
    as_json(
        tmp_path / "EvalMusicQA.json", [{"audio_name": "a.wav", "conversation": turns}]
    )
    path = tmp_path / "FinetuneMusicQA.json"
    if kind == "dangling":  # As in a folder of the hub whose blobs were deleted.
        path.symlink_to("nowhere")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(UserError, match=r"FinetuneMusicQA\.json: cannot be read"):
        make(MusicQA, tmp_path).survey  # noqa: B018


def test_an_annotation_file_in_a_folder_of_its_name_is_found(tmp_path):
    musiccaps_table(tmp_path / "musiccaps-public.csv", ("a", 0, 1, "One.", True))
    sound(tmp_path / "a.wav", 1)
    ((record, _),) = make(MusicCaps, tmp_path).survey.records
    assert record.answer == "One."


def test_files_of_a_split_that_are_not_there_are_told(tmp_path, capsys):
    msd_table(tmp_path, "train", 2)
    sound(tmp_path / "0/0/train0.clip.wav", 1)
    whole = tmp_path / "data/train-00000-of-00001-0a1b.parquet"
    assert make(LpMusicCapsMsd, tmp_path).survey.records
    assert "are not there" not in capsys.readouterr().err
    whole.rename(tmp_path / "data/train-00001-of-00004-0a1b.parquet")
    assert make(LpMusicCapsMsd, tmp_path).survey.records
    assert "of the split 'train' 3 are not there" in capsys.readouterr().err


@pytest.mark.slow
def test_flipped_bits_of_a_parquet_file_end_in_a_sentence(tmp_path):
    msd_table(tmp_path, "test", 2)
    (path,) = tmp_path.glob("data/*.parquet")
    whole, told = path.read_bytes(), set()
    reader = LpMusicCapsMsd(source=tmp_path, audio=None, data_dir=tmp_path)
    for bit in random.Random(0).sample(range(8 * len(whole)), 3000):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            list(reader.rows())
        except UserError as error:
            assert path.name in str(error)
            told.add(type(error.__cause__))
    assert {UnicodeDecodeError, KeyError} & told
